"""The application: its commands, and what a user sees of an error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer

from metarestore import __version__
from metarestore.cli.ablation import ablate
from metarestore.cli.camera import adapt
from metarestore.cli.describe import describe
from metarestore.cli.export import export
from metarestore.cli.graph import graph_app
from metarestore.cli.networks import evaluate, networks
from metarestore.cli.pairs import pairs_app
from metarestore.cli.project import check, doctor, init, schema
from metarestore.cli.restore import restore
from metarestore.cli.shots import shots
from metarestore.cli.study import compare, demo, train
from metarestore.cli.tasks import tasks_app
from metarestore.cli.tuning import tune
from metarestore.cli.zero_shot import kernel
from metarestore.console import prepare_output, say, visible
from metarestore.errors import UserError, is_outside, outside_errors, system_problem

_COMMANDS: tuple[Callable[..., None], ...] = (
    *(demo, adapt, train, compare, tune, ablate, shots),
    *(evaluate, restore, kernel, describe, networks, export),
    *(check, schema, doctor, init),
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Meta-learned restoration of real photographs from a few real pairs.",
)
for _command in _COMMANDS:
    app.command()(_command)
app.add_typer(tasks_app, name="tasks")
app.add_typer(pairs_app, name="pairs")
app.add_typer(graph_app, name="graph")


def main() -> None:
    """Runs the command line; an error of the user or the system is one line on stderr and exit code 2."""
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
    except outside_errors() as error:
        if debug or not is_outside(error):
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
    """Declares the options of all commands; `main` reads --debug, which may be given anywhere."""
