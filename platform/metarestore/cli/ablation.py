"""The command `ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metarestore.cli.options import RunOptions, run_options
from metarestore.cli.runs import given_command, print_locations, read_run, resumable
from metarestore.console import console, say
from metarestore.errors import UserError


@run_options
def ablate(
    experiment: Path,
    against: Annotated[
        str | None, typer.Option(metavar="ARM", help="The reference arm; by default the first uniform one.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keeps the trainings and the adapted network of each cell.")
    ] = False,
    *,
    options: RunOptions,
) -> None:
    """Runs every arm with every combination of the `grid:` block, over seeds, and compares the arms of each group."""
    from metarestore.ablation.plan import reference_arm, resolve_cells

    checked, _, root, folder = read_run(experiment, options, f"{experiment.stem}-ablate")
    reference_arm(checked, against)
    resolve_cells(checked, root)

    from metarestore.ablation.run import run_ablation
    from metarestore.evaluation.results import write_json
    from metarestore.reports.ablation.progress import AblationDisplay
    from metarestore.reports.ablation.report import ablation_summary, group_table

    with resumable(folder), AblationDisplay(console) as display:
        result = run_ablation(
            checked,
            root,
            folder,
            display,
            name=experiment.stem,
            command=given_command(),
            against=against,
            keep=keep,
            resume=options.resume,
        )
    for group in result.groups():
        console.print(group_table(result, group), end="\n\n")
    say(ablation_summary(result))
    for note in result.notes:
        say(f"- {note}")
    if options.json_file is not None:
        write_json(options.json_file, result.to_json())
    print_locations(folder, root)
    if result.failures:
        raise UserError([f"{name}: {error}" for name, error in result.failures.items()])
