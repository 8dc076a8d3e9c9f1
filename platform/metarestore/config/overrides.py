"""Values given on the command line (`--set training.steps=100`), and patches of one configuration by another."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metarestore.config.keypath import SYNTAX, KeyPath, Part, format_path, split_path
from metarestore.config.shape import child
from metarestore.config.wording import shown
from metarestore.config.yaml_text import YamlError, parse_yaml
from metarestore.errors import UserError


@dataclass(frozen=True)
class Override:
    """One value to set.

    Args:
        path: Keys and indices of the value.
        value: The new value, as plain data.
        text: The override as written by the user, for messages.
    """

    path: KeyPath
    value: Any
    text: str

    def target(self, data: object) -> KeyPath:
        """Returns the path within `data`, where an index may turn out to be the key of a mapping."""
        target: list[Part] = []
        for part in self.path:
            key: Part = str(part) if isinstance(data, dict) else part
            data = child(data, key)
            target.append(key)
        return tuple(target)


def parse_override(text: str) -> Override:
    """Parses `key.path=value`; the value is a YAML 1.2 scalar or flow collection (`1e-4`, `[1, 2]`, `{kind: ray}`).

    Raises:
        UserError: `--set 'text': ...` if it does not have this form.

    >>> parse_override("pipeline[1].quality=[40, 90]")
    Override(path=('pipeline', 1, 'quality'), value=[40, 90], text='pipeline[1].quality=[40, 90]')
    """
    path, rest = split_path(text.strip())
    rest = rest.lstrip()
    if not path or not rest.startswith("="):
        raise _refused(text, f"no key path before '='; {SYNTAX}" if "=" in text else f"has no '='; {SYNTAX}")
    written = rest[1:].strip()
    if not written:
        raise _refused(
            text, f"has no value; write {format_path(path)}=null for none, {format_path(path)}='' for empty text"
        )
    return Override(path, _value(text, written), text)


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """Returns a copy of `data` with the values set in order; missing mappings are created.

    Setting a different `kind` removes the other keys of the mapping, as in `merge`, because the keys of one kind are
    not valid for another. Keys that an override sets are kept.

    >>> apply_overrides({"engine": {"kind": "ray", "workers": 2}}, [parse_override("engine.kind=local")])
    {'engine': {'kind': 'local'}}

    Raises:
        UserError: A path goes through a value that is neither a mapping nor a list, or to an index that a list does not
            have; one line per override.
    """
    result = copy.deepcopy(dict(data))
    problems = []
    for override in overrides:
        try:
            _set(result, override, {other.path for other in overrides})
        except _BlockedError as blocked:
            problems.append(f"--set {override.text}: {blocked}")
    if problems:
        raise UserError(problems)
    return result


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` updated by `patch`: mappings are merged key by key; everything else, including lists, is replaced.

    A mapping whose `kind` in the patch differs from its `kind` in the base is replaced as a whole, because the keys of
    one kind are not valid for another.

    >>> merge({"model": {"kind": "fsrcnn", "d": 56}, "seed": 0}, {"model": {"d": 8}})
    {'model': {'kind': 'fsrcnn', 'd': 8}, 'seed': 0}
    """
    if "kind" in base and "kind" in patch and base["kind"] != patch["kind"]:
        return copy.deepcopy(dict(patch))
    merged = copy.deepcopy(dict(base))
    for key, value in patch.items():
        old = base.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


_VALUES = "write key.path=value, where the value is a number, a word, [1, 2], {key: value} or a 'quoted text'"


class _BlockedError(Exception):
    """A path cannot be followed; the message is the reason."""


def _refused(text: str, problem: str) -> UserError:
    return UserError(f"--set {text!r}: {problem}")


def _value(text: str, written: str) -> Any:
    try:
        value, positions = parse_yaml(written)
    except YamlError as error:
        problem = "; ".join(message for _, message in error.problems)
        raise _refused(text, f"{problem}; {_VALUES}") from None
    if not positions:  # only a comment
        raise _refused(text, f"has no value; {_VALUES}")
    # A block collection (`a: 1` or `- 1`) begins with a key or a dash, a flow collection with its bracket.
    if isinstance(value, dict | list) and written[positions[()].value[1] - 1] not in "[{":
        raise _refused(text, f"block mappings and lists are not allowed here, use brackets; {_VALUES}")
    return value


def _set(data: dict[str, Any], override: Override, written: Collection[KeyPath]) -> None:
    here: Any = data
    *outer, last = override.path
    for depth, part in enumerate(outer):
        key = _entry(here, override.path[:depth], part)
        # `key:` without a value counts as an empty mapping when something is set in it.
        if isinstance(here, dict) and here.get(key) is None:
            if isinstance(override.path[depth + 1], int):
                name = format_path(override.path[: depth + 1])
                raise _BlockedError(f"there is no list at {name} yet; write {name}=[...]")
            here[key] = {}
        here = here[key]
    entry = _entry(here, override.path[:-1], last)
    if entry == "kind" and isinstance(here, dict) and here.get("kind", override.value) != override.value:
        beside = len(outer)
        kept = {str(path[beside]) for path in written if path[:beside] == override.path[:beside] and path[beside:]}
        for key in set(here) - kept:
            del here[key]
    here[entry] = copy.deepcopy(override.value)


def _entry(container: object, path: KeyPath, part: Part) -> Part:
    """Returns the key or index of `part` in `container`, the value at `path`."""
    name = format_path(path)
    if isinstance(container, dict):
        return str(part)
    if not isinstance(container, list):
        raise _BlockedError(f"{name} is {shown(container)}, not a mapping; set {name} itself to replace it")
    if not isinstance(part, int):
        raise _BlockedError(f"{name} is a list; write an index, e.g. {name}[0], instead of {part!r}")
    if part >= len(container):
        raise _BlockedError(
            f"{name} has {len(container)} entries, so there is no {name}[{part}]; the first is {name}[0]"
        )
    return part
