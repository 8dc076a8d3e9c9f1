"""Ranges: the numbers of a YAML file that are drawn once per task.

A range is written as one of

* `4`: always this value;
* `[1, 4]`: uniform;
* `{log_uniform: [1, 4]}`: uniform in the logarithm;
* `{choice: [1, 2, 4], weights: [2, 1, 1]}`: one of the values (equally likely without `weights`);
* `{normal: [2, 1], clip: [1, 4]}`: mean and standard deviation, clipped.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, SchemaSerializer, core_schema

Plain = float | list[float] | dict[str, list[float]]
"""What a range looks like in YAML or JSON."""

_FORMS = (
    "write a number, [low, high], {log_uniform: [low, high]}, {choice: [...]} or {normal: [mean, std], clip: [...]}"
)

_AS_PLAIN = core_schema.plain_serializer_function_ser_schema(lambda value: value.plain())


@dataclass(frozen=True)
class Range(ABC):
    """A distribution of one number, immutable and comparable; a field of a YAML model has this type."""

    integer: bool = field(default=False, kw_only=True)
    """Whether only whole numbers are drawn; `Bounds(integer=True)` sets it."""

    # Without it, JSON schemas show a default as the fields of this dataclass, not as it is written in YAML.
    __pydantic_serializer__: ClassVar = SchemaSerializer(core_schema.any_schema(serialization=_AS_PLAIN))

    @abstractmethod
    def plain(self) -> Plain:
        """Returns the range as it is written in YAML."""

    @abstractmethod
    def extremes(self) -> tuple[float, float]:
        """Returns the smallest and the largest value that can be drawn."""

    @abstractmethod
    def _sample(self, rng: np.random.Generator) -> float:
        """Draws a value, not yet held to the extremes and to whole numbers."""

    @property
    def low(self) -> float:
        """The smallest value that can be drawn."""
        return self.extremes()[0]

    @property
    def high(self) -> float:
        """The largest value that can be drawn."""
        return self.extremes()[1]

    def draw(self, rng: np.random.Generator) -> float:
        """Draws one value in [low, high] from `rng`; a Python int where the range is of whole numbers."""
        value = min(max(self._sample(rng), self.low), self.high)
        return round(value) if self.integer else float(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Lets a field of type `Range` accept every form and write itself back."""
        return core_schema.no_info_plain_validator_function(parse, serialization=_AS_PLAIN)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describes the forms to editors."""
        return _json_schema({"type": "number"})


@dataclass(frozen=True)
class Uniform(Range):
    """Draws uniformly between two ends; whole numbers with both ends included. Equal ends are a fixed value."""

    ends: tuple[float, float]

    def plain(self) -> Plain:
        """Returns `[low, high]`, or the value itself if both are equal."""
        ends = _plain(self.ends)
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
        return {"log_uniform": _plain(self.ends)}

    def extremes(self) -> tuple[float, float]:
        """Returns the two ends."""
        return self.ends

    def _sample(self, rng: np.random.Generator) -> float:
        return math.exp(rng.uniform(math.log(self.low), math.log(self.high)))


@dataclass(frozen=True)
class Choice(Range):
    """Draws one of several values, in proportion to their weights (equally without any)."""

    values: tuple[float, ...]
    weights: tuple[float, ...] = ()

    def plain(self) -> Plain:
        """Returns `{choice: [...]}`, with `weights` if there are any."""
        written = {"choice": _plain(self.values)}
        return written | {"weights": _plain(self.weights)} if self.weights else written

    def extremes(self) -> tuple[float, float]:
        """Returns the smallest and the largest value."""
        return min(self.values), max(self.values)

    def _sample(self, rng: np.random.Generator) -> float:
        weights = np.asarray(self.weights or [1.0] * len(self.values))
        return self.values[int(rng.choice(len(self.values), p=weights / weights.sum()))]


@dataclass(frozen=True)
class Normal(Range):
    """Draws from a normal distribution; what falls outside `clip` becomes its nearer end."""

    mean: float
    std: float
    clip: tuple[float, float]

    def plain(self) -> Plain:
        """Returns `{normal: [mean, std], clip: [low, high]}`."""
        return {"normal": _plain((self.mean, self.std)), "clip": _plain(self.clip)}

    def extremes(self) -> tuple[float, float]:
        """Returns the ends of `clip`."""
        return self.clip

    def _sample(self, rng: np.random.Generator) -> float:
        return rng.normal(self.mean, self.std)


@dataclass(frozen=True)
class Bounds:
    """Limits the extremes of a range: `Annotated[Range, Bounds(ge=1, le=100, integer=True)]`.

    Args:
        ge: Least value allowed.
        gt: Value that must be exceeded.
        le: Greatest value allowed.
        lt: Value that must not be reached.
        integer: Whether only whole numbers may be written, and are drawn.
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    integer: bool = False

    def check(self, value: Range) -> Range:
        """Returns `value`, drawing whole numbers if asked to; raises what pydantic reports if it is out of bounds."""
        for number in _written(value):
            self._check_number(number)
        return replace(value, integer=True) if self.integer else value

    def _check_number(self, number: float) -> None:
        text = _text(number)
        if self.integer and not float(number).is_integer():
            raise _problem(f"{text} is not a whole number")
        if self.ge is not None and number < self.ge:
            raise _problem(f"{text} is below {_text(self.ge)}")
        if self.le is not None and number > self.le:
            raise _problem(f"{text} is above {_text(self.le)}")
        if self.gt is not None and number <= self.gt:
            raise _problem(f"{text} is too small; it must be above {_text(self.gt)}")
        if self.lt is not None and number >= self.lt:
            raise _problem(f"{text} is too large; it must be below {_text(self.lt)}")

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Adds the check to the field's own."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describes the forms and the bounds to editors."""
        keywords = {"minimum": self.ge, "exclusiveMinimum": self.gt, "maximum": self.le, "exclusiveMaximum": self.lt}
        limits = {name: limit for name, limit in keywords.items() if limit is not None}
        return _json_schema({"type": "integer" if self.integer else "number", **limits})


def parse(written: object) -> Range:
    """Returns the range that `written` (plain data from YAML, or a range already) stands for.

    Raises:
        PydanticCustomError: With one line that says what is wrong and what to write instead; it is a `ValueError`.
    """
    if isinstance(written, Range):
        return written
    if isinstance(written, list | tuple):
        return Uniform(_ends(written, "[low, high]"))
    if isinstance(written, Mapping):
        return _parse_mapping(written)
    number = _number(written)
    return Uniform((number, number))


def _parse_mapping(written: Mapping[Any, Any]) -> Range:
    for key, (others, build) in _KINDS.items():
        if key in written:
            for other in written:
                if other not in (key, *others):
                    raise _problem(f"{other!r} does not go with {key!r}; {_FORMS}")
            return build(written)
    raise _problem(f"{dict(written)!r} is not a range; {_FORMS}")


def _log_uniform(written: Mapping[Any, Any]) -> Range:
    ends = _ends(written["log_uniform"], "log_uniform: [low, high]")
    if ends[0] <= 0:
        raise _problem(f"log_uniform must start above 0, got {_text(ends[0])}")
    return LogUniform(ends)


def _choice(written: Mapping[Any, Any]) -> Range:
    values = _numbers(written["choice"], "choice: [a, b, ...]")
    if not values:
        raise _problem("choice is empty; write choice: [a, b, ...]")
    if "weights" not in written:
        return Choice(values)
    weights = _numbers(written["weights"], "weights: [a, b, ...]")
    if len(weights) != len(values):
        raise _problem(f"{len(weights)} weights for {len(values)} values; write one weight per value")
    if min(weights) < 0 or sum(weights) <= 0:
        raise _problem(f"weights must be 0 or more, and not all 0, got {_listing(weights)}")
    return Choice(values, weights)


def _normal(written: Mapping[Any, Any]) -> Range:
    mean, std = _pair(written["normal"], "normal: [mean, std]")
    if std < 0:
        raise _problem(f"the standard deviation of normal must be 0 or more, got {_text(std)}")
    if "clip" not in written:
        raise _problem("normal needs a clip; write {normal: [mean, std], clip: [low, high]}")
    return Normal(mean, std, _ends(written["clip"], "clip: [low, high]"))


_KINDS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[Any, Any]], Range]]] = {
    "log_uniform": ((), _log_uniform),
    "choice": (("weights",), _choice),
    "normal": (("clip",), _normal),
}


def _number(written: object) -> float:
    # YAML's true and false are ints to Python.
    if isinstance(written, bool) or not isinstance(written, int | float):
        raise _problem(f"{written!r} is not a range; {_FORMS}")
    if not math.isfinite(written):
        raise _problem(f"{written} is not a finite number")
    return float(written)


def _numbers(written: object, form: str) -> tuple[float, ...]:
    if not isinstance(written, list | tuple):
        raise _problem(f"expected a list, got {written!r}; write {form}")
    return tuple(_number(item) for item in written)


def _pair(written: object, form: str) -> tuple[float, float]:
    numbers = _numbers(written, form)
    if len(numbers) != 2:
        raise _problem(f"expected two numbers, got {_listing(numbers)}; write {form}")
    return numbers[0], numbers[1]


def _ends(written: object, form: str) -> tuple[float, float]:
    low, high = _pair(written, form)
    if low > high:
        raise _problem(f"range is upside down: {_listing((low, high))}; write {_listing((high, low))}")
    return low, high


def _written(value: Range) -> Sequence[float]:
    """Returns the numbers to hold against the bounds."""
    return value.values if isinstance(value, Choice) else (value.low, value.high)


def _problem(message: str) -> PydanticCustomError:
    # The message is passed as data: pydantic would read its braces as places to fill.
    return PydanticCustomError("range", "{problem}", {"problem": message})


def _plain(numbers: Sequence[float]) -> list[float]:
    """Writes 4.0 as 4, so that both spellings have one serialisation (and one content hash)."""
    return [int(number) if float(number).is_integer() and abs(number) < 1e15 else number for number in numbers]


def _text(number: float) -> str:
    return f"{number:.12g}"


def _listing(numbers: Sequence[float]) -> str:
    return f"[{', '.join(_text(number) for number in numbers)}]"


def _json_schema(number: JsonSchemaValue) -> JsonSchemaValue:
    """Returns the `anyOf` of all forms, where each value that can be drawn satisfies `number`."""

    def pair(items: JsonSchemaValue) -> JsonSchemaValue:
        return {"type": "array", "items": items, "minItems": 2, "maxItems": 2}

    def form(description: str, required: list[str], **properties: JsonSchemaValue) -> JsonSchemaValue:
        return {
            "type": "object",
            "description": description,
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    weights = {"type": "array", "items": {"type": "number", "minimum": 0}}
    values = {"type": "array", "items": number, "minItems": 1}
    return {
        "anyOf": [
            {**number, "description": "A fixed value."},
            {**pair(number), "description": "[low, high]: uniform."},
            form("Uniform in the logarithm; both ends above 0.", ["log_uniform"], log_uniform=pair(number)),
            form("One of several values, with optional weights.", ["choice"], choice=values, weights=weights),
            form(
                "[mean, std], clipped to [low, high].",
                ["normal", "clip"],
                normal=pair({"type": "number"}),
                clip=pair(number),
            ),
        ]
    }
