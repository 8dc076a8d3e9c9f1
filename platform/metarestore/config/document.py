"""Reads YAML files and validates them; all problems of a file are reported together, with line and column."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from metarestore.config.keypath import KeyPath, Part
from metarestore.config.overrides import Override, apply_overrides
from metarestore.config.problems import Problem, problems_of
from metarestore.config.shape import Shape
from metarestore.config.yaml_text import EntryPosition, Position, YamlError, parse_yaml, position_of
from metarestore.errors import UserError

T = TypeVar("T")


def project_root(file: Path) -> Path:
    """Returns the nearest folder above a file that has a `tasks/` folder, else the current folder."""
    above = (folder for folder in file.absolute().parents if (folder / "tasks").is_dir())
    return next(above, Path.cwd())


def followed(path: Path) -> Path:
    """Resolves symbolic links to an absolute path; a loop of links is left in place, so that opening it fails."""
    return Path(os.path.realpath(path))


@dataclass(frozen=True)
class Document:
    """A YAML file as plain data (dict, list, str, int, float, bool, None; keys are text), with positions in the file.

    `dataclasses.replace(document, data=merge(document.data, patch))` is a patched file: values added by the patch are
    located at the nearest enclosing mapping or list.

    Args:
        path: The file.
        data: Its content.
        positions: The position of every value, by its key path.
    """

    path: Path
    data: dict[str, Any]
    positions: dict[KeyPath, EntryPosition] = field(repr=False)

    def locate(self, loc: Sequence[Part], *, key: bool = False) -> Position:
        """Returns the line and column, from 1, of the deepest part of `loc` that is in the document.

        Args:
            loc: Keys and indices; parts that are not in the document, such as pydantic's labels of union members, are
                skipped.
            key: Whether to return the position of the entry's key instead of its value.
        """
        path: KeyPath = ()
        for part in loc:
            if (*path, part) in self.positions:
                path = (*path, part)
        entry = self.positions[path]
        return entry.key if key else entry.value

    def message(self, problem: Problem) -> tuple[Position, str]:
        """Returns where a problem is, and the line that reports it: `file:line:column: path: problem`."""
        line, column = position = self.locate(problem.at, key=problem.on_key)
        return position, f"{display_path(self.path)}:{line}:{column}: {problem}"


def read_document(path: str | Path) -> Document:
    """Reads a YAML 1.2 file whose top level is a mapping.

    Raises:
        UserError: The file cannot be read, or `file:line:column: ...` for each problem in it.
    """
    path = Path(path)
    data, positions = _parsed(path, _text(path))
    if not isinstance(data, dict):
        given = "is empty" if data is None else f"must hold a mapping (key: value), not {_KINDS[type(data)]}"
        line, column = positions[()].value if positions else (1, 1)
        raise UserError(f"{display_path(path)}:{line}:{column}: the file {given}; write at least one key: value")
    return Document(path, data, positions)


def validate(document: Document, model: type[T] | TypeAdapter[T], overrides: Sequence[Override] = ()) -> T:
    """Validates a document, after applying overrides, against a model.

    Args:
        document: Content of the file.
        model: A pydantic model, any other type, or its adapter.
        overrides: Values from the command line, which replace those of the file.

    Raises:
        UserError: Every problem, one line each: `file:line:column: path: problem` in the order of the file, then those
            caused by overrides: `--set text: path: problem`.
    """
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    data = apply_overrides(document.data, overrides)
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        problems = problems_of(error, data, Shape(adapter, data))
    in_file = _problems(adapter, document.data) if overrides else problems
    raise UserError(_lines(document, data, problems, in_file, overrides))


def display_path(path: str | Path) -> str:
    """Returns a path for messages: relative if it is inside the current folder, else absolute."""
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute)


_KINDS = {list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false"}


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{display_path(path)}: no such file; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{display_path(path)}: is a folder; give a YAML file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{display_path(path)}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = position_of(error.object[: error.start].decode("utf-8-sig", errors="replace"))
        byte = error.object[error.start]
        raise UserError(
            f"{display_path(path)}:{line}:{column}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def _parsed(path: Path, text: str) -> tuple[Any, dict[KeyPath, EntryPosition]]:
    try:
        return parse_yaml(text)
    except YamlError as error:
        name = display_path(path)
        problems = sorted(error.problems)
        raise UserError([f"{name}:{line}:{column}: {message}" for (line, column), message in problems]) from None


def _problems(adapter: TypeAdapter[Any], data: dict[str, Any]) -> list[Problem]:
    try:
        adapter.validate_python(data)
    except ValidationError as error:
        return problems_of(error, data, Shape(adapter, data))
    return []


def _lines(
    document: Document,
    data: dict[str, Any],
    problems: Sequence[Problem],
    in_file: Sequence[Problem],
    overrides: Sequence[Override],
) -> list[str]:
    """Returns one line per problem: those in the file by position, then those of overrides in order."""
    targets = [override.target(data) for override in overrides]
    lines: list[tuple[tuple[int, int, int], str]] = []
    for problem in problems:
        culprit = _culprit(problem, in_file, targets)
        if culprit is None:
            (line, column), message = document.message(problem)
            lines.append(((0, line, column), message))
        else:
            lines.append(((1, culprit, 0), f"--set {overrides[culprit].text}: {problem}"))
    return [line for _, line in sorted(lines, key=lambda entry: entry[0])]


def _culprit(problem: Problem, in_file: Sequence[Problem], targets: Sequence[KeyPath]) -> int | None:
    """Returns the index of the override that caused a problem (the closest, then the last), or None for the file."""
    new = problem not in in_file

    def caused(path: KeyPath) -> bool:
        within = path in (problem.path[: len(path)], problem.at[: len(path)])
        around = path[: len(problem.path)] == problem.path or path[: len(problem.at)] == problem.at
        return within or (new and around)

    def closeness(index: int) -> tuple[int, int]:
        agreeing = takewhile(lambda parts: parts[0] == parts[1], zip(targets[index], problem.at, strict=False))
        return sum(1 for _ in agreeing), index

    return max((index for index, path in enumerate(targets) if caused(path)), key=closeness, default=None)
