"""Structures of a pipeline: groups, choices, shuffled orders, repetitions; they nest."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from metarestore.config.bounds import Bounds
from metarestore.config.ranges import Range, Uniform
from metarestore.degradations.base import OPERATIONS, DegradationDraw, Drawn, SeedPath, Step, misplaced

STRUCTURES: dict[str, type[Structure]] = {}
"""Every structure, by the name it has in YAML."""


class _ByOp:
    """Tells pydantic to choose among `OPERATIONS` and `STRUCTURES` by the key `op`."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {name: handler.generate_schema(step) for name, step in {**OPERATIONS, **STRUCTURES}.items()}
        return core_schema.tagged_union_schema(choices, discriminator="op")


AnyStep = Annotated[Step, _ByOp()]
"""A field of this type is read as the operation or structure that its `op` names."""


def _some(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    if not steps:
        raise PydanticCustomError("structure", "has no entries; write some operations, or remove it")
    return steps


# A least length of pydantic's own would also be reported when an entry is wrong.
Steps = Annotated[tuple[AnyStep, ...], AfterValidator(_some)]


class Structure(Step):
    """An entry that holds other entries."""

    key: ClassVar[str] = "steps"
    """The key under which the entries stand."""

    # The entries may be structures that are defined further down, so what they may be is looked up at first use.
    model_config = ConfigDict(defer_build=True)

    @property
    @abstractmethod
    def inner(self) -> tuple[Step, ...]:
        """The entries inside."""

    def rooted(self, root: Path) -> Self:
        """Returns the structure with the paths inside it starting at `root`."""
        return self.model_copy(update={self.key: tuple(step.rooted(root) for step in self.inner)})

    def content(self) -> dict[str, Any]:
        """Returns what decides the draws: the contents of the entries inside take the place of the entries."""
        own = self.model_dump(mode="json", exclude_defaults=True, exclude={"op", self.key})
        return {"op": self.op, **own, "inner": [step.content() for step in self.inner]}

    def _unless_left_out(self, counts: tuple[int, int]) -> tuple[int, int]:
        return (counts[0] if self.probability == 1 else 0), counts[1]


Kind = TypeVar("Kind", bound=Structure)


def _structure(kind: type[Kind]) -> type[Kind]:
    STRUCTURES[kind.model_fields["op"].default] = kind
    return kind


class _Sequence(Structure):
    """A structure whose entries all act."""

    steps: Steps
    """The entries inside."""

    @property
    def inner(self) -> tuple[Step, ...]:
        """The entries inside."""
        return self.steps

    def cases(self, position: tuple[int, ...], scale: int) -> Iterator[Drawn]:
        """Yields every combination of the entries' cases."""
        places = [step.listed((*position, index), scale) for index, step in enumerate(self.steps)]
        for combination in itertools.product(*places):
            yield tuple(itertools.chain.from_iterable(combination))

    def most(self) -> int:
        """Returns the sum over the entries."""
        return sum(step.most() for step in self.steps)

    def downsamples(self) -> tuple[int, int]:
        """Returns the sum over the entries."""
        counts = [step.downsamples() for step in self.steps]
        return self._unless_left_out((sum(low for low, _ in counts), sum(high for _, high in counts)))


@_structure
class Group(_Sequence):
    """Entries that act in order; with a probability, all of them or none."""

    op: Literal["group"] = "group"

    def acting(
        self, rng: np.random.Generator, path: SeedPath, position: tuple[int, ...], scale: int
    ) -> Iterator[DegradationDraw]:
        """Draws the entries in order."""
        for index, step in enumerate(self.steps):
            yield from step.draws(path, (*position, index), scale)


@_structure
class Shuffle(_Sequence):
    """Entries that act in a random order, drawn once per task.

    Source: Zhang et al., Designing a Practical Degradation Model for Deep Blind Image Super-Resolution (2021),
    section 3.4.
    """

    op: Literal["shuffle"] = "shuffle"
    ordered: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Numbers of entries, from 0, that keep their order among themselves: a resize before the downsample."""

    @model_validator(mode="after")
    def _names_entries(self) -> Self:
        for index in self.ordered:
            if index >= len(self.steps) or self.ordered.count(index) > 1:
                raise PydanticCustomError(
                    "shuffle",
                    "ordered names entry {index}, which is not there or named twice; entries are 0 to {last}",
                    {"index": index, "last": len(self.steps) - 1},
                )
        return self

    def acting(
        self, rng: np.random.Generator, path: SeedPath, position: tuple[int, ...], scale: int
    ) -> Iterator[DegradationDraw]:
        """Draws the order, then the entries: what each draws does not depend on the order."""
        kept = iter(sorted(self.ordered))
        for index in rng.permutation(len(self.steps)).tolist():
            taken = next(kept) if index in self.ordered else index
            yield from self.steps[taken].draws(path, (*position, taken), scale)

    def check_listed(self, scale: int) -> None:
        """Refuses: orders cannot be listed in a useful way."""
        raise misplaced("a protocol lists all its cases, so it cannot shuffle; write an order", "op")


@_structure
class Repeat(_Sequence):
    """Entries that act in order, several times, with parameters of their own each time: a second-order degradation.

    Source: Wang et al., Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data (2021),
    section 3.2.
    """

    op: Literal["repeat"] = "repeat"
    times: Annotated[Range, Bounds(ge=0, le=16, integer=True)] = Uniform((2.0, 2.0))
    """How many times."""

    def acting(
        self, rng: np.random.Generator, path: SeedPath, position: tuple[int, ...], scale: int
    ) -> Iterator[DegradationDraw]:
        """Draws the number of times, then the entries anew each time."""
        for turn in range(int(self.times.at(scale).draw(rng))):
            for index, step in enumerate(self.steps):
                yield from step.draws(path, (*position, turn, index), scale)

    def most(self) -> int:
        """Returns the sum over the entries and the times."""
        return super().most() * int(self.times.high)

    def check_listed(self, scale: int) -> None:
        """Makes sure that the number of times is fixed."""
        super().check_listed(scale)
        if self.times.at(scale).low != self.times.at(scale).high:
            raise misplaced("a protocol lists all its cases: write one number", "times")

    def cases(self, position: tuple[int, ...], scale: int) -> Iterator[Drawn]:
        """Yields every combination of the cases of all turns; the number of times is fixed."""
        turns = [
            step.listed((*position, turn, index), scale)
            for turn in range(int(self.times.at(scale).low))
            for index, step in enumerate(self.steps)
        ]
        for combination in itertools.product(*turns):
            yield tuple(itertools.chain.from_iterable(combination))

    def downsamples(self) -> tuple[int, int]:
        """Returns the sum over the entries and the times."""
        low, high = super().downsamples()
        return low * int(self.times.low), high * int(self.times.high)


@_structure
class OneOf(Structure):
    """One of several entries, drawn once per task; a group is an entry too."""

    key: ClassVar[str] = "choices"

    op: Literal["one_of"] = "one_of"
    choices: Steps
    """The entries to choose from."""
    weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """How often each is chosen, in any unit; equally often if left out."""

    @model_validator(mode="after")
    def _one_weight_each(self) -> Self:
        if self.weights and len(self.weights) != len(self.choices):
            raise PydanticCustomError(
                "one_of",
                "{weights} weights for {choices} choices; write one weight per choice",
                {"weights": len(self.weights), "choices": len(self.choices)},
            )
        if self.weights and not 0 < sum(self.weights) < float("inf"):
            raise PydanticCustomError("one_of", "weights must be finite and not all 0")
        return self

    @property
    def inner(self) -> tuple[Step, ...]:
        """The entries to choose from."""
        return self.choices

    def acting(
        self, rng: np.random.Generator, path: SeedPath, position: tuple[int, ...], scale: int
    ) -> Iterator[DegradationDraw]:
        """Draws which entry acts, then that entry."""
        weights = np.asarray(self.weights or [1.0] * len(self.choices))
        index = int(rng.choice(len(self.choices), p=weights / weights.sum()))
        yield from self.choices[index].draws(path, (*position, index), scale)

    def cases(self, position: tuple[int, ...], scale: int) -> Iterator[Drawn]:
        """Yields the cases of each entry, one entry after the other."""
        for index, step in enumerate(self.choices):
            yield from step.listed((*position, index), scale)

    def most(self) -> int:
        """Returns the most of the entries that can be chosen."""
        return max(step.most() for step in self.choices)

    def downsamples(self) -> tuple[int, int]:
        """Returns the least and the most of the entries that can be chosen."""
        weights = self.weights or [1.0] * len(self.choices)
        counts = [step.downsamples() for step, weight in zip(self.choices, weights, strict=True) if weight > 0]
        return self._unless_left_out((min(low for low, _ in counts), max(high for _, high in counts)))
