"""The command line: reads files and options, calls the package, prints."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from metarestore import __version__
from metarestore.console import command_line, console, prepare_output, say, visible
from metarestore.describe_cli import describe
from metarestore.errors import SYSTEM_ERRORS, UserError, system_problem
from metarestore.graph_cli import graph_app
from metarestore.network_cli import evaluate, networks, restore
from metarestore.options import Overwrite
from metarestore.tasks_cli import tasks_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Meta-learned restoration of real photographs from a few real pairs.",
)
app.add_typer(tasks_app, name="tasks")
app.add_typer(graph_app, name="graph")

_RECORDS = ("run.json", "sweep.json", "grid.json")
"""Files by which the folder of a run, a sweep and a grid is known."""

Out = Annotated[Path | None, typer.Option(help="Folder for the results; a new one under runs/ if left out.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Overrides a value of the file: --set training.steps=100")]
More = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="More values to override.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also writes the figures to this file.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continues the run in --out.")]


def main() -> None:
    """Runs the command line; a mistake of the user's, or the system's, is one line on stderr and exit code 2."""
    prepare_output()
    arguments = sys.argv[1:]
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in options
    arguments = [option for option in options if option != "--debug"] + arguments[len(options) :]
    try:
        app(arguments)
    except UserError as error:
        if debug:
            raise
        _end_with(error.problems, error)
    except SYSTEM_ERRORS as error:
        if debug:
            raise
        _end_with(["; ".join([system_problem(error), *getattr(error, "__notes__", ())])], error)


def _end_with(problems: Sequence[str], error: Exception) -> NoReturn:
    for problem in problems:
        sys.stderr.write(f"{visible(problem)}\n")
    raise SystemExit(2) from error


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"metarestore {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Prints the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Shows the traceback of an error.")] = False,
) -> None:
    """Declares the options of all commands; `main` reads --debug, which may stand anywhere."""


@app.command()
def demo(
    more: More = None,
    out: Out = None,
    json_file: Json = None,
    override: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Runs the main job: learns from synthetic degradations, adapts to a camera from five pairs, compares, reports."""
    from metarestore.project import catalogue

    path = catalogue() / "experiments" / "demo.yaml"
    # The catalogue may be read-only: what the demo writes belongs to the current folder.
    folder = _run(
        path,
        [*(override or ()), *(more or ())],
        out,
        json_file,
        arms=True,
        resume=resume,
        overwrite=overwrite,
        root=Path.cwd(),
    )
    console.print("\nTo try next:", style="bold")
    for words in (
        ("tasks", "preview", "phone_camera", "--out", "sheet.png"),
        ("restore", "PHOTO.jpg", "--model", folder, "--out", "big.png"),
        ("init", "my_study"),
    ):
        say(f"  {command_line('metarestore', *words)}")


@app.command()
def train(
    experiment: Path,
    more: More = None,
    out: Out = None,
    json_file: Json = None,
    override: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Trains the model of an experiment, adapts it to the target's shots and measures it."""
    _run(experiment, [*(override or ()), *(more or ())], out, json_file, arms=False, resume=resume, overwrite=overwrite)


@app.command()
def compare(
    experiment: Path,
    more: More = None,
    out: Out = None,
    json_file: Json = None,
    override: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Trains and measures every arm of an experiment, and says which differences are beyond noise."""
    _run(experiment, [*(override or ()), *(more or ())], out, json_file, arms=True, resume=resume, overwrite=overwrite)


@app.command()
def tune(
    experiment: Path,
    more: More = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Number of trials, in place of tuning.trials.")] = None,
    out: Out = None,
    json_file: Json = None,
    override: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Searches the `search:` block of an experiment for the values that restore the target's held-out shots best."""
    from metarestore.checking import require_searchable_names
    from metarestore.config.document import project_root
    from metarestore.config.overrides import parse_override
    from metarestore.project import read_experiment

    more_trials = [f"tuning.trials={trials}"] if trials else []
    checked = read_experiment(experiment, [parse_override(t) for t in (*(override or ()), *(more or ()), *more_trials)])
    root = project_root(experiment)
    folder = _out_folder(out, root, f"{experiment.stem}-tune", resume=resume)
    _check_writable(json_file, overwrite=overwrite)
    require_searchable_names(checked, root)

    from metarestore.evaluation.results import write_json
    from metarestore.reports.tuning_report import trial_table, tuning_summary, unmeasured_trials
    from metarestore.tuning.sweep import run_tuning

    with _going_on(folder):
        result = run_tuning(checked, root, folder, name=experiment.stem, command=_command(), resume=resume)
    console.print(trial_table(result))
    say(tuning_summary(result))
    if json_file is not None:
        write_json(json_file, result.to_json())
    _say_where(folder, root)
    if result.best is None:
        raise UserError(unmeasured_trials(result))
    say(f"{'Best:':<12}{command_line('metarestore', 'train', folder / 'best.yaml')}")


@app.command()
def ablate(
    experiment: Path,
    more: More = None,
    against: Annotated[
        str | None, typer.Option(metavar="ARM", help="Compares with this arm; else with the first that is uniform.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keeps the trainings and the adapted network of each cell.")
    ] = False,
    out: Out = None,
    json_file: Json = None,
    override: Set = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Runs every arm with every combination of the `grid:` block, over seeds, and compares the arms of each group."""
    from metarestore.ablation.plan import reference_arm, resolve_cells
    from metarestore.config.document import project_root
    from metarestore.config.overrides import parse_override
    from metarestore.project import read_experiment

    checked = read_experiment(experiment, [parse_override(text) for text in (*(override or ()), *(more or ()))])
    root = project_root(experiment)
    folder = _out_folder(out, root, f"{experiment.stem}-ablate", resume=resume)
    _check_writable(json_file, overwrite=overwrite)
    reference_arm(checked, against)
    resolve_cells(checked, root)

    from metarestore.ablation.run import run_ablation
    from metarestore.evaluation.results import write_json
    from metarestore.reports.grid_progress import AblationDisplay
    from metarestore.reports.grid_report import ablation_summary, group_table

    with _going_on(folder), AblationDisplay(console) as display:
        result = run_ablation(
            checked,
            root,
            folder,
            display,
            name=experiment.stem,
            command=_command(),
            against=against,
            keep=keep,
            resume=resume,
        )
    for group in result.groups():
        console.print(group_table(result, group), end="\n\n")
    say(ablation_summary(result))
    for note in result.notes:
        say(f"- {note}")
    if json_file is not None:
        write_json(json_file, result.to_json())
    _say_where(folder, root)
    if result.failures:
        raise UserError([f"{name}: {error}" for name, error in result.failures.items()])


def _run(
    path: Path,
    override: Sequence[str],
    out: Path | None,
    json_file: Path | None,
    *,
    arms: bool,
    resume: bool,
    overwrite: bool,
    root: Path | None = None,
) -> Path:
    from metarestore.checking import require_resolvable
    from metarestore.config.document import project_root
    from metarestore.config.overrides import parse_override
    from metarestore.project import read_experiment

    overrides = [parse_override(text) for text in override]
    experiment = read_experiment(path, overrides)
    root = root or project_root(path)
    folder = _out_folder(out, root, path.stem, resume=resume)
    _check_writable(json_file, overwrite=overwrite)
    require_resolvable(experiment, root, arms=arms)

    from metarestore.evaluation.results import write_json
    from metarestore.reports.findings import findings, unmeasured
    from metarestore.reports.progress import TrainingDisplay
    from metarestore.reports.table import detail_table, result_table, statements
    from metarestore.study import run_study, summary

    with _going_on(folder), TrainingDisplay(console) as display:
        result = run_study(
            experiment,
            root,
            folder,
            display,
            name=path.stem,
            command=_command(),
            arms=arms,
            resume=resume,
            restated=[one.path for one in overrides],
        )
    console.print(result_table(result))
    console.print(detail_table(result))
    for statement in statements(result):
        say(statement)
    for finding in findings(result):
        say(finding, style="yellow")
    if json_file is not None:
        write_json(json_file, summary(result))
    _say_where(folder, root)
    if error := unmeasured(result):
        raise UserError(error)
    return folder


def _out_folder(out: Path | None, root: Path, name: str, *, resume: bool) -> Path:
    if resume and out is None:
        raise UserError("--resume: say which run to continue, with --out DIR")
    if out is not None and resume and not out.is_dir():
        raise UserError(f"--resume: there is no run in {out}; leave --resume out to start one")
    if out is not None and not resume and any((out / record).exists() for record in _RECORDS):
        raise UserError(f"{out}: holds a run already; continue it with --resume, or choose another --out")
    return out or root / "runs" / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


@contextmanager
def _going_on(folder: Path) -> Iterator[None]:
    """Says how to go on when the user stops what runs into a folder."""
    from metarestore.training.interrupt import Interrupted

    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        what = (str(stop) or "stopped").capitalize()
        say(f"{what}. Go on with: {resume_command(sys.argv[1:], folder)}")
        raise SystemExit(130) from stop
    except SYSTEM_ERRORS as error:
        if folder.is_dir():
            _note_traceback(folder / "error.log", error)
        raise


def _note_traceback(log: Path, error: Exception) -> None:
    """Adds a traceback to a run's log; a disk that is full does not hide the error itself."""
    lines = [f"{datetime.now():%Y-%m-%d %H:%M:%S} {_command()}\n", *traceback.format_exception(error), "\n"]
    with suppress(OSError), log.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(lines)
        error.add_note(f"the traceback is in {log}")


def _command() -> str:
    """Returns the command that was given, to be repeated."""
    return command_line("metarestore", *sys.argv[1:])


def resume_command(arguments: Sequence[str], folder: Path) -> str:
    """Returns the command, to be copied to a shell, that continues in a folder what these arguments began.

    >>> resume_command(["train", "my e.yaml", "training.steps=8"], Path("runs/a"))
    "metarestore train 'my e.yaml' training.steps=8 --out runs/a --resume"
    """
    rest = iter(arguments)
    kept: list[str] = []
    for argument in rest:
        if argument == "--":
            # Options do not come behind it.
            return command_line("metarestore", *kept, f"--out={folder}", "--resume", "--", *rest)
        if argument == "--out":
            next(rest, None)
        elif argument != "--resume" and not argument.startswith("--out="):
            kept.append(argument)
    out = [f"--out={folder}"] if str(folder).startswith("-") else ["--out", str(folder)]
    return command_line("metarestore", *kept, *out, "--resume")


def _say_where(folder: Path, root: Path) -> None:
    from metarestore.journal import experiment_of
    from metarestore.tracking_store import tracking_uri, ui_address

    command, address = ui_address(tracking_uri(root), experiment_of(folder))
    console.print()
    for what, where in (
        ("Report", folder / "report.html"),
        ("Everything", folder),
        ("Tracking", f"{command}, then open {address}" if command else f"open {address}"),
    ):
        say(f"{what + ':':<12}{where}")


def _check_writable(path: Path | None, *, overwrite: bool) -> None:
    """Checks before hours of work, not after, whether a file can be written."""
    from metarestore.files import require_output

    if path is not None:
        require_output(path, "--json", overwrite=overwrite)


app.command()(evaluate)
app.command()(restore)
app.command()(describe)
app.command()(networks)


@app.command()
def check(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files or folders; the project if left out.")] = None,
) -> None:
    """Checks task, graph and experiment files without running them."""
    from metarestore.checking import check_files, project_files

    files = project_files(paths or [Path.cwd()])
    problems = check_files(files)
    if problems:
        raise UserError(problems)
    say(f"{len(files)} files are right")


@app.command()
def schema(
    out: Annotated[Path, typer.Option(help="Folder for the schemas; those in it are replaced.")] = Path("schemas"),
) -> None:
    """Writes JSON Schemas, by which editors complete and check the YAML files."""
    from metarestore.checking import write_all_schemas

    for path in write_all_schemas(out):
        say(path)


@app.command()
def doctor() -> None:
    """Prints versions and devices, and what is missing with the command that mends it."""
    from metarestore.doctor import diagnose, doctor_table

    findings = diagnose()
    console.print(doctor_table(findings))
    missing = [finding for finding in findings if finding.remedy]
    if missing:
        raise UserError([f"{finding.name}: {finding.value}; {finding.remedy}" for finding in missing])


@app.command()
def init(folder: Path) -> None:
    """Makes a folder for an own study: a task, a graph and an experiment that run as they are."""
    from metarestore.checking import write_all_schemas
    from metarestore.scaffold import make_project

    files = make_project(folder)
    write_all_schemas(folder / "schemas")
    for path in files:
        say(path)
    say(f"\nRun it:  {command_line('metarestore', 'train', folder / 'experiments' / 'first.yaml')}")
