"""The contact sheet of a task distribution: what its draws do to photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarestore.reports.pictures import pixel_figure, place_image, place_text, save_png, wrapped
from metarestore.reports.style import house_style

__all__ = ["SheetRow", "contact_sheet", "save_png"]

_COLUMNS = 2
_GAP = 6
_MARGIN = 24
_TITLE = 64
_LINE = 16
_CAPTION_SIZE = 8.5
_LEAST, _MOST = 200, 320
"""Least and largest side of a tile, in pixels."""


@dataclass(frozen=True)
class SheetRow:
    """One draw.

    Attributes:
        hr: The HR crop, uint8 RGB (H, W, 3).
        lr: The LR crop, uint8 RGB (h, w, 3).
        caption: The drawn parameters, one `operation.parameter value` per line, or any other text.
    """

    hr: NDArray[np.uint8]
    lr: NDArray[np.uint8]
    caption: str


@house_style
def contact_sheet(rows: Sequence[SheetRow], title: str) -> Figure:
    """Draws HR and LR of each draw side by side at the same size, two draws in a line, each above its parameters.

    Raises:
        ValueError: There are no rows.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one draw")
    width, height = _tile(rows)
    entry = 2 * width + _GAP
    captions = [
        [part for line in _by_operation(row.caption) for part in wrapped(line, entry, _CAPTION_SIZE)] for row in rows
    ]
    depth = height + 8 + _LINE * max(len(lines) for lines in captions) + 12
    columns = min(_COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure = pixel_figure(_MARGIN + columns * (entry + _MARGIN), _TITLE + lines * depth + 4)
    place_text(figure, title, _MARGIN, 10, size=12, bold=True)
    for index, (row, caption) in enumerate(zip(rows, captions, strict=True)):
        left, top = _MARGIN + index % columns * (entry + _MARGIN), _TITLE + index // columns * depth
        place_image(figure, row.hr, left, top, width, height)
        place_image(figure, row.lr, left + width + _GAP, top, width, height)
        place_text(figure, "\n".join(caption), left, top + height + 6, size=_CAPTION_SIZE)
    for column in range(columns):
        left = _MARGIN + column * (entry + _MARGIN)
        place_text(figure, "HR", left, _TITLE - 20, size=9, grey=True)
        place_text(figure, "LR", left + width + _GAP, _TITLE - 20, size=9, grey=True)
    return figure


def _by_operation(caption: str) -> list[str]:
    """Puts the parameters of an operation into one line: `jpeg: quality 85, subsampling 420`."""
    groups: dict[str, list[str]] = {}
    for line in caption.splitlines():
        operation, _, setting = line.partition(".")
        if operation.isidentifier() and " " in setting:
            groups.setdefault(f"{operation}: ", []).append(setting)
        else:
            groups.setdefault(line, [])
    return [operation + ", ".join(settings) for operation, settings in groups.items()]


def _tile(rows: Sequence[SheetRow]) -> tuple[int, int]:
    """Returns width and height of a tile: the largest crop at a whole multiple, unless that would be too large."""
    height, width = (max(row.hr.shape[axis] for row in rows) for axis in (0, 1))
    zoom: float = max(1, round(_LEAST / max(height, width)))
    if zoom * max(height, width) > _MOST:
        zoom = _MOST / max(height, width)
    return max(1, round(zoom * width)), max(1, round(zoom * height))
