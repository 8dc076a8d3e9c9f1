"""Messages about invalid values: what was given, and what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from metarestore.config.suggest import did_you_mean

_LONGEST = 60

_EXPECTED = {
    "a whole number": ("int_type", "int_parsing", "int_from_float", "int_parsing_size"),
    "a number": ("float_type", "float_parsing", "decimal_type", "decimal_parsing"),
    "a finite number": ("finite_number",),
    "true or false": ("bool_type", "bool_parsing"),
    "text": ("string_type", "string_sub_type", "string_unicode"),
    "a path": ("path_type",),
    "a list": ("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"),
    "a mapping (key: value)": (
        "dict_type",
        "mapping_type",
        "model_type",
        "model_attributes_type",
        "dataclass_type",
        "dataclass_exact_type",
    ),
    "null": ("none_required",),
}
_EXPECTED_BY_TYPE = {kind: expected for expected, kinds in _EXPECTED.items() for kind in kinds}


@dataclass(frozen=True)
class Wording:
    """The message about one invalid value.

    Args:
        text: The whole message.
        expects: The expected type or word ("a number"), if that is the only problem.
        hint: The suggestion at the end of `text`.
    """

    text: str
    expects: str = ""
    hint: str = ""


def shown(value: object) -> str:
    """Formats a value as in a YAML file, on one line and shortened if necessary.

    >>> shown({"kind": "ray", "size": [1, None]})
    "{kind: 'ray', size: [1, null]}"
    """
    text = _flow(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def word_error(detail: ErrorDetails) -> Wording:
    """Returns the message for one of pydantic's errors about a value."""
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in _EXPECTED_BY_TYPE:
        return mismatch(_EXPECTED_BY_TYPE[kind], shown(given))
    if kind in ("literal_error", "enum"):
        return _not_one_of(given, _words(context["expected"]))
    if kind in _LIMITS:
        return Wording(_LIMITS[kind](shown(given), context))
    if kind in ("value_error", "assertion_error"):
        return Wording(_one_line(str(context["error"])))
    # Custom error types have complete messages; pydantic's other messages start with "Input should".
    message = _one_line(detail["msg"])
    rest = message.removeprefix("Input should ")
    return Wording(message if rest == message else f"must {rest}, got {shown(given)}")


def mismatch(expected: str, given: str, hint: str = "") -> Wording:
    """Returns the message for a value that is not of the expected type."""
    return Wording(f"must be {expected}, got {given}{hint}", expected, hint)


def _flow(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_flow(item) for item in value)}]"
    text = repr(value)
    return {"None": "null", "True": "true", "False": "false"}.get(text, text)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _words(expected: str) -> list[str]:
    """Parses a list as written by pydantic, such as "'a', 'b' or 2"."""
    words = re.findall(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,]+""", expected)
    return [str(ast.literal_eval(word)) if word[0] in "'\"" else word for word in words if word != "or"]


def _not_one_of(given: object, words: list[str]) -> Wording:
    hint = did_you_mean(given, words) if isinstance(given, str) else ""
    listed = ", ".join(words)
    if len(words) == 1:
        return mismatch(f"'{listed}'", shown(given), hint)
    return Wording(f"{shown(given)} is not one of {listed}{hint}", f"one of {listed}", hint)


def _number(limit: object) -> str:
    """Formats a bound as users write it: pydantic converts 0 to 0.0 for floats."""
    return str(int(limit)) if isinstance(limit, float) and limit.is_integer() and abs(limit) < 1e15 else str(limit)


def _count(bound: str, noun: str, context: Mapping[str, Any]) -> str:
    limit = context["min_length" if bound == "at least" else "max_length"]
    return f"must have {bound} {limit} {noun if limit != 1 else _SINGULAR[noun]}"


_SINGULAR = {"entries": "entry", "characters": "character"}
_LIMITS: dict[str, Callable[[str, Mapping[str, Any]], str]] = {
    "greater_than": lambda given, context: f"must be above {_number(context['gt'])}, got {given}",
    "greater_than_equal": lambda given, context: f"{given} is below {_number(context['ge'])}",
    "less_than": lambda given, context: f"must be below {_number(context['lt'])}, got {given}",
    "less_than_equal": lambda given, context: f"{given} is above {_number(context['le'])}",
    "multiple_of": lambda given, context: f"must be a multiple of {_number(context['multiple_of'])}, got {given}",
    "too_short": lambda given, context: f"{_count('at least', 'entries', context)}, got {given}",
    "too_long": lambda given, context: f"{_count('at most', 'entries', context)}, got {given}",
    "string_too_short": lambda given, context: f"{_count('at least', 'characters', context)}, got {given}",
    "string_too_long": lambda given, context: f"{_count('at most', 'characters', context)}, got {given}",
    "string_pattern_mismatch": lambda given, context: f"must match the pattern {context['pattern']}, got {given}",
}
