"""Statistics over pairs without outliers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FAR = 3.0
"""Number of robust standard deviations from the median beyond which a pair is an outlier."""
_ENOUGH = 4
"""Minimum number of pairs for the detection of outliers."""


@dataclass(frozen=True)
class Spread:
    """Statistics of a quantity over pairs.

    Attributes:
        low: Minimum.
        high: Maximum.
        mean: Mean.
        std: Standard deviation over pairs; nan for a single one.
        count: Number of pairs without outliers.
        left_out: Number of outliers.
    """

    low: float
    high: float
    mean: float
    std: float
    count: int
    left_out: int


def together(values: Sequence[float]) -> NDArray[np.bool_]:
    """Returns which values are not outliers: within 3 robust standard deviations of the median.

    Source: Hampel, The Influence Curve and Its Role in Robust Estimation (1974), for the median deviation.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < _ENOUGH:
        return np.ones(len(numbers), dtype=np.bool_)
    away = np.abs(numbers - np.median(numbers))
    # A deviation of 0 (most values equal) would make all other values outliers.
    scale = max(1.4826 * float(np.median(away)), 0.02 * abs(float(np.median(numbers))), 1e-9)
    return np.asarray(away <= _FAR * scale)


def spread(values: Sequence[float]) -> Spread:
    """Summarises one value or several.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("there are no values to summarise")
    kept = np.asarray(values, dtype=np.float64)[together(values)]
    std = float(kept.std(ddof=1)) if len(kept) > 1 else math.nan
    return Spread(float(kept.min()), float(kept.max()), float(kept.mean()), std, len(kept), len(values) - len(kept))
