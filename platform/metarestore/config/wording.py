"""What is wrong with one value, in our words: what was given and what to do."""

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
    """The message about one value.

    Args:
        text: The whole message.
        expects: What type or word would have been right, if that is all that is wrong ("a number").
        hint: A suggestion that `text` ends with.
    """

    text: str
    expects: str = ""
    hint: str = ""


def shown(value: object) -> str:
    """Writes a value as it would stand in a YAML file, on one line and not too long.

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
    # A type of our own speaks for itself; what is left of pydantic's messages says what the input "should be".
    message = _one_line(detail["msg"])
    rest = message.removeprefix("Input should ")
    return Wording(message if rest == message else f"must {rest}, got {shown(given)}")


def mismatch(expected: str, given: str, hint: str = "") -> Wording:
    """Returns the message for a value that is not what was expected."""
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
    """Reads the list that pydantic writes, such as "'a', 'b' or 2"."""
    found = re.findall(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,]+""", expected)
    return [str(ast.literal_eval(word)) if word[0] in "'\"" else word for word in found if word != "or"]


def _not_one_of(given: object, words: list[str]) -> Wording:
    hint = did_you_mean(given, words) if isinstance(given, str) else ""
    listed = ", ".join(words)
    if len(words) == 1:
        return mismatch(f"'{listed}'", shown(given), hint)
    return Wording(f"{shown(given)} is not one of {listed}{hint}", f"one of {listed}", hint)


def _number(limit: object) -> str:
    """Writes a bound as a user would: pydantic turns 0 into 0.0 for floats."""
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
