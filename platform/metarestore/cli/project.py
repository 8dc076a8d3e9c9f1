"""The commands that prepare and check a project: `init`, `check`, `schema`, `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metarestore.console import command_line, console, say
from metarestore.errors import UserError


def check(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files or folders; by default the project.")] = None,
) -> None:
    """Checks task, graph and experiment files without running them."""
    from metarestore.checking import check_files, project_files

    files = project_files(paths or [Path.cwd()])
    problems = check_files(files)
    if problems:
        raise UserError(problems)
    say(f"all {len(files)} files are valid" if len(files) != 1 else "1 file is valid")


def schema(
    out: Annotated[Path, typer.Option(help="Folder for the schemas; existing ones are replaced.")] = Path("schemas"),
) -> None:
    """Writes JSON Schemas, by which editors complete and check the YAML files."""
    from metarestore.checking import write_all_schemas

    for path in write_all_schemas(out):
        say(path)


def doctor() -> None:
    """Prints versions and devices, and for everything missing the command that installs it."""
    from metarestore.doctor import diagnose, doctor_table

    findings = diagnose()
    console.print(doctor_table(findings))
    missing = [finding for finding in findings if finding.remedy]
    if missing:
        raise UserError([f"{finding.name}: {finding.value}; {finding.remedy}" for finding in missing])


def init(folder: Path) -> None:
    """Creates a new project: a task, a graph and an experiment that run as they are."""
    from metarestore.checking import write_all_schemas
    from metarestore.scaffold import make_project

    files = make_project(folder)
    write_all_schemas(folder / "schemas")
    for path in files:
        say(path)
    say(f"\nRun it:  {command_line('metarestore', 'train', folder / 'experiments' / 'first.yaml')}")
