"""Paths into nested data: `("pipeline", 1, "quality")` is written `pipeline[1].quality` in messages and in `--set`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TypeAlias

Part: TypeAlias = str | int
KeyPath: TypeAlias = tuple[Part, ...]

# A bare key cannot be mistaken for an index, another key or the `=` of an override.
_BARE = re.compile(r"""(?![0-9]+$)[^.\[\]=\s"']+""")
_PART = re.compile(r"""\.?([^.\[\]=\s"']+)|\[([0-9]+)\]|\[("(?:[^"\\]|\\.)*")\]""", re.DOTALL)
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
SYNTAX = "write key.path=value, e.g. training.steps=100 or pipeline[1].quality=80"


def format_path(path: Sequence[Part]) -> str:
    """Formats a path as users write it; the empty path, which is the whole document, is the empty string.

    >>> format_path(("pipeline", 1, "quality"))
    'pipeline[1].quality'
    >>> format_path(("search", "learner.inner_lr"))
    'search["learner.inner_lr"]'
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isprintable() and _BARE.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=not part.isprintable())}]"
    return text


def split_path(text: str) -> tuple[KeyPath, str]:
    """Parses the path at the beginning of `text`; indices may also be written after a dot.

    Returns:
        The path and the text after it; the path is empty if `text` does not start with one.

    >>> split_path("pipeline.1.quality=80")
    (('pipeline', 1, 'quality'), '=80')
    """
    path: list[Part] = []
    position = 0
    while match := _PART.match(text, position):
        bare, index, quoted = match.groups()
        # A dot separates parts: it cannot start a path, and is required between two keys.
        if bare is not None and match.group().startswith(".") != bool(path):
            return (), text
        path.append(_part(bare, index, quoted))
        position = match.end()
    return tuple(path), text[position:]


def _part(bare: str | None, index: str | None, quoted: str | None) -> Part:
    """Converts one matched part to a key or an index."""
    if quoted is not None:
        try:
            return str(json.loads(quoted, strict=False))
        except ValueError:  # an escape that JSON lacks, as in a Windows path: the text as it stands
            return quoted[1:-1]
    word = bare or index or ""
    return int(word) if _INDEX.fullmatch(word) else word
