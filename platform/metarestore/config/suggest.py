"""Suggestions for misspelt words, in one wording for keys, operations, kinds and names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> str | None:
    """Returns the known word nearest to `word`, or None when nothing is near; upper and lower case count as equal."""
    folded = {candidate.casefold(): candidate for candidate in known}
    matches = difflib.get_close_matches(word.casefold(), folded, n=1)
    return folded[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str], *, noun: str = "") -> str:
    """Returns the end of an error message about an unknown word; empty when there is nothing to say.

    Args:
        word: What was given.
        known: What would have been accepted.
        noun: When nothing is near and `noun` is given, all known words are listed under this name (plural).

    >>> did_you_mean("gausian_noise", ["gaussian_noise", "jpeg"])
    "; did you mean 'gaussian_noise'?"
    >>> did_you_mean("foo", ["jpeg", "blur"], noun="operations")
    '; known operations: jpeg, blur'
    """
    words = list(known)
    near = closest(word, words)
    if near is not None:
        return f"; did you mean '{near}'?"
    return f"; known {noun}: {', '.join(words)}" if noun and words else ""
