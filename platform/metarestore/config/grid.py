"""The `grid:` of an experiment: axes, their values, and the cells formed by arms and values."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from metarestore.config.experiment import MANY, Experiment
from metarestore.config.keypath import KeyPath, split_path
from metarestore.config.overrides import Override, apply_overrides, merge
from metarestore.config.shape import child

SEED = "seed"
FIRST_SHOT = "adaptation.first_shot"
REPETITIONS = (SEED, FIRST_SHOT)
"""The axes whose values are repetitions of a cell: other draws, other shots. All other axes distinguish cells."""
ARM = "arm"
"""Name of the arm in `grid_exclude`, although it is not an axis."""
_UNSAFE = re.compile(r"[^\w.+-]+")


@dataclass(frozen=True)
class Choice:
    """One value of an axis, and its label in names and tables."""

    label: str
    value: Any


@dataclass(frozen=True)
class Axis:
    """One axis of a grid.

    Attributes:
        key: Key path in the experiment, as written.
        path: The same, split into parts; empty if the key is not a valid key path.
        name: The last part of the key path if it is unique among the axes, else the whole key path.
        choices: Its values.
    """

    key: str
    path: KeyPath
    name: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Cell:
    """One cell of a grid: an arm, and a value on each axis.

    Attributes:
        arm: Name of the arm.
        choices: Index of the value on each axis, in the order of the axes.
        labels: Label of the value on each axis, by key of the axis.
        name: Name of the cell, which is also a valid folder name.
    """

    arm: str
    choices: tuple[int, ...]
    labels: Mapping[str, str]
    name: str

    @property
    def group(self) -> tuple[tuple[str, str], ...]:
        """The (key, label) pairs of the cell on all axes except those of repetitions."""
        return tuple((key, label) for key, label in self.labels.items() if key not in REPETITIONS)

    @property
    def repetition(self) -> str:
        """Labels of the cell on the axes of repetitions; empty if the grid has none."""
        return repetition(self.labels)


def repetition(labels: Mapping[str, str]) -> str:
    """Returns the labels of a cell on the axes of repetitions, joined; empty if there are none."""
    return ",".join(labels[key] for key in REPETITIONS if key in labels)


def single(experiment: Experiment) -> dict[str, Any]:
    """Returns an experiment as plain data, without the sections that describe several experiments."""
    return experiment.model_dump(mode="json", by_alias=True, exclude=set(MANY), exclude_unset=True)


@dataclass(frozen=True)
class Grid:
    """The grid of an experiment."""

    experiment: Experiment

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The axes, in the order of the file."""
        written = self.experiment.grid
        paths = {key: _path(key) for key in written}
        ends = Counter(str(path[-1]) for path in paths.values() if path)
        return tuple(
            Axis(key, path, str(path[-1]) if path and ends[str(path[-1])] == 1 else key, _choices(written[key]))
            for key, path in paths.items()
        )

    @property
    def names(self) -> dict[str, str]:
        """Short name of each axis, by its key."""
        return {axis.key: axis.name for axis in self.axes}

    @cached_property
    def _base(self) -> dict[str, Any]:
        return single(self.experiment)

    def all_cells(self) -> Iterator[Cell]:
        """Yields every arm with every combination of values, including excluded ones; repetitions vary fastest."""
        axes = self.axes
        order = sorted(range(len(axes)), key=lambda i: axes[i].key in REPETITIONS)
        for arm in self.experiment.arms:
            for picked in product(*(range(len(axes[i].choices)) for i in order)):
                choices = tuple(index for _, index in sorted(zip(order, picked, strict=True)))
                yield self._cell(arm, choices)

    def cells(self) -> list[Cell]:
        """Returns the cells to run."""
        return [cell for cell in self.all_cells() if not self.excluded(cell)]

    def excluded(self, cell: Cell) -> bool:
        """Returns whether an entry of `grid_exclude` matches a cell."""
        labels = {ARM: cell.arm, **cell.labels}
        return any(
            all(labels.get(key) in excluded_labels(wanted) for key, wanted in entry.items())
            for entry in self.experiment.grid_exclude
        )

    def data(self, cell: Cell) -> dict[str, Any]:
        """Returns the experiment of a cell as plain data: the file, with its values set as by `--set`, then the arm.

        The arm is applied last, so its values apply to all its cells.

        Raises:
            UserError: A value cannot be set.
        """
        return merge(apply_overrides(self._base, self._overrides(cell)), self.experiment.arms[cell.arm])

    def cell_experiment(self, cell: Cell) -> Experiment:
        """Returns the experiment of a checked cell."""
        return Experiment.model_validate(self.data(cell))

    def pinned(self, cell: Cell) -> tuple[str, ...]:
        """Returns the axes whose value in a cell differs from its label, because the arm overrides it."""
        data, overridden = self.data(cell), []
        for axis, index in zip(self.axes, cell.choices, strict=True):
            here: Any = data
            for part in axis.path:
                here = child(here, part)
            written = axis.choices[index].value
            if here != written and not _holds(here, written):
                overridden.append(axis.key)
        return tuple(overridden)

    def _overrides(self, cell: Cell) -> list[Override]:
        picked = zip(self.axes, cell.choices, strict=True)
        overrides = [Override(axis.path, axis.choices[index].value, axis.key) for axis, index in picked]
        # An override inside another value must be applied after it.
        return sorted(overrides, key=lambda override: len(override.path))

    def _cell(self, arm: str, choices: tuple[int, ...]) -> Cell:
        picked = [(axis, axis.choices[index].label) for axis, index in zip(self.axes, choices, strict=True)]
        name = ",".join([arm, *(f"{safe(axis.name)}={safe(label)}" for axis, label in picked)])
        return Cell(arm, choices, {axis.key: label for axis, label in picked}, name)


def label_of(value: Any, number: int = 0) -> str:
    """Returns the label of a value: the `label` or `kind` of a mapping, the value itself, or `#number`.

    >>> label_of({"kind": "fomaml", "inner_steps": 1}), label_of(0.001), label_of([1, 2], 3)
    ('fomaml', '0.001', '#3')
    """
    if isinstance(value, dict):
        label = value.get("label", value.get("kind"))
        return label if isinstance(label, str) else f"#{number}"
    if isinstance(value, list | tuple):
        return f"#{number}"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def excluded_labels(wanted: Any) -> list[str]:
    """Returns the labels that match a value of a `grid_exclude` entry, which may be a list of values."""
    return [label_of(value) for value in (wanted if isinstance(wanted, list) else [wanted])]


def safe(text: str) -> str:
    """Returns a text with the characters replaced that are unsafe in folder names."""
    return _UNSAFE.sub("_", text)


def same(first: Any, second: Any) -> bool:
    """Returns whether two values have the same JSON form; 1 and true differ."""
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def _choices(values: tuple[Any, ...]) -> tuple[Choice, ...]:
    return tuple(Choice(label_of(value, number), _without_label(value)) for number, value in enumerate(values, 1))


def _without_label(value: Any) -> Any:
    return {key: entry for key, entry in value.items() if key != "label"} if isinstance(value, dict) else value


def _holds(here: Any, written: Any) -> bool:
    """Returns whether a mapping contains everything that was written into it; an arm may have added keys."""
    if not (isinstance(here, dict) and isinstance(written, dict)):
        return bool(here == written)
    return all(key in here and _holds(here[key], value) for key, value in written.items())


def _path(key: str) -> KeyPath:
    path, rest = split_path(key.strip())
    return () if rest.strip() else path
