"""Ranges: numbers in a YAML file that are drawn once per task.

A range is written as one of

* `4`: a constant;
* `[1, 4]`: uniform;
* `{log_uniform: [1, 4]}`: uniform in the logarithm;
* `{square_uniform: [1, 4]}`: uniform in the square, for widths with uniform variance;
* `{inverse_uniform: [1, 4]}`: the reciprocal of a uniform number;
* `{choice: [1, 2, 4], weights: [2, 1, 1]}`: one of the values (equally likely without `weights`);
* `{normal: [2, 1], clip: [1, 4]}`: mean and standard deviation, clipped;
* `{per_scale: {2: [1, 2], 4: [1, 4]}}`: one of the above for each scale that a task may have.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, SchemaSerializer, core_schema

from metarestore.config.range_numbers import (
    FORMS,
    listing,
    plain,
    problem,
    read_ends,
    read_number,
    read_numbers,
    read_pair,
    shown,
)
from metarestore.config.range_schema import range_schema

Plain = float | list[float] | dict[str, Any]
"""A range as written in YAML or JSON."""

_AS_PLAIN = core_schema.plain_serializer_function_ser_schema(lambda value: value.plain())


@dataclass(frozen=True)
class Range(ABC):
    """A distribution of one number, immutable and comparable; used as the type of a field of a YAML model."""

    integer: bool = field(default=False, kw_only=True)
    """Whether only whole numbers are drawn; `Bounds(integer=True)` sets it."""

    # Without this, JSON schemas show a default as the fields of this dataclass instead of its YAML form.
    __pydantic_serializer__: ClassVar = SchemaSerializer(core_schema.any_schema(serialization=_AS_PLAIN))

    @abstractmethod
    def plain(self) -> Plain:
        """Returns the range as it is written in YAML."""

    @abstractmethod
    def extremes(self) -> tuple[float, float]:
        """Returns the smallest and the largest value that can be drawn."""

    @abstractmethod
    def _sample(self, rng: np.random.Generator) -> float:
        """Draws a value before it is clipped to the extremes and rounded."""

    @property
    def low(self) -> float:
        """The smallest value that can be drawn."""
        return self.extremes()[0]

    @property
    def high(self) -> float:
        """The largest value that can be drawn."""
        return self.extremes()[1]

    def at(self, scale: int) -> Range:
        """Returns the range for tasks of one scale: itself, unless it was written per scale.

        Raises:
            PydanticCustomError: There is no range for this scale; a `ValueError`.
        """
        return self

    def unit(self, value: float) -> float:
        """Returns the relative position of a value in the range, from 0 (low) to 1 (high); 0 for a constant."""
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0

    def draw(self, rng: np.random.Generator) -> float:
        """Draws one value in [low, high]; a Python int for an integer range."""
        value = min(max(self._sample(rng), self.low), self.high)
        return round(value) if self.integer else float(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Lets a field of type `Range` accept and serialise all forms."""
        return core_schema.no_info_plain_validator_function(parse, serialization=_AS_PLAIN)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describes the forms to editors."""
        return range_schema({"type": "number"})


@dataclass(frozen=True)
class Uniform(Range):
    """Draws uniformly between two ends (integers include both ends). Equal ends are a constant."""

    ends: tuple[float, float]

    def plain(self) -> Plain:
        """Returns `[low, high]`, or the value itself if both are equal."""
        ends = plain(self.ends)
        return ends[0] if ends[0] == ends[1] else ends

    def extremes(self) -> tuple[float, float]:
        """Returns the two ends."""
        return self.ends

    def _sample(self, rng: np.random.Generator) -> float:
        if self.integer:
            return float(rng.integers(int(self.low), int(self.high), endpoint=True))
        return rng.uniform(self.low, self.high)


@dataclass(frozen=True)
class LogUniform(Range):
    """Draws a value whose logarithm is uniform; its median is the geometric mean of the ends."""

    ends: tuple[float, float]

    def plain(self) -> Plain:
        """Returns `{log_uniform: [low, high]}`."""
        return {"log_uniform": plain(self.ends)}

    def extremes(self) -> tuple[float, float]:
        """Returns the two ends."""
        return self.ends

    def unit(self, value: float) -> float:
        """Returns the relative position of the logarithm of a value, from 0 to 1."""
        return math.log(value / self.low) / math.log(self.high / self.low) if self.high > self.low else 0.0

    def _sample(self, rng: np.random.Generator) -> float:
        return math.exp(rng.uniform(math.log(self.low), math.log(self.high)))


@dataclass(frozen=True)
class SquareUniform(Range):
    """Draws a value whose square is uniform: a width with uniform variance, as is common in the literature."""

    ends: tuple[float, float]

    def plain(self) -> Plain:
        """Returns `{square_uniform: [low, high]}`."""
        return {"square_uniform": plain(self.ends)}

    def extremes(self) -> tuple[float, float]:
        """Returns the two ends."""
        return self.ends

    def unit(self, value: float) -> float:
        """Returns the relative position of the square of a value, from 0 to 1."""
        return (value**2 - self.low**2) / (self.high**2 - self.low**2) if self.high > self.low else 0.0

    def _sample(self, rng: np.random.Generator) -> float:
        return math.sqrt(rng.uniform(self.low**2, self.high**2))


@dataclass(frozen=True)
class InverseUniform(Range):
    """Draws a value whose reciprocal is uniform: `[1, 8]` are factors that shrink by 1 to 8."""

    ends: tuple[float, float]

    def plain(self) -> Plain:
        """Returns `{inverse_uniform: [low, high]}`, the ends of the reciprocal."""
        return {"inverse_uniform": plain(self.ends)}

    def extremes(self) -> tuple[float, float]:
        """Returns the reciprocals of the ends."""
        return 1 / self.ends[1], 1 / self.ends[0]

    def unit(self, value: float) -> float:
        """Returns the relative position of the reciprocal of a value, from 1 (low end of the reciprocal) to 0."""
        low, high = self.ends
        return (high - 1 / value) / (high - low) if high > low else 0.0

    def _sample(self, rng: np.random.Generator) -> float:
        return 1 / rng.uniform(*self.ends)


@dataclass(frozen=True)
class Choice(Range):
    """Draws one of several values, with probabilities proportional to their weights (equal if there are none)."""

    values: tuple[float, ...]
    weights: tuple[float, ...] = ()

    def plain(self) -> Plain:
        """Returns `{choice: [...]}`, with `weights` if there are any."""
        written = {"choice": plain(self.values)}
        return written | {"weights": plain(self.weights)} if self.weights else written

    def extremes(self) -> tuple[float, float]:
        """Returns the smallest and the largest value."""
        return min(self.values), max(self.values)

    def _sample(self, rng: np.random.Generator) -> float:
        weights = np.asarray(self.weights or [1.0] * len(self.values))
        return self.values[int(rng.choice(len(self.values), p=weights / weights.sum()))]


@dataclass(frozen=True)
class Normal(Range):
    """Draws from a normal distribution; values are clipped to `clip`."""

    mean: float
    std: float
    clip: tuple[float, float]

    def plain(self) -> Plain:
        """Returns `{normal: [mean, std], clip: [low, high]}`."""
        return {"normal": plain((self.mean, self.std)), "clip": plain(self.clip)}

    def extremes(self) -> tuple[float, float]:
        """Returns the ends of `clip`."""
        return self.clip

    def _sample(self, rng: np.random.Generator) -> float:
        return rng.normal(self.mean, self.std)


@dataclass(frozen=True)
class PerScale(Range):
    """A range for each scale, so that one task file serves several."""

    ranges: tuple[tuple[int, Range], ...]

    def plain(self) -> Plain:
        """Returns `{per_scale: {scale: range, ...}}`."""
        return {"per_scale": {scale: inner.plain() for scale, inner in self.ranges}}

    def extremes(self) -> tuple[float, float]:
        """Returns the extremes over all scales."""
        return min(inner.low for _, inner in self.ranges), max(inner.high for _, inner in self.ranges)

    def at(self, scale: int) -> Range:
        """Returns the range of one scale."""
        known = dict(self.ranges)
        if scale not in known:
            raise problem(f"per_scale has no range for scale {scale}, only for {', '.join(map(str, known))}; add it")
        return known[scale]

    def _sample(self, rng: np.random.Generator) -> float:
        raise TypeError("draw from a range per scale with at(scale).draw(rng)")


def parse(written: object) -> Range:
    """Parses a range from plain YAML data; a range is returned unchanged.

    Raises:
        PydanticCustomError: The data is not a range; a `ValueError` with a one-line message.
    """
    if isinstance(written, Range):
        return written
    if isinstance(written, list | tuple):
        return Uniform(read_ends(written, "[low, high]"))
    if isinstance(written, Mapping):
        return _parse_mapping(written)
    number = read_number(written)
    return Uniform((number, number))


def _parse_mapping(written: Mapping[Any, Any]) -> Range:
    for key, (others, build) in _KINDS.items():
        if key in written:
            for other in written:
                if other not in (key, *others):
                    raise problem(f"{other!r} cannot be combined with {key!r}; {FORMS}")
            return build(written)
    raise problem(f"{dict(written)!r} is not a range; {FORMS}")


def _log_uniform(written: Mapping[Any, Any]) -> Range:
    ends = read_ends(written["log_uniform"], "log_uniform: [low, high]")
    if ends[0] <= 0:
        raise problem(f"log_uniform must start above 0, got {shown(ends[0])}")
    return LogUniform(ends)


def _square_uniform(written: Mapping[Any, Any]) -> Range:
    ends = read_ends(written["square_uniform"], "square_uniform: [low, high]")
    if ends[0] < 0:
        raise problem(f"square_uniform must not start below 0, got {shown(ends[0])}")
    return SquareUniform(ends)


def _inverse_uniform(written: Mapping[Any, Any]) -> Range:
    ends = read_ends(written["inverse_uniform"], "inverse_uniform: [low, high]")
    if ends[0] < 1e-6:
        raise problem(f"inverse_uniform must start above 0, got {shown(ends[0])}")
    return InverseUniform(ends)


def _choice(written: Mapping[Any, Any]) -> Range:
    values = read_numbers(written["choice"], "choice: [a, b, ...]")
    if not values:
        raise problem("choice is empty; write choice: [a, b, ...]")
    if "weights" not in written:
        return Choice(values)
    weights = read_numbers(written["weights"], "weights: [a, b, ...]")
    if len(weights) != len(values):
        raise problem(f"got {len(weights)} weights for {len(values)} values; write one weight per value")
    if min(weights) < 0 or sum(weights) <= 0:
        raise problem(f"weights must be 0 or more, and not all 0, got {listing(weights)}")
    return Choice(values, weights)


def _normal(written: Mapping[Any, Any]) -> Range:
    mean, std = read_pair(written["normal"], "normal: [mean, std]")
    if std < 0:
        raise problem(f"the standard deviation of normal must be 0 or more, got {shown(std)}")
    if "clip" not in written:
        raise problem("normal needs a clip; write {normal: [mean, std], clip: [low, high]}")
    return Normal(mean, std, read_ends(written["clip"], "clip: [low, high]"))


def _per_scale(written: Mapping[Any, Any]) -> Range:
    ranges = written["per_scale"]
    form = "write {per_scale: {2: ..., 4: ...}}"
    if not isinstance(ranges, Mapping) or not ranges:
        raise problem(f"per_scale must be a mapping from scales to ranges, got {ranges!r}; {form}")
    # JSON has no numeric keys.
    scales = {str(scale): parse(inner) for scale, inner in ranges.items()}
    for scale, inner in scales.items():
        if scale not in ("1", "2", "3", "4") or isinstance(inner, PerScale):
            raise problem(f"per_scale has the scale {scale!r}; scales are 1, 2, 3 and 4, each with a range; {form}")
    return PerScale(tuple((int(scale), scales[scale]) for scale in sorted(scales)))


_KINDS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[Any, Any]], Range]]] = {
    "log_uniform": ((), _log_uniform),
    "square_uniform": ((), _square_uniform),
    "inverse_uniform": ((), _inverse_uniform),
    "choice": (("weights",), _choice),
    "normal": (("clip",), _normal),
    "per_scale": ((), _per_scale),
}
