"""Parses YAML 1.2 text to plain Python data with the line and column of every value.

Only the event parser of ruamel.yaml is used. Data is built here, so that tags cannot construct objects, scalars follow
the core schema of YAML 1.2 exactly (`1e-4` is a number; `yes`, `1_000` and `2026-01-01` are text), every key is text,
and aliases can neither contain themselves nor expand without bound.

Source: YAML 1.2.2, section 10.3.2 (core schema, tag resolution).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StreamMark
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from metarestore.config.keypath import KeyPath, Part

Position: TypeAlias = tuple[int, int]
"""Line and column, both from 1."""
Scalar: TypeAlias = str | int | float | bool | None

MAX_DEPTH = 64
"""Maximum nesting depth: far beyond any configuration, and far below Python's recursion limit."""
MAX_DIGITS = 1000
"""Maximum number of digits of an integer: Python refuses to print more than about 4000 digits."""
MAX_VALUES = 100_000
"""Maximum number of values of a document with expanded aliases."""

_WORDS: dict[str, bool | float | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WORDS |= {sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")}
_WORDS |= {word: float("nan") for word in (".nan", ".NaN", ".NAN")}
_INTEGERS = ((10, re.compile(r"[-+]?[0-9]+")), (8, re.compile(r"0o[0-7]+")), (16, re.compile(r"0x[0-9a-fA-F]+")))
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class YamlError(Exception):
    """A YAML text is invalid.

    Args:
        problems: Position and message of each problem.
    """

    def __init__(self, problems: list[tuple[Position, str]]) -> None:
        self.problems = problems
        super().__init__("; ".join(message for _, message in problems))


@dataclass(frozen=True)
class EntryPosition:
    """Position of an entry: of its key (in a list, of its value) and of its value."""

    key: Position
    value: Position


@dataclass
class _Node:
    """A value of the document; an alias and its anchor share one node."""

    at: Position
    value: Scalar | _Entries | list[_Node]
    size: int = 1
    height: int = 0


_Entries: TypeAlias = dict[Part, tuple[Position, _Node]]


def parse_yaml(text: str) -> tuple[Any, dict[KeyPath, EntryPosition]]:
    """Parses one YAML document.

    Returns:
        Plain data made of dict (keys are text), list, str, int, float, bool and None, and the position of every value
        by its path; an empty text is None and has no positions.

    Raises:
        YamlError: The text is not YAML 1.2, or uses tags, merge keys, or aliases that contain themselves.
    """
    builder = _Builder(_events(text))
    try:
        root = builder.document()
    except YamlError as error:
        raise YamlError([*builder.problems, *error.problems]) from None
    if builder.problems:
        raise YamlError(builder.problems)
    positions: dict[KeyPath, EntryPosition] = {}
    return (None if root is None else _plain(root, (), root.at, positions)), positions


def resolve(text: str) -> Scalar:
    """Returns the value of a plain (unquoted) scalar.

    Raises:
        ValueError: The text is a whole number of more than `MAX_DIGITS` digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    for base, pattern in _INTEGERS:
        if pattern.fullmatch(text):
            if len(text) > MAX_DIGITS:
                raise ValueError(f"a number of {len(text)} digits; at most {MAX_DIGITS} are allowed")
            return int(text, base)
    return float(text) if _FLOAT.fullmatch(text) else text


def _events(text: str) -> Iterator[Event]:
    """Yields the parser's events; errors of the parser become located errors."""
    last: Position = (1, 1)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            last = _position(event)
            yield event
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = last if mark is None else _position_of_mark(mark)
        raise YamlError([(at, _syntax_message(error))]) from error
    except ReaderError as error:
        raise YamlError([(position_of(text[: error.position]), "a control character; remove it")]) from error
    # The parser raises these for a bad %YAML directive and for a character code above 10FFFF.
    except (AssertionError, ValueError, OverflowError) as error:
        raise YamlError([(last, f"not valid YAML: {_one_line(str(error))}")]) from error


def position_of(before: str) -> Position:
    """Returns the position of the character that follows the text `before`."""
    lines = before.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return len(lines), len(lines[-1]) + 1


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _syntax_message(error: MarkedYAMLError) -> str:
    problem = str(error.problem or error.context)
    if "'\\t'" in problem:
        return "a tab cannot indent or start a value; use spaces"
    context = f"{error.context}, " if error.problem and error.context else ""
    return f"not valid YAML: {_one_line(context + problem)}"


def _position(event: Event) -> Position:
    return _position_of_mark(event.start_mark)


def _position_of_mark(mark: StreamMark) -> Position:
    return mark.line + 1, mark.column + 1


@dataclass
class _Builder:
    """Builds nodes from events; collects problems that do not stop parsing."""

    events: Iterator[Event]
    problems: list[tuple[Position, str]] = field(default_factory=list)
    anchors: dict[str, _Node] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)

    def document(self) -> _Node | None:
        """Reads the only document of the stream; None when there is none."""
        root: _Node | None = None
        for event in self.events:
            if isinstance(event, DocumentStartEvent) and root is not None:
                self._stop(event, "a second document begins here; write one document per file")
            if isinstance(event, NodeEvent):
                root = self._node(event, 0)
        return root

    def _node(self, event: NodeEvent, depth: int) -> _Node:
        if isinstance(event, AliasEvent):
            return self._alias(event, depth)
        if depth > MAX_DEPTH:
            self._stop(event, f"nested more than {MAX_DEPTH} levels deep")
        if (tag := getattr(event, "tag", None)) is not None:  # missing in the stubs of ruamel.yaml
            shown = str(tag).replace("tag:yaml.org,2002:", "!!")
            self._report(event, f"tags are not supported, got {_one_line(shown)}; remove it, or quote the value")
        if event.anchor is not None:
            self.unfinished.add(event.anchor)
        node = self._content(event, depth)
        if node.size > MAX_VALUES:
            self._stop(event, f"more than {MAX_VALUES} values with expanded aliases")
        if event.anchor is not None:
            self.unfinished.discard(event.anchor)
            self.anchors[event.anchor] = node
        return node

    def _content(self, event: NodeEvent, depth: int) -> _Node:
        if isinstance(event, MappingStartEvent):
            return self._mapping(event, depth)
        if isinstance(event, SequenceStartEvent):
            items = [self._node(item, depth + 1) for item in self._children()]
            return _collection(event, items, items)
        return _Node(_position(event), self._scalar(event))

    def _mapping(self, event: MappingStartEvent, depth: int) -> _Node:
        entries: _Entries = {}
        children = self._children()
        for key_event in children:
            key = self._key(key_event, depth)
            value_event = next(children)
            value = self._node(value_event, depth + 1)
            if isinstance(value_event, ScalarEvent) and not value_event.value and value_event.style is None:
                # The parser locates an empty value at the next token, which may be lines below.
                value.at = _position_of_mark(key_event.end_mark)
            if key in entries:
                self._report(key_event, f"key {key!r} is given twice, first on line {entries[key][0][0]}; keep one")
            elif key is not None:
                entries[key] = (_position(key_event), value)
        return _collection(event, entries, [value for _, value in entries.values()])

    def _key(self, event: NodeEvent, depth: int) -> str | None:
        """Returns a key as text (`on`, `2` and `null` are text here), or None after reporting a problem."""
        self._node(event, depth + 1)  # reports tags, records anchors
        if not isinstance(event, ScalarEvent):
            self._report(event, "a key must be text, not a list, a mapping or an alias")
            return None
        if event.value == "<<" and event.style is None:
            self._report(event, "merge keys (<<) are not part of YAML 1.2; write the keys out")
            return None
        return str(event.value)

    def _scalar(self, event: NodeEvent) -> Scalar:
        if not isinstance(event, ScalarEvent):
            return None
        text = str(event.value)
        if any("\ud800" <= character <= "\udfff" for character in text):
            self._report(event, "a lone surrogate is not a character; write \\U and eight digits")
            return ""
        try:
            return text if event.style else resolve(text)
        except ValueError as error:
            self._report(event, str(error))
            return None

    def _alias(self, event: AliasEvent, depth: int) -> _Node:
        name = str(event.anchor)
        if name in self.unfinished:
            self._stop(event, f"alias *{name} contains itself")
        if name not in self.anchors:
            self._report(event, f"alias *{name} has no anchor &{name} before it; quote the value if * is meant")
            return _Node(_position(event), None)
        target = self.anchors[name]
        if depth + target.height > MAX_DEPTH:
            self._stop(event, f"nested more than {MAX_DEPTH} levels deep")
        return _Node(_position(event), target.value, target.size, target.height)

    def _children(self) -> Iterator[NodeEvent]:
        for event in self.events:
            if isinstance(event, CollectionEndEvent):
                return
            if isinstance(event, NodeEvent):
                yield event

    def _report(self, event: Event, message: str) -> None:
        self.problems.append((_position(event), message))

    def _stop(self, event: Event, message: str) -> NoReturn:
        raise YamlError([(_position(event), message)])


def _collection(event: NodeEvent, value: _Entries | list[_Node], children: list[_Node]) -> _Node:
    size = 1 + sum(child.size for child in children)
    return _Node(_position(event), value, size, 1 + max((child.height for child in children), default=0))


def _plain(node: _Node, path: KeyPath, key: Position, positions: dict[KeyPath, EntryPosition]) -> Any:
    """Returns the data of a node and records the positions of everything in it."""
    positions[path] = EntryPosition(key, node.at)
    if isinstance(node.value, dict):
        return {part: _plain(child, (*path, part), at, positions) for part, (at, child) in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(child, (*path, index), child.at, positions) for index, child in enumerate(node.value)]
    return node.value
