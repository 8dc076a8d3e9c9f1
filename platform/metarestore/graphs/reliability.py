"""Uncertainty of an estimate: standard errors by resampling, and rank correlation for split-half reliability."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from metarestore.seeds import generator

Floats = NDArray[np.float64]

_RESAMPLES = 100
"""Number of bootstrap resamples: enough to determine a standard error to about 10%."""


def jackknife_error(replicates: Sequence[Floats], count: int) -> Floats:
    """Returns the jackknife standard error (N,) from leave-one-group-out estimates.

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


def bootstrap_error(estimate: Callable[[NDArray[np.int64]], Floats], draws: int, seed: int) -> Floats:
    """Returns the bootstrap standard error (N,) of an estimate over draws; suitable for estimates that are not smooth.

    Args:
        estimate: Maps indices of draws (draws,), with repetitions, to an estimate (N,).
        draws: Number of draws.
        seed: Seed of the resampling.

    Source: Efron, Bootstrap methods: another look at the jackknife (1979).
    """
    rng = generator(seed, "bootstrap")
    replicates = [estimate(rng.integers(0, draws, draws)) for _ in range(_RESAMPLES)]
    return np.asarray(np.std(replicates, axis=0, ddof=1))


def rank_correlation(a: Floats, b: Floats) -> float:
    """Returns Spearman's rank correlation; NaN for fewer than three values or constant ones."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
