"""Bounds of the numbers in a range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from metarestore.config.range_numbers import problem, shown
from metarestore.config.range_schema import range_schema
from metarestore.config.ranges import Choice, PerScale, Range


@dataclass(frozen=True)
class Bounds:
    """Limits the extremes of a range: `Annotated[Range, Bounds(ge=1, le=100, integer=True)]`.

    Args:
        ge: Inclusive lower bound.
        gt: Exclusive lower bound.
        le: Inclusive upper bound.
        lt: Exclusive upper bound.
        integer: Whether the range accepts and draws integers only.
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    integer: bool = False

    def check(self, value: Range) -> Range:
        """Returns `value`, as an integer range if `integer`; raises a validation error if it is out of bounds."""
        if isinstance(value, PerScale):
            return replace(value, ranges=tuple((scale, self.check(inner)) for scale, inner in value.ranges))
        for number in _written(value):
            self._check_number(number)
        return replace(value, integer=True) if self.integer else value

    def _check_number(self, number: float) -> None:
        text = shown(number)
        if self.integer and not float(number).is_integer():
            raise problem(f"{text} is not a whole number")
        if self.ge is not None and number < self.ge:
            raise problem(f"{text} is below {shown(self.ge)}")
        if self.le is not None and number > self.le:
            raise problem(f"{text} is above {shown(self.le)}")
        if self.gt is not None and number <= self.gt:
            raise problem(f"{text} is too small; it must be above {shown(self.gt)}")
        if self.lt is not None and number >= self.lt:
            raise problem(f"{text} is too large; it must be below {shown(self.lt)}")

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Runs the check after the field's own validation."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describes the forms and the bounds to editors."""
        keywords = {"minimum": self.ge, "exclusiveMinimum": self.gt, "maximum": self.le, "exclusiveMaximum": self.lt}
        limits = {name: limit for name, limit in keywords.items() if limit is not None}
        return range_schema({"type": "integer" if self.integer else "number", **limits})


def _written(value: Range) -> Sequence[float]:
    """Returns the numbers that must be within the bounds."""
    return value.values if isinstance(value, Choice) else (value.low, value.high)
