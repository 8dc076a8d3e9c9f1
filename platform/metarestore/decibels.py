"""Peak signal-to-noise ratio, limited to finite values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

CAP = 100.0
"""Upper limit of PSNR in dB, used for images without error, whose PSNR is infinite."""
FLOOR = 0.0
"""Lower limit of PSNR in dB, used for images whose error reaches the peak or that have NaN pixels."""


def decibels(mse: ArrayLike, peak: float = 1.0) -> NDArray[np.float64]:
    """Converts mean squared errors to PSNR in dB, from `FLOOR` to `CAP`.

    Means over images that may be restored exactly (e.g. black ones) then remain finite, and an exact restoration still
    ranks first. To pool values, e.g. over crops of a photograph, average the squared errors before this call.

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
