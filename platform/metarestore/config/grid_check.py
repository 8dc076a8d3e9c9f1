"""What is wrong with the grid of an experiment: found before anything starts, at its place in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from metarestore.config.affects import Affects, keys, without_result
from metarestore.config.document import Document, display_path
from metarestore.config.experiment import MANY, Experiment
from metarestore.config.grid import ARM, SEED, Axis, Cell, Grid, excluded_labels, label_of, safe, same
from metarestore.config.keypath import KeyPath, format_path
from metarestore.config.problems import Problem, problems_of
from metarestore.config.search_space import lies_in
from metarestore.config.shape import Shape
from metarestore.config.suggest import did_you_mean
from metarestore.config.wording import shown
from metarestore.errors import UserError

_ALIKE = Affects.COMPARISON | Affects.SHOTS
"""What may not differ between the arms of a group: they are measured alike."""


def check_grid(document: Document, experiment: Experiment) -> None:
    """Checks that every cell of the grid is a valid experiment, and that the arms of a group can be compared.

    Raises:
        UserError: One line for each thing that is wrong, with its place.
    """
    if not experiment.grid and not experiment.grid_exclude:
        return
    grid = Grid(experiment)
    problems = list(_structure(grid, document))
    # What is wrong in one cell is wrong in many: one line for each place.
    problems = problems or list({one.at: one for one in reversed(list(_cells(grid)))}.values())
    lines = []
    for problem in problems:
        line, column = document.locate(problem.at, key=problem.on_key)
        text = f"{display_path(document.path)}:{line}:{column}: {format_path(problem.path)}: {problem.text}"
        lines.append((line, column, text))
    if lines:
        raise UserError([text for _, _, text in sorted(set(lines))])


def _structure(grid: Grid, document: Document) -> Iterator[Problem]:
    """Finds axes that cannot be, values that are there twice, and exclusions that exclude nothing."""
    for axis in grid.axes:
        at: KeyPath = ("grid", axis.key)
        if not axis.path:
            yield Problem(at, "is no key path; write e.g. adaptation.shots or pipeline[1].quality", at, on_key=True)
        for fixed, why in _always_fixed().items():
            if lies_in(axis.key, fixed) or lies_in(fixed, axis.key):
                yield Problem(at, f"{fixed}: {why}", at, on_key=True)
        twins = [other.key for other in grid.axes if other.path == axis.path and other is not axis]
        if axis.path and twins and _has_twin(grid, axis):
            yield Problem(at, f"is the same key as '{twins[0]}'; leave one out", at, on_key=True)
        yield from _values(grid, axis)
    known = {ARM: list(grid.experiment.arms)}
    for axis in grid.axes:
        # The file's own values, too: `--set` may have left some of them out.
        written = document.data.get("grid", {}).get(axis.key, ())
        labels = [label_of(value, number) for number, value in enumerate(written, 1)]
        known[axis.key] = list(dict.fromkeys([*(choice.label for choice in axis.choices), *labels]))
    for number, entry in enumerate(grid.experiment.grid_exclude):
        yield from _exclusion(("grid_exclude", number), entry, known)


def _has_twin(grid: Grid, axis: Axis) -> bool:
    """Tells whether an earlier axis has the same key path."""
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
            yield Problem(at, f"{shown(choice.value)} is there twice; leave one out", at)
        elif any(safe(choice.label).casefold() == safe(other.label).casefold() for other in before):
            text = f"is called '{choice.label}' like another value; give it a label, e.g. {{label: long, ...}}"
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
    """Tries every cell that is to be run."""
    adapter = TypeAdapter(Experiment)
    for cell in grid.cells():
        try:
            data = grid.data(cell)
        except UserError as error:
            # These are problems of setting a key, each of which begins with the key.
            for axis in grid.axes:
                start = f"--set {axis.key}: "
                for text in (text for text in error.problems if text.startswith(start)):
                    yield Problem(("grid", axis.key), text.removeprefix(start), ("grid", axis.key), on_key=True)
            continue
        try:
            adapter.validate_python(data)
        except ValidationError as error:
            for problem in problems_of(error, data, Shape(adapter, data)):
                yield _blamed(grid, cell, problem)
            continue
        alike_keys = keys(Experiment, _ALIKE)
        for key in grid.pinned(cell):
            within = [alike for alike in alike_keys if lies_in(alike, key) and alike != key]
            patch = grid.experiment.arms[cell.arm]
            if any(lies_in(key, alike) for alike in alike_keys) or any(_says(patch, alike) for alike in within):
                at = ("arms", cell.arm)
                yield Problem(at, f"sets {key}, which the grid sets for all arms alike; leave it out of the arm", at)


def _blamed(grid: Grid, cell: Cell, problem: Problem) -> Problem:
    """Words a problem of a cell as one of what wrote the value: its arm, or the value of an axis."""
    where = ", ".join(f"{key} is {label}" for key, label in ((ARM, cell.arm), *cell.labels.items()) if key != SEED)
    text = f"{problem.text} (where {where})"
    if problem.at and _writes(grid.experiment.arms[cell.arm], problem.at):
        at: KeyPath = ("arms", cell.arm, *problem.at)
        return Problem(("arms", cell.arm, *problem.path), text, at, problem.on_key)
    picked = zip(grid.axes, cell.choices, strict=True)
    wrote = [(axis, index) for axis, index in picked if axis.path[: len(problem.at)] == problem.at[: len(axis.path)]]
    key = f"{format_path(problem.path)}: " if problem.path else ""
    if not problem.at or not wrote:
        return Problem(("arms", cell.arm), f"{key}{text}", ("arms", cell.arm))
    axis, index = max(wrote, key=lambda one: len(one[0].path))
    rest = problem.at[len(axis.path) :]
    # A key that does not exist is wrong whatever its value.
    place: KeyPath = ("grid", axis.key, index, *rest) if rest or not problem.on_key else ("grid", axis.key)
    told = "" if problem.path in (axis.path, axis.path[:-1]) else key
    return Problem(("grid", axis.key), f"{told}{problem.text if problem.on_key else text}", place, problem.on_key)


def _says(patch: Any, key: str) -> bool:
    """Tells whether a patch itself names a key."""
    for part in key.split("."):
        if not isinstance(patch, Mapping) or part not in patch:
            return False
        patch = patch[part]
    return True


def _writes(patch: Any, path: KeyPath) -> bool:
    """Tells whether a patch says something about the value at a path."""
    for part in path:
        if not isinstance(patch, Mapping):
            return True
        if part not in patch:
            return False
        patch = patch[part]
    return True


@cache
def _always_fixed() -> dict[str, str]:
    """Returns the keys that may not be an axis, and why."""
    return {
        **dict.fromkeys(MANY, "a cell has none, so it cannot be an axis"),
        **dict.fromkeys(without_result(Experiment), "changes no result, so it cannot be an axis"),
    }
