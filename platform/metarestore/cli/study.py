"""The commands that run a study: `demo`, `train`, `compare`."""

from __future__ import annotations

from pathlib import Path

from metarestore.cli.options import RunOptions, run_options
from metarestore.cli.runs import given_command, print_locations, read_run, resumable
from metarestore.console import command_line, console, say
from metarestore.errors import UserError


@run_options
def demo(*, options: RunOptions) -> None:
    """Runs the demo: learns from synthetic degradations, adapts to a camera from five pairs, compares, reports."""
    from metarestore.project.names import catalogue

    # The catalogue may be read-only: the demo writes into the current folder.
    folder = _run(catalogue() / "experiments" / "demo.yaml", options, arms=True, root=Path.cwd())
    console.print("\nTo try next:", style="bold")
    for words in (
        ("tasks", "preview", "phone_camera", "--out", "sheet.png"),
        ("restore", "PHOTO.jpg", "--model", folder, "--out", "big.png"),
        ("init", "my_study"),
    ):
        say(f"  {command_line('metarestore', *words)}")


@run_options
def train(experiment: Path, *, options: RunOptions) -> None:
    """Trains the model of an experiment, adapts it to the target's shots and evaluates it."""
    _run(experiment, options, arms=False)


@run_options
def compare(experiment: Path, *, options: RunOptions) -> None:
    """Trains and evaluates every arm of an experiment, and reports which differences are significant."""
    _run(experiment, options, arms=True)


def _run(path: Path, options: RunOptions, *, arms: bool, root: Path | None = None) -> Path:
    """Runs a study and returns the folder of its results."""
    from metarestore.checking import require_resolvable

    experiment, overrides, root, folder = read_run(path, options, path.stem, root=root)
    require_resolvable(experiment, root, arms=arms)

    from metarestore.evaluation.results import write_json
    from metarestore.reports.study.findings import findings, unmeasured
    from metarestore.reports.study.progress import TrainingDisplay
    from metarestore.reports.study.table import detail_table, result_table, statements
    from metarestore.study.run import run_study, summary

    with resumable(folder), TrainingDisplay(console) as display:
        result = run_study(
            experiment,
            root,
            folder,
            display,
            name=path.stem,
            command=given_command(),
            arms=arms,
            resume=options.resume,
            restated=[override.path for override in overrides],
        )
    console.print(result_table(result))
    console.print(detail_table(result))
    for statement in statements(result):
        say(statement)
    for finding in findings(result):
        say(finding, style="yellow")
    if options.json_file is not None:
        write_json(options.json_file, summary(result))
    print_locations(folder, root)
    if error := unmeasured(result):
        raise UserError(error)
    return folder
