"""The peak signal-to-noise ratio as a number that is always finite."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

CAP = 100.0
"""PSNR in dB of images without any error, whose ratio is infinite; nothing is reported above it."""
FLOOR = 0.0
"""PSNR in dB of images whose error reaches the peak or whose pixels are not numbers; nothing is reported below."""


def decibels(mse: ArrayLike, peak: float = 1.0) -> NDArray[np.float64]:
    """Converts mean squared errors to PSNR in dB, from `FLOOR` to `CAP`.

    Means over images that may be restored exactly (flat or black ones) then stay finite, and an exact restoration still
    ranks first. What is pooled, such as the crops of one photograph, is pooled as squared errors before this call.

    Args:
        mse: Mean squared errors of any shape; NaN counts as the largest error.
        peak: Largest value that a pixel can have.

    Example:
        >>> decibels([0.01, 0.0, float("nan")])
        array([ 20., 100.,   0.])
    """
    share = np.nan_to_num(np.asarray(mse, np.float64) / peak**2, nan=1.0, posinf=1.0)
    least = 10.0 ** (-CAP / 10)
    return np.asarray(np.where(share <= least, CAP, -10.0 * np.log10(np.clip(share, least, 1.0)) + 0.0))
