"""Checks the grid of an experiment before anything starts; problems are located in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from metarestore.config.affects import Affects, keys, without_result
from metarestore.config.document import Document
from metarestore.config.experiment import MANY, Experiment
from metarestore.config.grid import ARM, REPETITIONS, Axis, Cell, Grid, excluded_labels, label_of, safe, same
from metarestore.config.keypath import KeyPath, format_path
from metarestore.config.problems import Problem, problems_of
from metarestore.config.search_space import lies_in
from metarestore.config.shape import Shape
from metarestore.config.suggest import did_you_mean
from metarestore.config.wording import shown
from metarestore.errors import UserError

_MEASURED_ALIKE = Affects.COMPARISON | Affects.SHOTS
"""Effects of keys that an arm must not override if they are axes: the arms of a group are measured in the same way."""


def check_grid(document: Document, experiment: Experiment) -> None:
    """Checks that every cell of the grid is a valid experiment, and that the arms of a group can be compared.

    Raises:
        UserError: One line per problem, with its position.
    """
    if not experiment.grid and not experiment.grid_exclude:
        return
    grid = Grid(experiment)
    problems = list(_structure(grid, document))
    # The same problem usually occurs in many cells: report one line per position.
    problems = problems or list({one.at: one for one in reversed(list(_cells(grid)))}.values())
    if problems:
        raise UserError([line for _, line in sorted({document.message(problem) for problem in problems})])


def _structure(grid: Grid, document: Document) -> Iterator[Problem]:
    """Finds invalid axes, duplicate values, and exclusions that exclude nothing."""
    for axis in grid.axes:
        at: KeyPath = ("grid", axis.key)
        if not axis.path:
            yield Problem(at, "is not a key path; write e.g. adaptation.shots or pipeline[1].quality", at, on_key=True)
        for fixed, reason in _always_fixed().items():
            if lies_in(axis.key, fixed) or lies_in(fixed, axis.key):
                yield Problem(at, f"{fixed}: {reason}", at, on_key=True)
        twins = [other.key for other in grid.axes if other.path == axis.path and other is not axis]
        if axis.path and twins and _has_twin(grid, axis):
            yield Problem(at, f"is the same key as '{twins[0]}'; remove one of them", at, on_key=True)
        yield from _values(grid, axis)
    known = {ARM: list(grid.experiment.arms)}
    for axis in grid.axes:
        # Include the values in the file: `--set` may have removed some of them.
        written = document.data.get("grid", {}).get(axis.key, ())
        labels = [label_of(value, number) for number, value in enumerate(written, 1)]
        known[axis.key] = list(dict.fromkeys([*(choice.label for choice in axis.choices), *labels]))
    for number, entry in enumerate(grid.experiment.grid_exclude):
        yield from _exclusion(("grid_exclude", number), entry, known)


def _has_twin(grid: Grid, axis: Axis) -> bool:
    """Returns whether an earlier axis has the same key path."""
    return any(other.path == axis.path for other in grid.axes[: grid.axes.index(axis)])


def _values(grid: Grid, axis: Axis) -> Iterator[Problem]:
    written = grid.experiment.grid[axis.key]
    for index, choice in enumerate(axis.choices):
        at: KeyPath = ("grid", axis.key, index)
        value = written[index]
        if isinstance(value, dict) and not isinstance(value.get("label", ""), str):
            yield Problem((*at, "label"), f"must be text, got {shown(value['label'])}", (*at, "label"))
        before = axis.choices[:index]
        if any(same(choice.value, other.value) for other in before):
            yield Problem(at, f"{shown(choice.value)} is listed twice; remove one of them", at)
        elif any(safe(choice.label).casefold() == safe(other.label).casefold() for other in before):
            text = f"has the same name, '{choice.label}', as another value; give it a label, e.g. {{label: long, ...}}"
            yield Problem(at, text, at)


def _exclusion(at: KeyPath, entry: Mapping[str, Any], known: Mapping[str, list[str]]) -> Iterator[Problem]:
    for key, wanted in entry.items():
        if key not in known:
            hint = did_you_mean(key, known, noun="axes")
            yield Problem((*at, key), f"is neither arm nor an axis of the grid{hint}", (*at, key), on_key=True)
            continue
        for label in excluded_labels(wanted):
            if label not in known[key]:
                hint = did_you_mean(label, known[key], noun="values")
                yield Problem((*at, key), f"'{label}' is not among its values{hint}", (*at, key))


def _cells(grid: Grid) -> Iterator[Problem]:
    """Validates every cell that will be run."""
    adapter = TypeAdapter(Experiment)
    for cell in grid.cells():
        try:
            data = grid.data(cell)
        except UserError as error:
            # These are problems of setting a key; each starts with the key.
            for axis in grid.axes:
                start = f"--set {axis.key}: "
                for text in (text for text in error.problems if text.startswith(start)):
                    yield Problem(("grid", axis.key), text.removeprefix(start), ("grid", axis.key), on_key=True)
            continue
        try:
            adapter.validate_python(data)
        except ValidationError as error:
            for problem in problems_of(error, data, Shape(adapter, data)):
                yield _located(grid, cell, problem)
            continue
        alike_keys = keys(Experiment, _MEASURED_ALIKE)
        for key in grid.pinned(cell):
            within = [alike for alike in alike_keys if lies_in(alike, key) and alike != key]
            patch = grid.experiment.arms[cell.arm]
            if any(lies_in(key, alike) for alike in alike_keys) or any(_names(patch, alike) for alike in within):
                at = ("arms", cell.arm)
                yield Problem(at, f"sets {key}, which the grid sets for all arms; remove it from the arm", at)


def _located(grid: Grid, cell: Cell, problem: Problem) -> Problem:
    """Attributes a problem of a cell to the origin of the value: its arm, or the value of an axis."""
    labels = ((ARM, cell.arm), *cell.labels.items())
    cell_text = ", ".join(f"{key} is {label}" for key, label in labels if key not in REPETITIONS)
    text = f"{problem.text} (where {cell_text})"
    if problem.at and _writes(grid.experiment.arms[cell.arm], problem.at):
        at: KeyPath = ("arms", cell.arm, *problem.at)
        return Problem(("arms", cell.arm, *problem.path), text, at, problem.on_key)
    picked = zip(grid.axes, cell.choices, strict=True)
    origins = [(axis, index) for axis, index in picked if axis.path[: len(problem.at)] == problem.at[: len(axis.path)]]
    key = f"{format_path(problem.path)}: " if problem.path else ""
    if not problem.at or not origins:
        return Problem(("arms", cell.arm), f"{key}{text}", ("arms", cell.arm))
    axis, index = max(origins, key=lambda origin: len(origin[0].path))
    rest = problem.at[len(axis.path) :]
    # An unknown key is wrong whatever its value.
    position: KeyPath = ("grid", axis.key, index, *rest) if rest or not problem.on_key else ("grid", axis.key)
    prefix = "" if problem.path in (axis.path, axis.path[:-1]) else key
    return Problem(("grid", axis.key), f"{prefix}{problem.text if problem.on_key else text}", position, problem.on_key)


def _names(patch: Any, key: str) -> bool:
    """Returns whether a patch contains a key."""
    for part in key.split("."):
        if not isinstance(patch, Mapping) or part not in patch:
            return False
        patch = patch[part]
    return True


def _writes(patch: Any, path: KeyPath) -> bool:
    """Returns whether a patch sets the value at a path, or a part of it."""
    for part in path:
        if not isinstance(patch, Mapping):
            return True
        if part not in patch:
            return False
        patch = patch[part]
    return True


@cache
def _always_fixed() -> dict[str, str]:
    """Returns the keys that cannot be an axis, and why."""
    return {
        **dict.fromkeys(MANY, "cells do not have this section, so it cannot be an axis"),
        **dict.fromkeys(without_result(Experiment), "does not affect any result, so it cannot be an axis"),
    }
