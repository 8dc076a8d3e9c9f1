"""Matching of names and glob patterns, as written in graphs and on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Returns the names that match a name or a glob pattern; an existing name matches only itself.

    >>> matching("blur_*", ["blur_a", "jpeg", "blur_b"])
    ['blur_a', 'blur_b']
    >>> matching("blur[iso]", ["blur[iso]", "bluri"])
    ['blur[iso]']
    """
    known = list(names)
    return [pattern] if pattern in known else [name for name in known if fnmatchcase(name, pattern)]
