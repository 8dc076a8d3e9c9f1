"""Suggestions for misspelt keys, operations, kinds and names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> str | None:
    """Returns the known word closest to `word`, ignoring case, or None if none is similar."""
    folded = {candidate.casefold(): candidate for candidate in known}
    matches = difflib.get_close_matches(word.casefold(), folded, n=1)
    return folded[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str], *, noun: str = "") -> str:
    """Returns a suggestion to append to an error message about an unknown word; may be empty.

    Args:
        word: The given word.
        known: The accepted words.
        noun: If no word is similar and `noun` (a plural) is given, all known words are listed under this name.

    >>> did_you_mean("gausian_noise", ["gaussian_noise", "jpeg"])
    "; did you mean 'gaussian_noise'?"
    >>> did_you_mean("foo", ["jpeg", "blur"], noun="operations")
    '; known operations: jpeg, blur'
    """
    words = list(known)
    suggestion = closest(word, words)
    if suggestion is not None:
        return f"; did you mean '{suggestion}'?"
    return f"; known {noun}: {', '.join(words)}" if noun and words else ""
