"""Finds what differs between LR and an aligned HR, such as moved objects."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from metarestore.registration.compare import blurred

_SMOOTH = 1.0
"""Blur of the differences in LR pixels, which removes most of the noise."""
_SHADING, _SHADED = 24.0, 8.0
"""Differences of up to 8 grey levels that vary over more than 24 LR pixels are shading, not content."""
_LEAST = 12.0
"""Difference in grey levels below which nothing counts as moved."""
_NOISE = 6.0
"""The same as a multiple of the median difference."""
_EDGE = 0.45
"""Shift in LR pixels by which an edge may remain displaced or blurred."""
_SMALLEST = 10
"""Number of connected LR pixels below which a difference is ignored."""
_GROWN = 2
"""LR pixels around a moved object that are masked too: its edge is blurred."""


def differs(
    lr: NDArray[np.float32], high: NDArray[np.float32], known: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Returns where LR and HR show different content, (h, w).

    A difference counts if it exceeds what noise, and blur or a small shift at the strongest gradient nearby, explain.

    Args:
        lr: LR image (h, w, 3) in grey levels.
        high: Aligned HR of the same exposure, reduced to the size and the sharpness of LR.
        known: Pixels that may be compared; if omitted, all.
    """
    error = lr - high
    error = blurred(error - blurred(np.clip(error, -_SHADED, _SHADED), _SHADING), _SMOOTH)
    size = np.abs(error).max(axis=-1)
    inside = np.ones(size.shape, np.bool_) if known is None else known
    tolerance = max(_LEAST, _NOISE * float(np.median(size[inside]))) + _EDGE * _steepness(high)
    strong = ((size > tolerance) & inside).astype(np.uint8)
    strong = cv2.morphologyEx(strong, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    likely = ((size > 0.4 * tolerance) & inside).astype(np.uint8)
    found = _large_parts(likely, strong)
    side = 2 * _GROWN + 1
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    closed = cv2.morphologyEx(found, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return np.asarray(cv2.dilate(closed, ellipse) > 0)


def _steepness(high: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the largest gradient of any channel nearby, in grey levels per LR pixel."""
    steps = [np.hypot(*np.gradient(high[..., channel])) for channel in range(high.shape[-1])]
    return np.asarray(cv2.dilate(np.max(steps, axis=0).astype(np.float32), np.ones((5, 5), np.uint8)))


def _large_parts(likely: NDArray[np.generic], strong: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Returns the connected parts of `likely` with enough strong pixels."""
    _, labels = cv2.connectedComponents(np.asarray(likely, np.uint8))
    counts = np.bincount(labels[np.asarray(strong) > 0], minlength=int(labels.max()) + 1)
    counts[0] = 0
    return np.asarray((counts >= _SMALLEST)[labels], np.uint8)
