"""The mean colour of restored photographs, compared with that of bicubic upscaling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarestore.degradations.resample import bicubic_upsample
from metarestore.models.restore import STRIP, to_image

COLOUR_BOUND = 0.5
"""Grey levels of 0..255 by which the mean of each channel of a restored photograph may differ from that of bicubic
upscaling before a warning is printed."""

_MARGIN = 2
"""Radius of the bicubic kernel in LR pixels."""

Means = NDArray[np.float64]


class MeanColour:
    """Accumulates the mean of each colour channel over the rows of a picture, in grey levels of 0..255."""

    def __init__(self) -> None:
        self._sum: Any = 0.0
        self._count = 0

    def add(self, rows: NDArray[Any]) -> None:
        """Adds rows (n, w) or (n, w, C), uint8 or uint16; alpha is not counted."""
        levels = _colours(rows)
        peak = np.iinfo(rows.dtype).max
        self._sum = self._sum + levels.sum(axis=(0, 1), dtype=np.float64) * (255 / peak)
        self._count += levels.shape[0] * levels.shape[1]

    def through(self, strips: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Passes on strips, and adds each."""
        for rows in strips:
            self.add(rows)
            yield rows

    @property
    def value(self) -> Means:
        """The mean of each channel, (1,) or (3,)."""
        mean: Means = np.asarray(self._sum / max(self._count, 1))
        return mean


def bicubic_mean(pixels: NDArray[Any], scale: int) -> Means:
    """Returns the mean of each colour channel of a photograph after bicubic upscaling, in grey levels of 0..255.

    Args:
        pixels: (h, w) or (h, w, C), uint8 or uint16.
        scale: Factor of the upscaling.
    """
    colours = _colours(pixels)
    height, width, channels = colours.shape
    rows, total = max(STRIP // width, 1), np.zeros(channels)
    for top in range(0, height, rows):
        first, last = max(top - _MARGIN, 0), min(top + rows + _MARGIN, height)
        part = bicubic_upsample(to_image(colours[first:last]), scale)[0]
        part = part[:, (top - first) * scale :][:, : rows * scale].clamp(0, 1)
        total += part.double().sum(dim=(1, 2)).numpy()
    means: Means = 255 * total / (height * width * scale**2)
    return means


def colour_shift(restored: Means, bicubic: Means) -> float:
    """Returns the largest difference of a channel's mean between a restored photograph and bicubic upscaling."""
    return float(np.abs(restored - bicubic).max())


def _colours(pixels: NDArray[Any]) -> NDArray[Any]:
    """Returns (h, w) or (h, w, C) without alpha, (h, w, 1) or (h, w, 3)."""
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    return planes[..., :-1] if planes.shape[2] in (2, 4) else planes
