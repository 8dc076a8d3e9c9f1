"""Figures of images with pixel-exact placement and labels; enlarged images are not interpolated."""

from __future__ import annotations

import io
import math
import textwrap
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarestore.errors import UserError
from metarestore.evaluation.results import Example
from metarestore.files import write_atomically
from metarestore.reports.fonts import number_what_no_font_has
from metarestore.reports.style import GREY, house_style

Pixels = NDArray[np.uint8]

DPI = 100
"""Pixels per inch in figures of images."""
_LETTER = 0.0086
"""Minimum width of a character of 1 pt in inches, used to wrap captions."""
_TILE = 180
"""Minimum width of a tile in pixels, so that its label fits."""
_GAP = 8


def pixel_figure(width: int, height: int) -> Figure:
    """Returns an empty figure of the given size in pixels."""
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI)


def place_image(figure: Figure, image: Pixels, left: int, top: int, width: int, height: int) -> None:
    """Draws an image (H, W, 3) into a box of a figure, in pixels from the top left; enlarged pixels stay sharp."""
    total_width, total_height = figure.get_size_inches() * DPI
    box = (left / total_width, 1 - (top + height) / total_height, width / total_width, height / total_height)
    axes = figure.add_axes(box)
    axes.set_axis_off()
    enlarged = width >= image.shape[1] and height >= image.shape[0]
    axes.imshow(image, interpolation="nearest" if enlarged else "antialiased", aspect="auto")


def place_text(
    figure: Figure, text: str, left: int, top: int, *, size: float = 9, bold: bool = False, grey: bool = False
) -> None:
    """Draws text with its top left corner at the given pixel."""
    width, height = figure.get_size_inches() * DPI
    weight, colour = "bold" if bold else "normal", GREY if grey else "black"
    figure.text(left / width, 1 - top / height, text, va="top", fontsize=size, fontweight=weight, color=colour)


def wrapped(text: str, width: int, size: float) -> list[str]:
    """Wraps text into lines of at most `width` pixels at `size` points."""
    return textwrap.wrap(text, max(8, int(width / DPI / (_LETTER * size)))) or [""]


@house_style
def before_after(example: Example, zoom: int = 1) -> Figure:
    """Draws one example as a strip of LR, restorations with their PSNR-Y, and ground truth.

    Args:
        example: The images.
        zoom: Enlargement factor; small crops are enlarged further, until labels fit.
    """
    height, width = example.hr.shape[:2]
    zoom = max(zoom, math.ceil(_TILE / width))
    tiles = {**example.images, "HR": example.hr}
    total = len(tiles) * (width * zoom + _GAP) + _GAP
    caption = wrapped(example.caption, total - 2 * _GAP, 10)
    top = 8 + 16 * len(caption)
    figure = pixel_figure(total, top + 44 + height * zoom + _GAP)
    place_text(figure, "\n".join(caption), _GAP, 6, size=10)
    longest = max(len(label) for label in tiles)
    size = min(9.0, width * zoom / DPI / (_LETTER * longest))
    for index, (label, image) in enumerate(tiles.items()):
        left = _GAP + index * (width * zoom + _GAP)
        place_text(figure, label, left, top + 6, size=size, bold=True)
        place_text(figure, tile_note(example, label), left, top + 24, size=8, grey=True)
        place_image(figure, image, left, top + 44, width * zoom, height * zoom)
    return figure


def tile_note(example: Example, label: str) -> str:
    """Returns the text below a tile's label: its PSNR-Y, or a description."""
    if label in example.psnr_y:
        return f"{example.psnr_y[label]:.2f} dB PSNR-Y"
    return "ground truth" if label == "HR" else "not interpolated" if label == "LR" else ""


def png_bytes(image: Pixels) -> bytes:
    """Encodes an RGB image (H, W, 3) as PNG."""
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    return encoded.tobytes()


def save_png(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, and creates its folder if needed.

    Raises:
        UserError: The file is not writable, or its name does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: figures are written as PNG; choose a name that ends in .png")
    number_what_no_font_has(figure)
    buffer = io.BytesIO()
    # A figure of images keeps its pixels; other figures get a resolution for high-density screens.
    figure.savefig(buffer, format="png", dpi="figure" if figure.dpi == DPI and not _has_layout(figure) else 150)
    write_atomically(path, buffer.getvalue())


def _has_layout(figure: Figure) -> bool:
    return figure.get_layout_engine() is not None
