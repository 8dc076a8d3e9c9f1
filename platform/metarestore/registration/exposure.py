"""Matches the exposure and the colours of HR to those of LR."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metarestore.registration.compare import blurred
from metarestore.registration.motion import Floats

_SIGMA = 4.0
"""Blur of both images before their colours are compared, in LR pixels: it removes the influence of noise, sharpness and
small misalignments, all of which lower the gain of a least-squares fit."""
_DARK, _BRIGHT = 3.0, 250.0
_ROUNDS = 3
_LEAST_CONTRAST = 2.0
"""Standard deviation of a blurred channel in grey levels, below which only its mean is matched."""
_GAINS = (0.4, 2.5)


@dataclass(frozen=True)
class Exposure:
    """An affine map of the channels from HR to LR, value → gain · value + offset, on encoded values.

    Attributes:
        gains: Gain of R, G, B.
        offsets: Offset of R, G, B in grey levels.
    """

    gains: tuple[float, ...]
    offsets: tuple[float, ...]

    def apply(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the recoloured image (..., 3), not clipped."""
        return np.asarray(image * np.array(self.gains, np.float32) + np.array(self.offsets, np.float32), np.float32)


def match_exposure(
    lr: NDArray[np.float32], high: NDArray[np.float32], usable: NDArray[np.bool_] | None = None
) -> Exposure:
    """Fits gain and offset of each channel, without saturated pixels and outliers.

    The slope is the ratio of standard deviations, because neither image is free of errors.

    Args:
        lr: LR image (h, w, 3) in grey levels.
        high: HR, reduced to the size of LR.
        usable: Pixels to use; if omitted, all.
    """
    known = np.ones(lr.shape[:2], np.bool_) if usable is None else usable
    low, other = blurred(lr, _SIGMA), blurred(high, _SIGMA)
    lines = [_line(low[..., c][known], other[..., c][known]) for c in range(3)]
    return Exposure(tuple(gain for gain, _ in lines), tuple(offset for _, offset in lines))


def _line(low: NDArray[np.float32], high: NDArray[np.float32]) -> tuple[float, float]:
    x, y = high.astype(np.float64), low.astype(np.float64)
    inside = (np.minimum(x, y) > _DARK) & (np.maximum(x, y) < _BRIGHT)
    if inside.mean() > 0.1:
        x, y = x[inside], y[inside]
    if not x.size:
        return 1.0, 0.0
    kept = np.ones(x.shape, np.bool_)
    gain, offset = 1.0, float(np.median(y - x))
    for _ in range(_ROUNDS):
        gain, offset = _fitted(x[kept], y[kept])
        error = np.abs(y - gain * x - offset)
        kept = error <= max(3 * 1.4826 * float(np.median(error)), 0.5)
    return gain, offset


def _fitted(x: Floats, y: Floats) -> tuple[float, float]:
    clear = min(float(x.std()), float(y.std())) >= _LEAST_CONTRAST
    gain = float(np.clip(y.std() / x.std(), *_GAINS)) if clear else 1.0
    return gain, float(y.mean() - gain * x.mean())
