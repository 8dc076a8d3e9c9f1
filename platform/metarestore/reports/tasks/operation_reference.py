"""The Markdown reference of operations and structures in task files, generated from their classes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from metarestore.config.ranges import Range
from metarestore.config.wording import shown
from metarestore.degradations import OPERATIONS
from metarestore.degradations.base import Step
from metarestore.degradations.structure import STRUCTURES


def operation_reference() -> str:
    """Returns the page: a section for each operation and structure, with a table of its keys."""
    lines = [
        "# Operations",
        "",
        "All operations of a pipeline with their keys and sources, as printed by `metarestore tasks operations`.",
        "A key without a default is required; a drawn key accepts a range, which is sampled once per task. Every entry",
        "also accepts `probability` (default 1): the fraction of tasks in which it is applied.",
        "",
    ]
    for title, steps in (("Operations", OPERATIONS), ("Structures", STRUCTURES)):
        if title == "Structures":
            lines += [f"## {title}", "", "Entries that contain other entries; they can be nested.", ""]
        for name in sorted(steps):
            lines += _section(name, steps[name], "###" if title == "Structures" else "##")
    return "\n".join(lines)


def _section(name: str, step: type[Step], level: str) -> Iterator[str]:
    text, source = docstring(step)
    yield from (f"{level} `{name}`", "", text, "")
    if source:
        yield from (f"*Source: {source}*", "")
    rows = [_row(key, field) for key, field in step.model_fields.items() if key not in {"op", "probability"}]
    if rows:
        yield from ("| key | drawn | default | meaning |", "| --- | --- | --- | --- |", *rows, "")


def docstring(step: type[Step]) -> tuple[str, str]:
    """Returns the description of an operation or structure and its source, on one line each."""
    text = " ".join(inspect.cleandoc(step.__doc__ or "").split())
    text, _, source = text.partition(" Source: ")
    return text, source


def _row(key: str, field: FieldInfo) -> str:
    drawn = "yes" if field.annotation is Range or Range in _parts(field.annotation) else ""
    meaning = " ".join((field.description or "").split()).replace("|", r"\|")
    default = default_text(field)
    return f"| `{key}` | {drawn} | {f'`{default}`' if default else ''} | {meaning} |"


def _parts(annotation: object) -> set[object]:
    """Returns the component types of an annotation: for `Annotated[Range, ...] | None`, Range and None."""
    inner = get_args(annotation)
    return {annotation}.union(*map(_parts, inner)) if inner else {annotation}


def default_text(field: FieldInfo) -> str:
    """Returns the default of a key in YAML syntax, or an empty string if the key is required."""
    value = field.default
    if value is PydanticUndefined:
        return ""
    plain = value.plain() if isinstance(value, Range) else value
    return plain if isinstance(plain, str) else shown(plain)
