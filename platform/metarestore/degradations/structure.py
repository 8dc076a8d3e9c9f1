"""Structures of a pipeline: groups, choices, shuffled orders and repetitions; they can be nested."""

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
from metarestore.degradations.base import OPERATIONS, DegradationDraw, Drawn, SeedPath, Step, error_at

STRUCTURES: dict[str, type[Structure]] = {}
"""Every structure, by its name in YAML."""


class _ByOp:
    """Lets pydantic choose among `OPERATIONS` and `STRUCTURES` by the key `op`."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {name: handler.generate_schema(step) for name, step in {**OPERATIONS, **STRUCTURES}.items()}
        return core_schema.tagged_union_schema(choices, discriminator="op")


AnyStep = Annotated[Step, _ByOp()]
"""Type of a field that holds any operation or structure; its key `op` selects which."""


def _not_empty(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    if not steps:
        raise PydanticCustomError("structure", "has no entries; add operations, or remove it")
    return steps


# pydantic's min_length would also be reported when an entry is invalid.
Steps = Annotated[tuple[AnyStep, ...], AfterValidator(_not_empty)]


class Structure(Step):
    """An entry that holds other entries."""

    key: ClassVar[str] = "steps"
    """The key of the nested entries."""

    # The entries may be structures that are defined further down, so the schema is built at first use.
    model_config = ConfigDict(defer_build=True)

    @property
    @abstractmethod
    def inner(self) -> tuple[Step, ...]:
        """The entries inside."""

    def rooted(self, root: Path) -> Self:
        """Returns the structure with the relative paths of its entries resolved against `root`."""
        return self.model_copy(update={self.key: tuple(step.rooted(root) for step in self.inner)})

    def content(self) -> dict[str, Any]:
        """Returns everything that determines the draws, with each nested entry replaced by its content."""
        own = self.model_dump(mode="json", exclude_defaults=True, exclude={"op", self.key})
        return {"op": self.op, **own, "inner": [step.content() for step in self.inner]}

    def _unless_left_out(self, counts: tuple[int, int]) -> tuple[int, int]:
        return (counts[0] if self.probability == 1 else 0), counts[1]


Kind = TypeVar("Kind", bound=Structure)


def _structure(kind: type[Kind]) -> type[Kind]:
    STRUCTURES[kind.model_fields["op"].default] = kind
    return kind


class _Sequence(Structure):
    """A structure that applies all its entries."""

    steps: Steps
    """The entries inside."""

    @property
    def inner(self) -> tuple[Step, ...]:
        """The entries inside."""
        return self.steps

    def cases(self, position: tuple[int, ...], scale: int) -> Iterator[Drawn]:
        """Yields every combination of the entries' cases."""
        cases = [step.all_cases((*position, index), scale) for index, step in enumerate(self.steps)]
        for combination in itertools.product(*cases):
            yield tuple(itertools.chain.from_iterable(combination))

    def max_operations(self) -> int:
        """Returns the sum over the entries."""
        return sum(step.max_operations() for step in self.steps)

    def downsamples(self) -> tuple[int, int]:
        """Returns the sum over the entries."""
        counts = [step.downsamples() for step in self.steps]
        return self._unless_left_out((sum(low for low, _ in counts), sum(high for _, high in counts)))


@_structure
class Group(_Sequence):
    """Applies its entries in order; `probability` applies to the whole group."""

    op: Literal["group"] = "group"

    def draws_if_present(
        self, rng: np.random.Generator, path: SeedPath, position: tuple[int, ...], scale: int
    ) -> Iterator[DegradationDraw]:
        """Draws the entries in order."""
        for index, step in enumerate(self.steps):
            yield from step.draws(path, (*position, index), scale)


@_structure
class Shuffle(_Sequence):
    """Applies its entries in a random order, drawn once per task.

    Source: Zhang et al., Designing a Practical Degradation Model for Deep Blind Image Super-Resolution (2021),
    section 3.4.
    """

    op: Literal["shuffle"] = "shuffle"
    ordered: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Indices of entries, from 0, that keep their relative order, e.g. a resize before the downsample."""

    @model_validator(mode="after")
    def _names_entries(self) -> Self:
        for index in self.ordered:
            if index >= len(self.steps) or self.ordered.count(index) > 1:
                raise PydanticCustomError(
                    "shuffle",
                    "ordered lists entry {index}, which does not exist or is listed twice; entries are 0 to {last}",
                    {"index": index, "last": len(self.steps) - 1},
                )
        return self

    def draws_if_present(
        self, rng: np.random.Generator, path: SeedPath, position: tuple[int, ...], scale: int
    ) -> Iterator[DegradationDraw]:
        """Draws the order, then the entries; their parameters do not depend on the order."""
        kept = iter(sorted(self.ordered))
        for index in rng.permutation(len(self.steps)).tolist():
            taken = next(kept) if index in self.ordered else index
            yield from self.steps[taken].draws(path, (*position, taken), scale)

    def check_enumerable(self, scale: int) -> None:
        """Always raises: a protocol does not enumerate orders."""
        raise error_at("a protocol enumerates all its cases, so it cannot shuffle; use a group", "op")


@_structure
class Repeat(_Sequence):
    """Applies its entries in order, several times, with new parameters each time: a higher-order degradation.

    Source: Wang et al., Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data (2021),
    section 3.2.
    """

    op: Literal["repeat"] = "repeat"
    times: Annotated[Range, Bounds(ge=0, le=16, integer=True)] = Uniform((2.0, 2.0))
    """Number of repetitions."""

    def draws_if_present(
        self, rng: np.random.Generator, path: SeedPath, position: tuple[int, ...], scale: int
    ) -> Iterator[DegradationDraw]:
        """Draws the number of repetitions, then the entries of each repetition."""
        for repetition in range(int(self.times.at(scale).draw(rng))):
            for index, step in enumerate(self.steps):
                yield from step.draws(path, (*position, repetition, index), scale)

    def max_operations(self) -> int:
        """Returns the sum over the entries times the number of repetitions."""
        return super().max_operations() * int(self.times.high)

    def check_enumerable(self, scale: int) -> None:
        """Checks that the number of repetitions is fixed."""
        super().check_enumerable(scale)
        if self.times.at(scale).low != self.times.at(scale).high:
            raise error_at("a protocol enumerates all its cases: write one number", "times")

    def cases(self, position: tuple[int, ...], scale: int) -> Iterator[Drawn]:
        """Yields every combination of the cases of all repetitions, whose number is fixed."""
        cases = [
            step.all_cases((*position, repetition, index), scale)
            for repetition in range(int(self.times.at(scale).low))
            for index, step in enumerate(self.steps)
        ]
        for combination in itertools.product(*cases):
            yield tuple(itertools.chain.from_iterable(combination))

    def downsamples(self) -> tuple[int, int]:
        """Returns the sum over the entries times the number of repetitions."""
        low, high = super().downsamples()
        return low * int(self.times.low), high * int(self.times.high)


@_structure
class OneOf(Structure):
    """Applies one of several entries, drawn once per task; an entry may be a group."""

    key: ClassVar[str] = "choices"

    op: Literal["one_of"] = "one_of"
    choices: Steps
    """The entries to choose from."""
    weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Relative frequencies of the choices; equal if omitted."""

    @model_validator(mode="after")
    def _one_weight_each(self) -> Self:
        if self.weights and len(self.weights) != len(self.choices):
            raise PydanticCustomError(
                "one_of",
                "got {weights} weights for {choices} choices; write one weight per choice",
                {"weights": len(self.weights), "choices": len(self.choices)},
            )
        if self.weights and not 0 < sum(self.weights) < float("inf"):
            raise PydanticCustomError("one_of", "weights must be finite and not all 0")
        return self

    @property
    def inner(self) -> tuple[Step, ...]:
        """The entries to choose from."""
        return self.choices

    def draws_if_present(
        self, rng: np.random.Generator, path: SeedPath, position: tuple[int, ...], scale: int
    ) -> Iterator[DegradationDraw]:
        """Draws one of the entries, then its operations."""
        weights = np.asarray(self.weights or [1.0] * len(self.choices))
        index = int(rng.choice(len(self.choices), p=weights / weights.sum()))
        yield from self.choices[index].draws(path, (*position, index), scale)

    def cases(self, position: tuple[int, ...], scale: int) -> Iterator[Drawn]:
        """Yields the cases of each entry, one entry after the other."""
        for index, step in enumerate(self.choices):
            yield from step.all_cases((*position, index), scale)

    def max_operations(self) -> int:
        """Returns the largest number over the entries."""
        return max(step.max_operations() for step in self.choices)

    def downsamples(self) -> tuple[int, int]:
        """Returns the smallest and the largest number over the entries that can be chosen."""
        weights = self.weights or [1.0] * len(self.choices)
        counts = [step.downsamples() for step, weight in zip(self.choices, weights, strict=True) if weight > 0]
        return self._unless_left_out((min(low for low, _ in counts), max(high for _, high in counts)))
