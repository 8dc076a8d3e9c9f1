"""Statistics over photographs: crops of one photograph are not independent, but photographs are.

Therefore crops are averaged within their photograph first (for PSNR their squared errors, before the logarithm), and
errors come from the spread between photographs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from metarestore.seeds import generator

CONFIDENCE = 0.95
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean over photographs.

    Attributes:
        mean: Mean, in the unit of the values.
        standard_error: Standard error of the mean; inf for a single photograph, whose spread is unknown.
        count: Number of photographs.
    """

    mean: float
    standard_error: float
    count: int


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences a − b over photographs.

    Attributes:
        mean: Mean, in the unit of the values.
        standard_error: Standard error of the mean; inf for a single photograph.
        low: Lower end of the two-sided 95% Student-t interval.
        high: Upper end of it.
        count: Number of photographs.
        beyond_noise: Whether the difference is significant: the interval excludes zero.
    """

    mean: float
    standard_error: float
    low: float
    high: float
    count: int
    beyond_noise: bool


def cluster_means(values: ArrayLike, clusters: Sequence[str]) -> NDArray[np.float64]:
    """Averages the crops of each photograph.

    Args:
        values: One value per crop (..., crops).
        clusters: The photograph of each crop.

    Returns:
        One value per photograph (..., photographs), in the order of first appearance in `clusters`.

    Raises:
        ValueError: The numbers of clusters and crops differ, or there are none.

    Example:
        >>> cluster_means([1.0, 3.0, 5.0], ["sea", "sea", "hill"])
        array([2., 5.])
    """
    crops = np.asarray(values, np.float64)
    if not clusters or crops.shape[-1:] != (len(clusters),):
        raise ValueError(f"one cluster per crop is required: got {len(clusters)} for values of shape {crops.shape}")
    labels = np.asarray(clusters)
    return np.stack([crops[..., labels == label].mean(axis=-1) for label in dict.fromkeys(clusters)], axis=-1)


def mean_and_error(values: ArrayLike) -> Estimate:
    """Returns the mean of one value per photograph, and its standard error.

    Raises:
        ValueError: There are no values, or they are not a flat list.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"values must be a flat list of at least one value, got shape {array.shape}")
    count = array.size
    with np.errstate(invalid="ignore"):  # an infinite PSNR has an infinite mean and an undefined spread
        error = float(array.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    return Estimate(float(array.mean()), error, count)


def paired_difference(a: ArrayLike, b: ArrayLike) -> Difference:
    """Compares two methods on the same photographs.

    Args:
        a: One value per photograph.
        b: Values of the other method, for the same photographs in the same order.

    Returns:
        The mean of a − b with its interval. A non-finite value makes the interval undefined (nan), which is never
        significant.

    Raises:
        ValueError: The lists differ in length, or are empty.

    Source: Student's paired t interval, two-sided, `CONFIDENCE` = 0.95.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"values must be paired, got shapes {first.shape} and {second.shape}")
    with np.errstate(invalid="ignore"):
        estimate = mean_and_error(first - second)
    mean, error, count = estimate.mean, estimate.standard_error, estimate.count
    margin = error * float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) if count > 1 else math.inf
    low, high = mean - margin, mean + margin
    return Difference(mean, error, low, high, count, beyond_noise=low > 0 or high < 0)


def crossed_difference(differences: ArrayLike) -> Difference:
    """Compares two methods that were trained several times and always measured on the same photographs.

    Trainings and photographs are both treated as samples: the interval covers new trainings and new photographs.

    Args:
        differences: a − b for each training and photograph, (S, N).

    Returns:
        The mean with its interval; `count` is N. With a single training or photograph the spread is unknown, and the
        interval infinite.

    Raises:
        ValueError: There are no values, or they are not a table.

    Source: two-way random effects: the variance of the mean is at most the sum of those of the means over photographs
        and over trainings (the residual variance is counted twice, so the interval is conservative); degrees of freedom
        by Satterthwaite, An Approximate Distribution of Estimates of Variance Components (1946).
    """
    table = np.asarray(differences, np.float64)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"differences must be a table of trainings and photographs, got shape {table.shape}")
    if min(table.shape) == 1:
        return Difference(float(table.mean()), math.inf, -math.inf, math.inf, table.shape[1], beyond_noise=False)
    return random_effects(table)


def random_effects(differences: ArrayLike, correlations: Sequence[float] | None = None) -> Difference:
    """Returns the mean of a table, all of whose axes are samples, e.g. of trainings, sets of shots and photographs.

    Args:
        differences: One value for each combination, (..., N), the last axis for N photographs.
        correlations: Correlation of the samples along each axis, in [0, 1]; 0 if omitted. Sets of shots that share
            two thirds of their pairs are correlated by 2/3: their spread underestimates that of new sets.

    Returns:
        The mean with its Student-t interval; `count` is N. An axis of one sample, or of samples that are all the same
        (correlation 1), has no known spread: the interval does not cover it. If it is the axis of photographs, the
        interval is infinite.

    Raises:
        ValueError: There are no values, or not one correlation for each axis.

    Source: as for `crossed_difference`; for correlated samples, Nadeau and Bengio, Inference for the Generalization
        Error (2003), corrected resampled t-test: 1/n + r/(1 - r) instead of 1/n.
    """
    table = np.asarray(differences, np.float64)
    if table.ndim == 0 or table.size == 0:
        raise ValueError(f"differences must be a table, got shape {table.shape}")
    related = [0.0] * table.ndim if correlations is None else list(correlations)
    if len(related) != table.ndim:
        raise ValueError(f"one correlation per axis is required: got {len(related)} for shape {table.shape}")
    mean, count = float(table.mean()), table.shape[-1]
    if count == 1:
        return Difference(mean, math.inf, -math.inf, math.inf, count, beyond_noise=False)
    parts = [
        (_variance_of_mean(table, axis, correlation), table.shape[axis] - 1)
        for axis, correlation in enumerate(related)
        if table.shape[axis] > 1 and correlation < 1
    ]
    variance = sum(part for part, _ in parts)
    spent = sum(part**2 / free for part, free in parts)
    freedom = variance**2 / spent if spent > 0 else math.inf
    error = math.sqrt(variance)
    margin = error * float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    low, high = mean - margin, mean + margin
    return Difference(mean, error, low, high, count, beyond_noise=low > 0 or high < 0)


def _variance_of_mean(table: NDArray[np.float64], axis: int, correlation: float) -> float:
    """Returns the variance of the mean over one axis, from the spread of the means of its samples."""
    means = table.mean(axis=tuple(other for other in range(table.ndim) if other != axis))
    weight: float = 1 / table.shape[axis] + correlation / (1 - correlation)
    return float(means.var(ddof=1)) * weight


def bootstrap_difference(differences: ArrayLike, seed: int = 0) -> Difference:
    """Compares two methods as `crossed_difference` does, by resampling trainings and photographs.

    With two or three trainings, resampling underestimates their spread, so the interval is anti-conservative; with one,
    it covers photographs only.

    Args:
        differences: a − b for each training and photograph, (S, N).
        seed: Seed of the resampling.

    Returns:
        The mean with its percentile interval; `standard_error` is the standard deviation over resamples, `count` is N.

    Raises:
        ValueError: There are no values, or they are not a table.

    Source: Owen, The pigeonhole bootstrap (2007): rows and columns are resampled independently.
    """
    table = np.asarray(differences, np.float64)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"differences must be a table of trainings and photographs, got shape {table.shape}")
    trainings, photographs = table.shape
    rng = generator(seed, "bootstrap", trainings, photographs)
    rows = rng.multinomial(trainings, np.full(trainings, 1 / trainings), _RESAMPLES) / trainings
    columns = rng.multinomial(photographs, np.full(photographs, 1 / photographs), _RESAMPLES) / photographs
    means = ((rows @ table) * columns).sum(axis=1)
    low, high = (float(end) for end in np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    if table.size == 1:
        low, high = -math.inf, math.inf  # the spread of a single value is unknown
    return Difference(float(table.mean()), float(means.std()), low, high, photographs, beyond_noise=low > 0 or high < 0)
