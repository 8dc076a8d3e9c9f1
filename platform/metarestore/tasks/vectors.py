"""Draws as vectors of numbers in [0, 1]: the ground truth for evaluating descriptors and relations.

All draws of a task distribution have the same columns, in the order of its file:

* `0.gaussian_blur.sigma`: relative position of the parameter in its range; `0.gaussian_blur` is at position 0 of the
  pipeline, `2.0.1.jpeg` inside the structure at position 2. Constant parameters have no column.
* `0.resize.method=area`: 1 if this word was drawn from a list of words, else 0.
* `2.0.1.jpeg`: 1 if the operation is present, else 0, for an optional operation. An absent operation has NaN in its
  other columns.

An entry of a `repeat` has columns for each repetition, up to the maximum. The order drawn by a `shuffle` and the kernel
drawn from a file have no columns; both are in the draw itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from metarestore.config.ranges import Range
from metarestore.degradations.base import Degradation, DegradationDraw, Parameter, Step
from metarestore.degradations.pipeline import Pipeline
from metarestore.degradations.structure import OneOf, Repeat

Vector = NDArray[np.float64]

_TOLERANCE = 1e-9
"""Tolerance for rounding errors outside [0, 1]."""


@dataclass(frozen=True)
class Place:
    """An operation at one position of a pipeline, and the parameters that vary between draws.

    Attributes:
        position: Position of its draws.
        op: Name of the operation.
        optional: Whether it may be absent from a draw.
        ranges: Its parameters of more than one value, by name, for the scale of the task.
        words: Its parameters that are drawn from a list of words, by name.
    """

    position: tuple[int, ...]
    op: str
    optional: bool
    ranges: Mapping[str, Range]
    words: Mapping[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """Position and operation, e.g. `2.0.1.jpeg`."""
        return ".".join([*map(str, self.position), self.op])

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns: presence, numbers, words."""
        presence = [self.name] if self.optional else []
        numbers = [f"{self.name}.{parameter}" for parameter in self.ranges]
        words = [f"{self.name}.{parameter}={word}" for parameter, known in self.words.items() for word in known]
        return (*presence, *numbers, *words)

    def values(self, draw: DegradationDraw | None) -> list[float]:
        """Returns a number for each column; `draw` is None if the operation is absent.

        Raises:
            ValueError: The draw does not belong to this operation.
        """
        if draw is None:
            if not self.optional:
                raise ValueError(f"{self.name} is missing; the draws are from another task distribution")
            return [0.0] + [math.nan] * (len(self.columns) - 1)
        presence = [1.0] if self.optional else []
        numbers = [self._unit(parameter, draw.params.get(parameter)) for parameter in self.ranges]
        words = [float(draw.params[parameter] == word) for parameter, known in self.words.items() for word in known]
        return presence + numbers + words

    def _unit(self, parameter: str, value: Parameter | None) -> float:
        if not isinstance(value, int | float):
            raise ValueError(f"{self.name}.{parameter} must be a number, got {value!r}")
        unit = self.ranges[parameter].unit(value)
        if not -_TOLERANCE <= unit <= 1 + _TOLERANCE:
            raise ValueError(f"{self.name}.{parameter}: {value:g} is outside the range that it is drawn from")
        return min(max(unit, 0.0), 1.0)


@dataclass(frozen=True)
class DrawVector:
    """One draw as numbers.

    Attributes:
        names: Names of the columns (D), the same for all draws of a task distribution.
        values: Numbers in [0, 1], NaN where the operation is absent (D).
    """

    names: tuple[str, ...]
    values: Vector

    def to_json(self) -> list[float | None]:
        """Returns the numbers as JSON data, in which NaN is null."""
        return [None if math.isnan(value) else value for value in self.values.tolist()]


@dataclass(frozen=True)
class DrawSpace:
    """The space of the draws of a task distribution.

    Attributes:
        places: All operations that may occur in a draw, with their positions, in the order of the file.

    Example:
        >>> from metarestore.degradations import Pipeline
        >>> pipeline = Pipeline.model_validate([{"op": "downsample"}, {"op": "jpeg", "quality": [40, 80]}])
        >>> space = DrawSpace.of(pipeline, scale=4)
        >>> space.names
        ('1.jpeg.quality',)
        >>> all(0 <= space.vector(pipeline.draw(("a name",), scale=4)).values)
        True
    """

    places: tuple[Place, ...]

    @classmethod
    def of(cls, pipeline: Pipeline, scale: int) -> DrawSpace:
        """Returns the space of a pipeline's draws for tasks of one scale."""
        steps = enumerate(pipeline.steps)
        return cls(tuple(place for index, step in steps for place in _places(step, (index,), False, scale)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the columns (D)."""
        return tuple(name for place in self.places for name in place.columns)

    def vector(self, draws: Sequence[DegradationDraw]) -> DrawVector:
        """Returns one draw as numbers.

        Raises:
            ValueError: The draw is from another task distribution.
        """
        remaining = {(draw.position, draw.op): draw for draw in draws}
        matched = [remaining.pop((place.position, place.op), None) for place in self.places]
        values = [number for place, draw in zip(self.places, matched, strict=True) for number in place.values(draw)]
        if remaining:
            position, op = next(iter(remaining))
            raise ValueError(f"the pipeline has no {op} at position {'.'.join(map(str, position))}")
        return DrawVector(self.names, np.asarray(values, dtype=np.float64))


def draw_vector(pipeline: Pipeline, draws: Sequence[DegradationDraw], scale: int) -> DrawVector:
    """Returns one draw as numbers; for many draws of one distribution `draw_matrix` is faster.

    Args:
        pipeline: The distribution's pipeline.
        draws: The operations of one task, as drawn.
        scale: The task's factor between HR and LR.

    Raises:
        ValueError: The draw is from another task distribution.
    """
    return DrawSpace.of(pipeline, scale).vector(draws)


def draw_matrix(
    pipeline: Pipeline, draws: Sequence[Sequence[DegradationDraw]], scale: int
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Returns many draws of one task distribution as a table.

    Args:
        pipeline: The distribution's pipeline.
        draws: The operations of N tasks, e.g. the `degradations` of `TaskDraw`s.
        scale: Their factor between HR and LR.

    Returns:
        Names of the columns (D), and numbers in [0, 1] (N, D) with NaN where an operation is absent.

    Raises:
        ValueError: A draw is from another task distribution.
    """
    space = DrawSpace.of(pipeline, scale)
    matrix = np.empty((len(draws), len(space.names)))
    for row, one in zip(matrix, draws, strict=True):
        row[:] = space.vector(one).values
    return space.names, matrix


def _places(step: Step, position: tuple[int, ...], optional: bool, scale: int) -> Iterator[Place]:
    """Yields the operations of an entry; `optional` is whether enclosing entries may be absent."""
    if step.probability == 0:
        return
    optional = optional or step.probability < 1
    if isinstance(step, Degradation):
        yield _place(step, position, optional, scale)
    elif isinstance(step, OneOf):
        chosen = [index for index, weight in enumerate(step.weights or [1.0] * len(step.choices)) if weight > 0]
        for index in chosen:
            yield from _places(step.choices[index], (*position, index), optional or len(chosen) > 1, scale)
    elif isinstance(step, Repeat):
        times = step.times.at(scale)
        for repetition in range(int(times.high)):
            for index, inner in enumerate(step.steps):
                yield from _places(inner, (*position, repetition, index), optional or repetition >= times.low, scale)
    else:
        for index, inner in enumerate(step.inner):
            yield from _places(inner, (*position, index), optional, scale)


def _place(operation: Degradation, position: tuple[int, ...], optional: bool, scale: int) -> Place:
    here = {name: value.at(scale) for name, value in operation if isinstance(value, Range)}
    ranges = {name: value for name, value in here.items() if value.high > value.low}
    lists = {name: tuple(dict.fromkeys(value)) for name, value in operation if isinstance(value, tuple)}
    words = {name: known for name, known in lists.items() if len(known) > 1 and isinstance(known[0], str)}
    return Place(position, operation.op, optional, ranges, words)
