"""Converts pydantic's errors to located problems with plain messages: what was given, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from metarestore.config.keypath import KeyPath, Part, format_path
from metarestore.config.shape import Shape, child, has
from metarestore.config.suggest import did_you_mean
from metarestore.config.wording import Wording, mismatch, shown, word_error

_NOUNS = {"op": "operation"}
_TAG_KEYS = ("op", "kind")


@dataclass(frozen=True)
class Problem:
    """One problem of validated data.

    Args:
        path: Key path that the message is about; the empty path is the whole document.
        text: The message.
        at: Key path of the entry whose position is reported.
        on_key: Whether to report the position of the key of that entry instead of its value.
    """

    path: KeyPath
    text: str
    at: KeyPath
    on_key: bool = False

    def __str__(self) -> str:
        path = format_path(self.path)
        return f"{path}: {self.text}" if path else self.text

    def within(self, outer: KeyPath) -> Problem:
        """Returns the same problem of data that lie at `outer` in other data."""
        return replace(self, path=(*outer, *self.path), at=(*outer, *self.at))


@dataclass(frozen=True)
class _Finding:
    """A problem, with the data needed to merge problems of the members of a union."""

    problem: Problem
    wording: Wording
    given: str


def problems_of(error: ValidationError, data: object, shape: Shape) -> list[Problem]:
    """Returns the problems reported by pydantic, one per position: those of the members of a union are merged.

    Args:
        error: The error that pydantic raised for `data`.
        data: The validated plain data.
        shape: The model against which it was validated.
    """
    # A default factory that was not called because another field is invalid is not a separate problem.
    details = [detail for detail in error.errors(include_url=False) if detail["type"] != "default_factory_not_called"]
    findings = _merged([_Error(detail, data, shape) for detail in details], 0)
    return list(dict.fromkeys(finding.problem for finding in findings))


class _Error:
    """One of pydantic's errors; `steps` are the parts of its location, each with whether it is data or a label."""

    def __init__(self, detail: ErrorDetails, data: object, shape: Shape) -> None:
        self.detail = detail
        self.given: Any = detail["input"]
        self.context: dict[str, Any] = detail.get("ctx", {})
        self.shape = shape
        loc = detail["loc"]
        # The last part of the location of a missing value is never in the data.
        absent = loc[-1:] if detail["type"] == "missing" else ()
        in_data = _is_data(loc[: len(loc) - len(absent)], data, self.given, shape)
        self.steps = tuple(zip(loc, (*in_data, *(True for _ in absent)), strict=True))

    def path(self, end: int | None = None) -> KeyPath:
        """Returns the key path in the data of the first `end` parts of the location."""
        return tuple(part for part, in_data in self.steps[:end] if in_data)


def _is_data(loc: Sequence[Part], data: object, given: object, shape: Shape) -> tuple[bool, ...]:
    """Returns which parts of a location are keys or indices of the data; the others are labels of union members."""

    def walks(loc: Sequence[Part], data: object, path: KeyPath) -> Iterator[tuple[tuple[bool, ...], object]]:
        if not loc:
            yield (), data
            return
        part, rest = loc[0], loc[1:]
        is_data = has(data, part) or part in shape.keys(path)
        # A tag may also be the name of a key: {op: jpeg, jpeg: 1}. Both interpretations are tried then.
        is_tag = any(child(data, key) == part for key in _TAG_KEYS)
        if is_data:
            yield from (((True, *flags), end) for flags, end in walks(rest, child(data, part), (*path, part)))
        if is_tag or not is_data:
            yield from (((False, *flags), end) for flags, end in walks(rest, data, path))

    flags, _ = max(walks(loc, data, ()), key=lambda walk: (walk[1] is given or walk[1] == given, sum(walk[0])))
    return flags


def _merged(errors: Sequence[_Error], depth: int) -> Iterator[_Finding]:
    """Yields the findings of errors whose locations agree in their first `depth` parts."""
    yield from (_finding(error) for error in errors if len(error.steps) == depth)
    groups: dict[tuple[Part, bool], list[_Error]] = {}
    for error in errors:
        if len(error.steps) > depth:
            groups.setdefault(error.steps[depth], []).append(error)
    branches: list[list[_Finding]] = []
    for (_, in_data), group in groups.items():
        inner = list(_merged(group, depth + 1))
        if in_data:
            yield from inner
        else:
            branches.append(inner)
    if branches:
        yield from _chosen(branches, errors[0].path(depth))


def _chosen(branches: Sequence[Sequence[_Finding]], here: KeyPath) -> Sequence[_Finding]:
    """Returns the problems of the intended union member; if the value matches none, one problem that lists all."""
    if len(branches) == 1:
        return branches[0]

    def fits(branch: Sequence[_Finding]) -> bool:
        return any(not finding.wording.expects or finding.problem.path != here for finding in branch)

    fitting = [branch for branch in branches if fits(branch)]
    if fitting:
        return min(fitting, key=len)
    every = [finding for branch in branches for finding in branch]
    expected = list(dict.fromkeys(finding.wording.expects for finding in every))
    hint = next((finding.wording.hint for finding in every if finding.wording.hint), "")
    listed = " or ".join(filter(None, (", ".join(expected[:-1]), expected[-1])))
    wording = mismatch(listed, every[0].given, hint)
    return [_Finding(Problem(here, wording.text, here), wording, every[0].given)]


def _finding(error: _Error) -> _Finding:
    special: Callable[[_Error], Problem] | None
    special = _bad_key if error.detail["loc"][-1:] == ("[key]",) else _SPECIAL.get(error.detail["type"])
    wording = word_error(error.detail)
    # The validator of a whole model may name the value inside it that is invalid.
    path = (*error.path(), *error.context.get("at", ()))
    problem = special(error) if special else Problem(path, wording.text, path)
    return _Finding(problem, Wording(problem.text) if special else wording, shown(error.given))


def _unknown_key(error: _Error) -> Problem:
    *outer, key = error.path()
    container = tuple(outer)
    hint = did_you_mean(str(key), error.shape.keys(container), noun="keys")
    return Problem(container, f"unknown key {shown(key)}{hint}", error.path(), on_key=True)


def _bad_key(error: _Error) -> Problem:
    """Describes an error about the key of a mapping, whose location ends in "[key]"."""
    path = error.path()
    return Problem(path[:-1], f"key {shown(path[-1])}: {word_error(error.detail).text}", path, on_key=True)


def _missing(error: _Error) -> Problem:
    return Problem(error.path(), "is missing", error.path()[:-1])


def _unknown_tag(error: _Error) -> Problem:
    key = error.context["discriminator"].strip("'")
    tag = child(error.given, key)
    noun = _NOUNS.get(key, key)
    hint = did_you_mean(str(tag), error.shape.tags(error.path(), key), noun=f"{noun}s")
    return Problem(error.path(), f"unknown {noun} {shown(tag)}{hint}", error.path())


def _missing_tag(error: _Error) -> Problem:
    key = error.context["discriminator"].strip("'")
    known = ", ".join(error.shape.tags(error.path(), key))
    return Problem((*error.path(), key), f"is missing; write one of {known}", error.path())


_SPECIAL: dict[str, Callable[[_Error], Problem]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "union_tag_invalid": _unknown_tag,
    "union_tag_not_found": _missing_tag,
}
