"""The table of task distributions."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from metarestore.degradations.base import Step
from metarestore.errors import UserError
from metarestore.project import Project, read_task

_NAME = 36
"""Maximum width of a name that is not wrapped, in terminal columns."""


def task_table(project: Project) -> Table:
    """Returns the table of the task distributions of a project and of the catalogue.

    An invalid file is listed with its first problem instead of a description.
    """
    table = Table(box=None, pad_edge=False)
    files = project.names("tasks")
    # Names stay on one line, unless one is too long for the terminal.
    whole = max(map(cell_len, files), default=0) <= _NAME
    for heading in ("name", "kind", "scale", "pipeline", "from", "description"):
        table.add_column(heading, overflow="fold", no_wrap=whole and heading == "name")
    for name, path in files.items():
        origin = "project" if path.is_relative_to(project.root) else "catalogue"
        kind, scale, pipeline, description = _cells(path)
        table.add_row(Text(name), kind, scale, pipeline, origin, description)
    return table


def _cells(path: Path) -> tuple[str, str, Text, Text]:
    """Returns kind, scale, pipeline and description of a task file, or its first problem."""
    try:
        spec = read_task(path)
    except UserError as error:
        return "", "", Text(), Text(error.problems[0], style="red")
    return spec.kind, f"×{spec.scale}", Text(" → ".join(map(_outline, spec.steps))), Text(description(path))


def _outline(step: Step) -> str:
    """Returns the name of a pipeline entry, for a structure with the number of its entries."""
    return f"{step.op} ({len(step.inner)})" if step.inner else step.op


def description(path: Path) -> str:
    """Returns the first sentence of a YAML file's comment, up to a colon or full stop, without the schema line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    words = [line.lstrip("# ").rstrip() for line in comment if "yaml-language-server" not in line]
    return re.split(r"[:.](?:\s|$)", " ".join(words), maxsplit=1)[0]
