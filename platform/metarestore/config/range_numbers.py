"""Reads the numbers of a range from YAML, with one-line errors, and writes them back."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pydantic_core import PydanticCustomError

FORMS = (
    "write a number, [low, high], {log_uniform: [low, high]}, {square_uniform: [low, high]}, "
    "{inverse_uniform: [low, high]}, {choice: [...]}, {normal: [mean, std], clip: [...]} or "
    "{per_scale: {2: ..., 4: ...}}"
)


def problem(message: str) -> PydanticCustomError:
    """Returns a validation error (a `ValueError`) that pydantic reports as `message`."""
    # The message is passed as data: pydantic would read its braces as placeholders.
    return PydanticCustomError("range", "{problem}", {"problem": message})


def read_number(written: object) -> float:
    """Returns a number; raises a validation error for everything else."""
    # In Python, true and false are ints.
    if isinstance(written, bool) or not isinstance(written, int | float):
        raise problem(f"{written!r} is not a range; {FORMS}")
    if not abs(written) <= sys.float_info.max:  # also rejects NaN and integers beyond the range of floats
        raise problem(f"{str(written)[:20]} is not a finite number")
    return float(written)


def read_numbers(written: object, form: str) -> tuple[float, ...]:
    """Returns a list of numbers; `form` is the correct form, for the error message."""
    if not isinstance(written, list | tuple):
        raise problem(f"expected a list, got {written!r}; write {form}")
    return tuple(read_number(item) for item in written)


def read_pair(written: object, form: str) -> tuple[float, float]:
    """Returns a list of two numbers."""
    numbers = read_numbers(written, form)
    if len(numbers) != 2:
        raise problem(f"expected two numbers, got {listing(numbers)}; write {form}")
    return numbers[0], numbers[1]


def read_ends(written: object, form: str) -> tuple[float, float]:
    """Returns two numbers in ascending order."""
    low, high = read_pair(written, form)
    if low > high:
        raise problem(f"low is above high: {listing((low, high))}; write {listing((high, low))}")
    return low, high


def plain(numbers: Sequence[float]) -> list[float]:
    """Converts 4.0 to 4, so that both spellings have the same serialisation (and content hash)."""
    return [int(number) if float(number).is_integer() and abs(number) < 1e15 else number for number in numbers]


def shown(number: float) -> str:
    """Formats a number for messages."""
    return f"{number:.12g}"


def listing(numbers: Sequence[float]) -> str:
    """Formats numbers as a YAML list."""
    return f"[{', '.join(shown(number) for number in numbers)}]"
