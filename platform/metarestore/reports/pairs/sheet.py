"""The contact sheet of pairs: LR enlarged, HR, and their difference."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarestore.errors import UserError
from metarestore.reports.pictures import pixel_figure, place_image, place_text
from metarestore.reports.style import house_style
from metarestore.tasks.pair_files import PairFiles

Pixels = NDArray[np.uint8]

_TILE = 320
_GAP = 8
_CAPTION = 22
_TOP = 30
_GAIN = 2
"""Gain of the displayed differences."""
MOST = 150
"""Maximum number of pairs on a sheet, which matplotlib limits to 65535 pixels."""
_HEADINGS = ("LR, enlarged bicubically", "HR", f"difference ×{_GAIN}, grey is none")


@house_style
def pair_sheet(pairs: Sequence[PairFiles]) -> Figure:
    """Draws the first 150 pairs, one row for each; pairs that cannot be read are left out.

    Args:
        pairs: The pairs.

    Raises:
        UserError: No pair can be read.
    """
    rows = []
    for files in pairs[:MOST]:
        try:
            raw = files.read()
        except UserError:
            continue
        rows.append((files.name, _tiles(raw.lr, raw.hr)))
    if not rows:
        raise UserError("--sheet: none of the pairs can be read; correct their sizes first")
    heights = [tiles[0].shape[0] + _CAPTION + _GAP for _, tiles in rows]
    figure = pixel_figure(_GAP + 3 * (_TILE + _GAP), _TOP + sum(heights))
    for column, heading in enumerate(_HEADINGS):
        place_text(figure, heading, _GAP + column * (_TILE + _GAP), 8, bold=True)
    top = _TOP
    for (name, tiles), height in zip(rows, heights, strict=True):
        place_text(figure, name, _GAP, top, grey=True)
        for column, tile in enumerate(tiles):
            place_image(figure, tile, _GAP + column * (_TILE + _GAP), top + _CAPTION, _TILE, tile.shape[0])
        top += height
    return figure


def _tiles(lr: Pixels, hr: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    height, width = hr.shape[:2]
    enlarged = cv2.resize(lr, (width, height), interpolation=cv2.INTER_CUBIC)
    difference = 128 + _GAIN * (hr.astype(np.int16) - enlarged)
    return _shrunk(np.asarray(enlarged, np.uint8)), _shrunk(hr), _shrunk(np.clip(difference, 0, 255).astype(np.uint8))


def _shrunk(image: Pixels) -> Pixels:
    """Resizes an image to the width of a tile; at most twice as tall."""
    height = min(max(round(image.shape[0] * _TILE / image.shape[1]), 1), 2 * _TILE)
    method = cv2.INTER_AREA if image.shape[1] >= _TILE else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(image, (_TILE, height), interpolation=method), np.uint8)
