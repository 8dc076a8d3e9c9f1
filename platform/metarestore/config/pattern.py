"""Names and patterns of names, as graphs and commands give them."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Returns the names that a name or a pattern stands for; a name that is there stands for itself alone.

    >>> matching("blur_*", ["blur_a", "jpeg", "blur_b"])
    ['blur_a', 'blur_b']
    >>> matching("blur[iso]", ["blur[iso]", "bluri"])
    ['blur[iso]']
    """
    known = list(names)
    return [pattern] if pattern in known else [name for name in known if fnmatchcase(name, pattern)]
