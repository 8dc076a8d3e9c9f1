"""The command `shots`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metarestore.cli.options import RunOptions, run_options
from metarestore.cli.runs import given_command, print_locations, read_run, resumable
from metarestore.console import console, say
from metarestore.errors import UserError


@run_options
def shots(
    experiment: Path,
    sizes: Annotated[
        str | None,
        typer.Option(
            "--shots",
            metavar="N,N,...",
            help="Numbers of pairs; by default 1,2,3,5,8, as far as the support pool has them.",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=1, help="Choices of the pairs for each number; by default 5, at most one for each pair."),
    ] = None,
    arm: Annotated[
        str | None, typer.Option(metavar="NAME", help="Arm to run; by default the experiment itself.")
    ] = None,
    worth: Annotated[
        float, typer.Option(min=0, metavar="DB", help="Smallest gain that is worth taking more pairs for.")
    ] = 0.1,
    *,
    options: RunOptions,
) -> None:
    """Measures the gain of an experiment over its number of real pairs: how many are needed?"""
    wanted = None if sizes is None else _sizes(sizes)
    checked, _, root, folder = read_run(experiment, options, f"{experiment.stem}-shots")

    from metarestore.ablation.shots import plan_shots, run_shots
    from metarestore.evaluation.results import write_json
    from metarestore.reports.ablation.learning_curve import curve_json, curve_notes, curve_statement, curve_table
    from metarestore.reports.ablation.progress import AblationDisplay
    from metarestore.reports.ablation.report import ablation_summary

    plan = plan_shots(checked, root, sizes=wanted, folds=folds, arm=arm)
    with resumable(folder), AblationDisplay(console) as display:
        result, curve = run_shots(
            plan,
            root,
            folder,
            display,
            name=experiment.stem,
            command=given_command(),
            worth=worth,
            resume=options.resume,
        )
    console.print(curve_table(curve), end="\n\n")
    say(curve_statement(curve))
    say(ablation_summary(result))
    for note in (*curve_notes(curve), *result.notes):
        say(f"- {note}")
    if options.json_file is not None:
        write_json(options.json_file, curve_json(curve))
    print_locations(folder, root)
    if result.failures:
        raise UserError([f"{name}: {error}" for name, error in result.failures.items()])


def _sizes(text: str) -> list[int]:
    """Reads numbers of pairs.

    Raises:
        UserError: They are not positive whole numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--shots: numbers of pairs are whole numbers from 1, e.g. 1,2,3,5,8, got {text!r}")
    return [int(part) for part in parts]
