"""Pictures of what was restored from one photograph: before and after, and the kernel that was estimated."""

from __future__ import annotations

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarestore.degradations.kernels import Kernel
from metarestore.reports.pictures import Pixels, pixel_figure, place_image, place_text, wrapped
from metarestore.reports.style import house_style

_TILE, _GAP, _TOP, _NOTES = 360, 12, 36, 54
_KERNEL = 240


@house_style
def kernel_figure(kernel: Kernel, title: str, note: str) -> Figure:
    """Draws a kernel (K, K), pixel by pixel: black is 0, white its largest weight."""
    lines = wrapped(note, _KERNEL, 8)
    figure = pixel_figure(_KERNEL + 2 * _GAP, _TOP + _KERNEL + 20 + 16 * len(lines))
    place_text(figure, title, _GAP, 10, size=9, bold=True)
    place_image(figure, kernel_picture(kernel), _GAP, _TOP, _KERNEL, _KERNEL)
    place_text(figure, "\n".join(lines), _GAP, _TOP + _KERNEL + 8, size=8, grey=True)
    return figure


@house_style
def restoration_sheet(before: Pixels, after: Pixels, kernel: Kernel, title: str, note: str) -> Figure:
    """Shows the middle of a photograph, enlarged bicubically and restored, and the kernel.

    Args:
        before: The photograph, 8-bit RGB (h, w, 3).
        after: The same restored, 8-bit RGB (s·h, s·w, 3).
        kernel: The kernel that it was restored with.
        title: What stands above.
        note: What stands below the kernel.
    """
    enlarged: Pixels = np.asarray(cv2.resize(before, after.shape[1::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
    figure = pixel_figure(3 * _TILE + 4 * _GAP, _TOP + _TILE + _NOTES + 16)
    place_text(figure, title, _GAP, 10, size=10, bold=True)
    notes = ("enlarged bicubically", "restored from itself", note)
    for column, (picture, text) in enumerate(
        zip((_middle(enlarged), _middle(after), kernel_picture(kernel)), notes, strict=True)
    ):
        left = _GAP + column * (_TILE + _GAP)
        height, width = _fitted(picture)
        place_image(figure, picture, left, _TOP, width, height)
        place_text(figure, "\n".join(wrapped(text, _TILE, 8)[:3]), left, _TOP + _TILE + 6, size=8, grey=True)
    return figure


def kernel_picture(kernel: Kernel) -> Pixels:
    """Shows the weights of a kernel (K, K) as gray levels (K, K, 3): 0 is black, the largest weight is white."""
    levels = 255 * np.clip(kernel / max(float(kernel.max()), 1e-12), 0, 1)
    return np.asarray(np.repeat(levels[..., None], 3, axis=-1).round(), dtype=np.uint8)


def eight_bit(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> Pixels:
    """Shows any photograph as 8-bit RGB (h, w, 3), without its alpha."""
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    colours = planes[..., :1].repeat(3, axis=2) if planes.shape[2] < 3 else planes[..., :3]
    return colours.view(np.uint8) if colours.dtype == np.uint8 else np.asarray(colours // 257, dtype=np.uint8)


def _middle(image: Pixels) -> Pixels:
    height, width = image.shape[:2]
    top, left = max(height - _TILE, 0) // 2, max(width - _TILE, 0) // 2
    return image[top : top + _TILE, left : left + _TILE]


def _fitted(image: Pixels) -> tuple[int, int]:
    """Returns height and width of an image in a tile: the largest whole multiple that fits, at least its own size."""
    factor = max(_TILE // max(image.shape[:2]), 1)
    return image.shape[0] * factor, image.shape[1] * factor
