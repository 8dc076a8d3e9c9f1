"""Draws text in any script in figures: with an installed font, or as numbers that are explained in a warning."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import Formatter

BASE = "DejaVu Sans"
"""The font that is shipped with matplotlib: Latin, Greek, Cyrillic, Arabic, symbols."""
_BLANK = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp", "Mn"})
"""Categories of characters that need no glyph: spaces, joiners, variation selectors, accents."""
_UNFIT = ("Last Resort", "Color Emoji", "NonUnicode")
"""Parts of the names of fonts that lack outlines for the characters that they list."""

_log = logging.getLogger(__name__)
_numbers: dict[str, int] = {}


def use_fallback_fonts(figure: Figure) -> None:
    """Adds installed fonts for characters that the base font lacks; does nothing if it lacks none."""
    texts = figure.findobj(Text)
    lacking = _lacking("".join(text.get_text() for text in texts))
    if families := fallback_fonts(frozenset(lacking)):
        for text in texts:
            # Includes tick labels, whose text is set again when the figure is drawn.
            text.set_fontfamily([*text.get_fontfamily(), *families])


def number_what_no_font_has(figure: Figure) -> None:
    """Replaces words that no installed font can draw by numbers such as [1], and warns once for each word.

    A compatible spelling is used if there is one (`ｐｈｏｔｏ` becomes photo).
    """
    undrawable = _undrawable("".join(text.get_text() for text in figure.findobj(Text)))
    if not undrawable:
        return
    known = len(_numbers)
    for axis in _axes(figure):
        if undrawable & set("".join(label.get_text() for label in axis.get_ticklabels())):
            axis.set_major_formatter(_Legible(axis.get_major_formatter(), undrawable))
    for text in figure.findobj(Text):
        text.set_text(_numbered(text.get_text(), undrawable))
    if new := list(_numbers)[known:]:
        legend = ", ".join(f"[{_numbers[word]}] is {word}" for word in new)
        _log.warning("no installed font can draw these words, so figures show numbers: %s; install e.g. Noto", legend)


@cache
def fallback_fonts(characters: frozenset[str]) -> tuple[str, ...]:
    """Returns a small set of installed fonts that cover the characters, as far as any font does."""
    remaining, chosen = set(characters), []
    while remaining:
        best, covered = max(
            ((family, remaining & available) for family, available in _coverage(characters).items()),
            key=lambda item: len(item[1]),
            default=("", set[str]()),
        )
        if not covered:
            break
        chosen.append(best)
        remaining -= covered
    return tuple(chosen)


@cache
def _coverage(characters: frozenset[str]) -> dict[str, set[str]]:
    """Returns the subset of the characters that each installed font has, by family in alphabetic order."""
    coverage: dict[str, set[str]] = {}
    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, entry.style != "normal", str(entry.fname))):
        if entry.name not in coverage and not any(part in entry.name for part in _UNFIT):
            coverage[entry.name] = {each for each in characters if ord(each) in _charmap(entry.fname)}
    return coverage


@cache
def _charmap(path: str) -> frozenset[int]:
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # removed since matplotlib listed it, or damaged
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()


def _lacking(text: str) -> set[str]:
    base = _charmap(findfont(BASE))
    return {each for each in set(text) if ord(each) not in base and unicodedata.category(each) not in _BLANK}


def _undrawable(text: str) -> set[str]:
    lacking = _lacking(text)
    families = fallback_fonts(frozenset(lacking))
    return lacking - set().union(*(_coverage(frozenset(lacking))[family] for family in families))


def _numbered(text: str, undrawable: set[str]) -> str:
    """Replaces runs of undrawable characters by numbers, and keeps the other characters."""
    parts: list[str] = []
    run = ""
    for each in [*text, ""]:
        spelt = unicodedata.normalize("NFKC", each) if each in undrawable else each
        if each and spelt != each and not _lacking(spelt):
            each = spelt  # noqa: PLW2901 - a compatible spelling is drawn instead
        if each in undrawable or (run and each and unicodedata.category(each) in {"Mn", "Cf"}):
            run += each
            continue
        if run:
            parts.append(f"[{_numbers.setdefault(run, len(_numbers) + 1)}]")
            run = ""
        parts.append(each)
    return "".join(parts)


def _axes(figure: Figure) -> Iterator[Axis]:
    for axes in figure.findobj(Axes):
        if isinstance(axes, Axes):
            yield from (axes.xaxis, axes.yaxis)


class _Legible(Formatter):
    """Formats tick labels like another formatter, with undrawable characters replaced."""

    def __init__(self, inner: Formatter, undrawable: Iterable[str]) -> None:
        self._inner = inner
        self._undrawable = set(undrawable)

    def __call__(self, x: float, pos: int | None = None) -> str:
        return _numbered(self._inner(x, pos), self._undrawable)

    def format_ticks(self, values: list[float]) -> list[str]:
        return [_numbered(label, self._undrawable) for label in self._inner.format_ticks(values)]
