"""How sure an estimate is: jackknife errors and split-half reliability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

Floats = NDArray[np.float64]


def jackknife_error(replicates: Sequence[Floats], count: int) -> Floats:
    """Returns the jackknife standard error (N,) from estimates that each leave one group out.

    Args:
        replicates: G estimates (N,), each without one of G groups of equal size.
        count: N; fewer than two replicates give NaN for each.

    Source: Efron and Stein, The jackknife estimate of variance (1981).
    """
    groups = len(replicates)
    if groups < 2:
        return np.full(count, np.nan)
    stacked = np.stack(replicates)
    return np.asarray(np.sqrt((groups - 1) / groups * np.square(stacked - stacked.mean(axis=0)).sum(axis=0)))


def rank_correlation(a: Floats, b: Floats) -> float:
    """Returns Spearman's rank correlation; NaN for fewer than three values or constant ones."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
