"""The reference of operations and structures, as Markdown: what a task file may say, from what the classes say."""

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
    """Returns the page: a section for each operation and structure, with a row for each of its keys."""
    lines = [
        "# Operations",
        "",
        "Every operation of a pipeline, its keys, and where it comes from; `metarestore tasks operations` prints this.",
        "A key without a default must be written; a drawn key takes a range, drawn once per task. Every entry",
        "also takes `probability` (default 1): the share of tasks in which it acts.",
        "",
    ]
    for title, steps in (("Operations", OPERATIONS), ("Structures", STRUCTURES)):
        if title == "Structures":
            lines += [f"## {title}", "", "Entries that hold other entries; they nest.", ""]
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
    """Returns what an operation or structure says of itself, and its source, on one line each."""
    text = " ".join(inspect.cleandoc(step.__doc__ or "").split())
    text, _, source = text.partition(" Source: ")
    return text, source


def _row(key: str, field: FieldInfo) -> str:
    drawn = "yes" if field.annotation is Range or Range in _parts(field.annotation) else ""
    meaning = " ".join((field.description or "").split()).replace("|", r"\|")
    default = default_text(field)
    return f"| `{key}` | {drawn} | {f'`{default}`' if default else ''} | {meaning} |"


def _parts(annotation: object) -> set[object]:
    """Returns the types that an annotation is made of: of `Annotated[Range, ...] | None`, Range and None."""
    inner = get_args(annotation)
    return {annotation}.union(*map(_parts, inner)) if inner else {annotation}


def default_text(field: FieldInfo) -> str:
    """Returns the default of a key as it would be written in YAML; nothing if the key must be written."""
    value = field.default
    if value is PydanticUndefined:
        return ""
    plain = value.plain() if isinstance(value, Range) else value
    return plain if isinstance(plain, str) else shown(plain)
