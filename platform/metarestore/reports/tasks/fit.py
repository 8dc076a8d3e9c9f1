"""The figure of a fitted camera: each pair's kernel, and its LR beside the LR synthesised from HR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarestore.fitting.alignment import bicubic_lr
from metarestore.fitting.camera import CameraFit, PairFit
from metarestore.fitting.equations import border
from metarestore.fitting.kernel import synthesise
from metarestore.fitting.pairs import Floats, Pair, list_pairs, read_pair
from metarestore.reports.pictures import pixel_figure, place_image, place_text, wrapped
from metarestore.reports.style import house_style
from metarestore.tasks.pair_files import PairFolder

Pixels = NDArray[np.uint8]

_TILE = 192
_GAP = 8
_NOTES = 36
_TITLE = 40
_ERROR_GAIN = 8
"""Gain of the displayed differences of LR images."""
_HEADINGS = (
    "HR",
    "camera LR",
    "synthesised: fitted",
    "bicubic",
    "error, fitted ×8",
    "error, bicubic ×8",
    "kernel",
)


@house_style
def fit_figure(fit: CameraFit, pairs: Path | PairFolder, most: int = 6) -> Figure:
    """Draws the first pairs of a fitted camera, one row for each.

    Args:
        fit: The fit.
        pairs: Location of the pairs that it was fitted to.
        most: Maximum number of rows.

    Raises:
        UserError: An image cannot be read.
    """
    files = {each.name: each for each in list_pairs(pairs)}
    shown = [each for each in fit.pairs if each.name in files][:most]
    width = _GAP + len(_HEADINGS) * (_TILE + _GAP)
    title = wrapped(_title(fit, len(shown)), width - 2 * _GAP, 10)
    top = _TITLE + 16 * len(title)
    figure = pixel_figure(width, top + len(shown) * (_TILE + _NOTES))
    place_text(figure, "\n".join(title), _GAP, 8, size=10)
    for column, heading in enumerate(_HEADINGS):
        place_text(figure, heading, _left(column), top - 20, size=9, bold=True)
    for row, each in enumerate(shown):
        _draw_row(figure, each, read_pair(files[each.name]), top + row * (_TILE + _NOTES))
    return figure


def kernel_picture(kernel: Floats) -> Pixels:
    """Converts a kernel (K, K) to gray levels (K, K, 3); 0 is mid-gray, so that negative values are visible."""
    levels = 128 + 127 * kernel / max(float(np.abs(kernel).max()), 1e-12)
    return _pixels(np.repeat(levels[..., None], 3, axis=-1))


def _title(fit: CameraFit, shown: int) -> str:
    some = f" (the first {shown})" if shown < len(fit.pairs) else ""
    sigma = fit.figure(lambda pair: pair.gaussian.sigma)
    blur = f"blur σ {sigma.low:.2f} to {sigma.high:.2f} HR pixels"
    return f"{fit.source}: {len(fit.pairs)} pairs{some}, x{fit.scale}; {blur}"


def _draw_row(figure: Figure, fit: PairFit, pair: Pair, top: int) -> None:
    tiles = _tiles(fit, pair)
    down, right = fit.gaussian.centre
    notes = (
        fit.name,
        f"noise σ {fit.noise.sigma:.2f}, JPEG {fit.jpeg.quality or 'none'}",
        f"{fit.psnr_fitted:.2f} dB",
        f"{fit.psnr_bicubic:.2f} dB",
        "",
        "",
        f"σ {fit.gaussian.sigma:.2f}, centre {down:+.2f} {right:+.2f}",
    )
    for column, (tile, note) in enumerate(zip(tiles, notes, strict=True)):
        place_image(figure, tile, _left(column), top, _TILE, _TILE)
        place_text(figure, note, _left(column), top + _TILE + 4, size=8, grey=True)


def _tiles(fit: PairFit, pair: Pair) -> Sequence[Pixels]:
    """Returns the tiles of a row, which show the same region."""
    edge = border(pair.scale)
    fitted = fit.colour.apply(synthesise(pair.hr, fit.kernel, pair.scale))
    bicubic = bicubic_lr(pair)
    rows, columns = (_middle(side, edge) for side in pair.lr.shape[:2])
    lr, synthesised, plain = (_pixels(image[rows, columns]) for image in (pair.lr, fitted, bicubic))
    hr = pair.hr[_times(rows, pair.scale), _times(columns, pair.scale)]
    errors = (_pixels(128 + _ERROR_GAIN * (image - pair.lr)[rows, columns]) for image in (fitted, bicubic))
    return (_pixels(hr), lr, synthesised, plain, *errors, kernel_picture(fit.kernel))


def _middle(side: int, edge: int) -> slice:
    """Returns the central range of an LR side, without the border of the kernel, small enough for a tile."""
    length = min(side - 2 * edge, _TILE // 2)
    return slice((side - length) // 2, (side - length) // 2 + length)


def _times(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)


def _left(column: int) -> int:
    return _GAP + column * (_TILE + _GAP)


def _pixels(image: Floats) -> Pixels:
    return cv2.convertScaleAbs(np.clip(image, 0, 255)).astype(np.uint8)
