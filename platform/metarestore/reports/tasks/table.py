"""The table of task distributions: what there is to learn from."""

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
"""Columns of a terminal that a name may take without being folded."""


def task_table(project: Project) -> Table:
    """Lays out the task distributions of a project and of the catalogue.

    A file with problems stands among the others with the first of them, so that it does not look as if it were lost.
    """
    table = Table(box=None, pad_edge=False)
    files = project.names("tasks")
    # Names stay on one line, unless one is so long that the terminal would cut it off.
    whole = max(map(cell_len, files), default=0) <= _NAME
    for heading in ("name", "kind", "scale", "pipeline", "from", "what it is"):
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
    """Names an entry of a pipeline; a structure with the number of entries in it."""
    return f"{step.op} ({len(step.inner)})" if step.inner else step.op


def description(path: Path) -> str:
    """Returns the opening words of a YAML file's comment, up to a colon or full stop; the schema line is skipped."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = takewhile(lambda line: line.startswith("#"), lines)
    words = [line.lstrip("# ").rstrip() for line in comment if "yaml-language-server" not in line]
    return re.split(r"[:.](?:\s|$)", " ".join(words), maxsplit=1)[0]
