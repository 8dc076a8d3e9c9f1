"""The contact sheet of task distributions: examples of their degradations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarestore.errors import UserError
from metarestore.reports.pictures import pixel_figure, place_image, place_text, save_png, wrapped
from metarestore.reports.style import house_style

__all__ = ["Section", "SheetRow", "contact_sheet", "require_drawable", "save_png"]

_COLUMNS = 2
_GAP = 6
_MARGIN = 24
_TITLE = 64
_LINE = 16
_CAPTION_SIZE = 8.5
_LEAST, _MOST = 200, 320
"""Minimum and maximum side of a tile, in pixels."""
_TALLEST = 2**16 - 1
"""Maximum side of a figure in matplotlib, in pixels."""


@dataclass(frozen=True)
class SheetRow:
    """One draw.

    Attributes:
        hr: The HR crop, uint8 RGB (H, W, 3).
        lr: The LR crop, uint8 RGB (h, w, 3).
        caption: Text below the images, usually the drawn parameters with one line per operation.
    """

    hr: NDArray[np.uint8]
    lr: NDArray[np.uint8]
    caption: str


@dataclass(frozen=True)
class Section:
    """Draws of one task distribution.

    Attributes:
        title: Title above the draws.
        rows: The draws.
    """

    title: str
    rows: Sequence[SheetRow]


@house_style
def contact_sheet(sections: Sequence[Section]) -> Figure:
    """Draws sections one below the other, with HR and LR side by side at the same size, and two draws in a row.

    Raises:
        ValueError: A section has no draws.
        UserError: The sheet would be too tall for matplotlib.
    """
    if not sections or not all(section.rows for section in sections):
        raise ValueError("a contact sheet needs at least one draw")
    blocks = [_Block.of(section) for section in sections]
    height = sum(block.height for block in blocks) + 4
    require_drawable(height)
    figure = pixel_figure(max(block.width for block in blocks), height)
    top = 0
    for block in blocks:
        block.draw(figure, top)
        top += block.height
    return figure


def require_drawable(height: int) -> None:
    """Checks that matplotlib can draw a figure of the given height in pixels.

    Raises:
        UserError: It cannot.
    """
    if height > _TALLEST:
        raise UserError(
            f"the sheet would be {height} pixels tall, but the maximum is {_TALLEST}; lower --count or give fewer tasks"
        )


@dataclass(frozen=True)
class _Block:
    """The layout of a section, in pixels.

    Attributes:
        section: The section.
        captions: The lines below each draw.
        tile: Width and height of an image.
    """

    section: Section
    captions: Sequence[Sequence[str]]
    tile: tuple[int, int]

    @classmethod
    def of(cls, section: Section) -> _Block:
        tile = _tile(section.rows)
        return cls(section, [_wrapped_lines(row.caption, 2 * tile[0] + _GAP) for row in section.rows], tile)

    @property
    def columns(self) -> int:
        return min(_COLUMNS, len(self.section.rows))

    @property
    def entry(self) -> int:
        """Width of the two images of a draw."""
        return 2 * self.tile[0] + _GAP

    @property
    def width(self) -> int:
        return _MARGIN + self.columns * (self.entry + _MARGIN)

    @property
    def depth(self) -> int:
        """Height of a row of draws."""
        return self.tile[1] + 8 + _LINE * max(len(lines) for lines in self.captions) + 12

    @property
    def height(self) -> int:
        return _TITLE + math.ceil(len(self.section.rows) / self.columns) * self.depth

    def draw(self, figure: Figure, top: int) -> None:
        """Draws the section at the vertical position `top` of a figure."""
        place_text(figure, self.section.title, _MARGIN, top + 10, size=12, bold=True)
        for column in range(self.columns):
            left = _MARGIN + column * (self.entry + _MARGIN)
            place_text(figure, "HR", left, top + _TITLE - 20, size=9, grey=True)
            place_text(figure, "LR", left + self.tile[0] + _GAP, top + _TITLE - 20, size=9, grey=True)
        for index, (row, caption) in enumerate(zip(self.section.rows, self.captions, strict=True)):
            left = _MARGIN + index % self.columns * (self.entry + _MARGIN)
            above = top + _TITLE + index // self.columns * self.depth
            place_image(figure, row.hr, left, above, *self.tile)
            place_image(figure, row.lr, left + self.tile[0] + _GAP, above, *self.tile)
            place_text(figure, "\n".join(caption), left, above + self.tile[1] + 6, size=_CAPTION_SIZE)


def _wrapped_lines(text: str, width: int) -> list[str]:
    return [part for line in text.splitlines() for part in wrapped(line, width, _CAPTION_SIZE)]


def _tile(rows: Iterable[SheetRow]) -> tuple[int, int]:
    """Returns width and height of a tile: the largest crop at an integer zoom, unless that would be too large."""
    shapes = [row.hr.shape for row in rows]
    height, width = (max(shape[axis] for shape in shapes) for axis in (0, 1))
    zoom: float = max(1, round(_LEAST / max(height, width)))
    if zoom * max(height, width) > _MOST:
        zoom = _MOST / max(height, width)
    return max(1, round(zoom * width)), max(1, round(zoom * height))
