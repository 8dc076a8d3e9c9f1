"""What the commands that run an experiment share: their input, their output folder, and how a run is continued."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from metarestore.console import command_line, console, say
from metarestore.errors import UserError, outside_errors
from metarestore.files import holds_run, occupied, require_output

if TYPE_CHECKING:
    from metarestore.cli.options import RunOptions
    from metarestore.config.experiment import Experiment
    from metarestore.config.overrides import Override


class RunInput(NamedTuple):
    """What a run is made from.

    Attributes:
        experiment: The checked experiment.
        overrides: The values that the command line replaced in it.
        root: The project's folder.
        folder: Where the results are written.
    """

    experiment: Experiment
    overrides: Sequence[Override]
    root: Path
    folder: Path


def read_run(
    path: Path, options: RunOptions, name: str, *, root: Path | None = None, more: Sequence[str] = ()
) -> RunInput:
    """Reads an experiment with its overrides, and checks that the results can be written.

    Args:
        path: The experiment file.
        options: The options of the command.
        name: Name of the results folder in runs/, if --out does not give one.
        root: The project's folder, if not that of the file.
        more: Further KEY=VALUE overrides.

    Raises:
        UserError: The experiment is invalid, or its results cannot be written.
    """
    from metarestore.config.document import project_root
    from metarestore.config.overrides import parse_override
    from metarestore.project.experiments import read_experiment

    overrides = [parse_override(text) for text in (*options.overrides, *more)]
    experiment = read_experiment(path, overrides)
    root = root or project_root(path)
    folder = _out_folder(options, root, name)
    if options.json_file is not None:
        require_output(options.json_file, "--json", overwrite=options.overwrite)
    return RunInput(experiment, overrides, root, folder)


def _out_folder(options: RunOptions, root: Path, name: str) -> Path:
    out = options.out
    if options.resume and out is None:
        raise UserError("--resume: say which run to continue, with --out DIR")
    if out is not None and options.resume and not out.is_dir():
        raise UserError(f"--resume: there is no run in {out}; leave --resume out to start one")
    if out is not None and not options.resume and holds_run(out):
        raise occupied(out)
    return out or root / "runs" / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Prints how to continue when the user stops a run, and appends the traceback of an error to the folder's log."""
    from metarestore.training.interrupt import Interrupted

    try:
        yield
    except (Interrupted, KeyboardInterrupt) as stop:
        reason = (str(stop) or "stopped").capitalize()
        say(f"{reason}. Continue with: {resume_command(sys.argv[1:], folder)}")
        raise SystemExit(130) from stop
    except outside_errors() as error:
        if folder.is_dir():
            _log_traceback(folder / "error.log", error)
        raise


def _log_traceback(log: Path, error: Exception) -> None:
    """Appends a traceback to a run's log; a full disk does not hide the error itself."""
    lines = [f"{datetime.now():%Y-%m-%d %H:%M:%S} {given_command()}\n", *traceback.format_exception(error), "\n"]
    with suppress(OSError), log.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(lines)
        error.add_note(f"the traceback is in {log}")


def given_command() -> str:
    """Returns the command that was given, in a form that can be copied to a shell."""
    return command_line("metarestore", *sys.argv[1:])


def resume_command(arguments: Sequence[str], folder: Path) -> str:
    """Returns the command, to be copied to a shell, that continues in a folder what these arguments started.

    >>> resume_command(["train", "my e.yaml", "--set", "training.steps=8"], Path("runs/a"))
    "metarestore train 'my e.yaml' --set training.steps=8 --out runs/a --resume"
    """
    rest = iter(arguments)
    kept: list[str] = []
    for argument in rest:
        if argument == "--":
            # Options must come before it.
            return command_line("metarestore", *kept, f"--out={folder}", "--resume", "--", *rest)
        if argument == "--out":
            next(rest, None)
        elif argument != "--resume" and not argument.startswith("--out="):
            kept.append(argument)
    out = [f"--out={folder}"] if str(folder).startswith("-") else ["--out", str(folder)]
    return command_line("metarestore", *kept, *out, "--resume")


def print_locations(folder: Path, root: Path) -> None:
    """Prints where the report, all files and the MLflow runs of a finished run are."""
    from metarestore.journal import experiment_of
    from metarestore.tracking_store import tracking_uri, ui_address

    command, address = ui_address(tracking_uri(root), experiment_of(folder))
    console.print()
    for label, location in (
        ("Report", folder / "report.html"),
        ("Everything", folder),
        ("Tracking", f"{command}, then open {address}" if command else f"open {address}"),
    ):
        say(f"{label + ':':<12}{location}")
