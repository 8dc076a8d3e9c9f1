"""The command `tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metarestore.cli.options import RunOptions, run_options
from metarestore.cli.runs import given_command, print_locations, read_run, resumable
from metarestore.console import command_line, console, say
from metarestore.errors import UserError


@run_options
def tune(
    experiment: Path,
    trials: Annotated[int | None, typer.Option(min=1, help="Number of trials, instead of tuning.trials.")] = None,
    *,
    options: RunOptions,
) -> None:
    """Searches the `search:` block of an experiment for the values that restore the target's held-out shots best."""
    from metarestore.checking import require_searchable_names

    more = [f"tuning.trials={trials}"] if trials else []
    checked, _, root, folder = read_run(experiment, options, f"{experiment.stem}-tune", more=more)
    require_searchable_names(checked, root)

    from metarestore.evaluation.results import write_json
    from metarestore.reports.tuning.report import trial_table, tuning_summary, unmeasured_trials
    from metarestore.tuning.run import run_tuning

    with resumable(folder):
        result = run_tuning(checked, root, folder, name=experiment.stem, command=given_command(), resume=options.resume)
    console.print(trial_table(result))
    say(tuning_summary(result))
    if options.json_file is not None:
        write_json(options.json_file, result.to_json())
    print_locations(folder, root)
    if result.best is None:
        raise UserError(unmeasured_trials(result))
    say(f"{'Best:':<12}{command_line('metarestore', 'train', folder / 'best.yaml')}")
