"""pydantic's errors -> problems in our own words: where in the data, what was given, what to do."""

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
    """One thing that is wrong with checked data.

    Args:
        path: What the message is about; the empty path is the whole document.
        text: The message.
        at: The entry to point to.
        on_key: Whether to point to the key of that entry rather than to its value.
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
    """A problem, with what is needed to merge it into one about a union."""

    problem: Problem
    wording: Wording
    given: str


def problems_of(error: ValidationError, data: object, shape: Shape) -> list[Problem]:
    """Returns the problems behind pydantic's errors, one per place: the members of a union are merged into one.

    Args:
        error: What pydantic raised when `data` was checked.
        data: The plain data that was checked.
        shape: The model it was checked against.
    """
    # A default that could not be made because another field is wrong is not a problem of its own.
    details = [detail for detail in error.errors(include_url=False) if detail["type"] != "default_factory_not_called"]
    findings = _merged([_Error(detail, data, shape) for detail in details], 0)
    return list(dict.fromkeys(found.problem for found in findings))


class _Error:
    """One of pydantic's errors; `steps` are the parts of its location, told apart from labels such as "list[int]"."""

    def __init__(self, detail: ErrorDetails, data: object, shape: Shape) -> None:
        self.detail = detail
        self.given: Any = detail["input"]
        self.context: dict[str, Any] = detail.get("ctx", {})
        self.shape = shape
        loc = detail["loc"]
        # The last part of what is missing is never in the data.
        absent = loc[-1:] if detail["type"] == "missing" else ()
        found = _is_data(loc[: len(loc) - len(absent)], data, self.given, shape)
        self.steps = tuple(zip(loc, (*found, *(True for _ in absent)), strict=True))

    def path(self, end: int | None = None) -> KeyPath:
        """Returns where in the data the first `end` parts of the location lead."""
        return tuple(part for part, in_data in self.steps[:end] if in_data)


def _is_data(loc: Sequence[Part], data: object, given: object, shape: Shape) -> tuple[bool, ...]:
    """Tells which parts of a location are keys and indices of the data, and which are labels of union members."""

    def walks(loc: Sequence[Part], data: object, path: KeyPath) -> Iterator[tuple[tuple[bool, ...], object]]:
        if not loc:
            yield (), data
            return
        part, rest = loc[0], loc[1:]
        is_data = has(data, part) or part in shape.keys(path)
        # A tag may also be the name of a key: {op: jpeg, jpeg: 1}. Then both readings are tried.
        is_tag = any(child(data, key) == part for key in _TAG_KEYS)
        if is_data:
            yield from (((True, *found), end) for found, end in walks(rest, child(data, part), (*path, part)))
        if is_tag or not is_data:
            yield from (((False, *found), end) for found, end in walks(rest, data, path))

    found, _ = max(walks(loc, data, ()), key=lambda walk: (walk[1] is given or walk[1] == given, sum(walk[0])))
    return found


def _merged(errors: Sequence[_Error], depth: int) -> Iterator[_Finding]:
    """Yields what is found by errors whose locations agree in their first `depth` parts."""
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
    """Returns what is wrong with the union member that was meant; if the value fits none, names all in one line."""
    if len(branches) == 1:
        return branches[0]

    def fits(branch: Sequence[_Finding]) -> bool:
        return any(not found.wording.expects or found.problem.path != here for found in branch)

    fitting = [branch for branch in branches if fits(branch)]
    if fitting:
        return min(fitting, key=len)
    every = [found for branch in branches for found in branch]
    expected = list(dict.fromkeys(found.wording.expects for found in every))
    hint = next((found.wording.hint for found in every if found.wording.hint), "")
    listed = " or ".join(filter(None, (", ".join(expected[:-1]), expected[-1])))
    wording = mismatch(listed, every[0].given, hint)
    return [_Finding(Problem(here, wording.text, here), wording, every[0].given)]


def _finding(error: _Error) -> _Finding:
    special: Callable[[_Error], Problem] | None
    special = _bad_key if error.detail["loc"][-1:] == ("[key]",) else _SPECIAL.get(error.detail["type"])
    wording = word_error(error.detail)
    # A check of a whole model may say which value inside it is wrong.
    path = (*error.path(), *error.context.get("at", ()))
    problem = special(error) if special else Problem(path, wording.text, path)
    return _Finding(problem, Wording(problem.text) if special else wording, shown(error.given))


def _unknown_key(error: _Error) -> Problem:
    *outer, key = error.path()
    container = tuple(outer)
    hint = did_you_mean(str(key), error.shape.keys(container), noun="keys")
    return Problem(container, f"unknown key {shown(key)}{hint}", error.path(), on_key=True)


def _bad_key(error: _Error) -> Problem:
    """Words an error about the key of a mapping, whose location ends in "[key]"."""
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
