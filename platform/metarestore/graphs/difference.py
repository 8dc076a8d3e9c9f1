"""Differences between relations, in units of their standard errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metarestore.graphs.relations import Relations
from metarestore.graphs.reliability import rank_correlation

Floats = NDArray[np.float64]

SIGNIFICANT = 2.0
"""Number of standard errors above which a difference is significant (about 95%)."""


def separation(values: Floats, errors: Floats, others: Floats, other_errors: Floats) -> Floats:
    """Returns differences over their standard errors √(σ² + σ′²); NaN where an error is not defined.

    The errors of relations from the same shots are correlated, so this underestimates differences within one estimate.
    """
    differences = values - others
    spread = np.hypot(errors, other_errors)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = differences / spread
    return np.asarray(np.where((differences == 0) & (spread == 0), 0.0, ratio))


@dataclass(frozen=True)
class RelationDifference:
    """The difference of two relation graphs over their n common auxiliary distributions.

    Attributes:
        targets: The two targets; they may be the same.
        names: The n distributions.
        values: Relations in the first and in the second, (2, n).
        errors: Their standard errors, (2, n).
        weights: Gradient weights, (2, n).
        separations: Second minus first over the standard error of the difference, (n,); NaN where not defined.
        missing: Distributions that are missing from the second graph, and those missing from the first.
    """

    targets: tuple[str, str]
    names: tuple[str, ...]
    values: Floats
    errors: Floats
    weights: Floats
    separations: Floats
    missing: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def significant(self) -> tuple[str, ...]:
        """Names of the distributions whose relations differ significantly."""
        return tuple(n for n, z in zip(self.names, self.separations, strict=True) if abs(z) > SIGNIFICANT)

    @property
    def rank_correlation(self) -> float:
        """Spearman's rank correlation of the relations; NaN for fewer than three."""
        return rank_correlation(self.values[0], self.values[1])

    @property
    def weight_correlation(self) -> float:
        """Spearman's rank correlation of the weights; NaN for fewer than three."""
        return rank_correlation(self.weights[0], self.weights[1])


def relation_difference(
    first: Relations, first_weights: Mapping[str, float], second: Relations, second_weights: Mapping[str, float]
) -> RelationDifference:
    """Compares two sets of relations over their common distributions, in the order of the first."""
    names = tuple(name for name in first.auxiliary if name in second.auxiliary)
    rows = [[relations.auxiliary.index(name) for name in names] for relations in (first, second)]
    values = np.stack([first.values[rows[0]], second.values[rows[1]]])
    errors = np.stack([first.standard_errors[rows[0]], second.standard_errors[rows[1]]])
    return RelationDifference(
        targets=(first.target, second.target),
        names=names,
        values=values,
        errors=errors,
        weights=np.asarray([[weights[name] for name in names] for weights in (first_weights, second_weights)]),
        separations=separation(values[1], errors[1], values[0], errors[0]),
        missing=(
            tuple(name for name in first.auxiliary if name not in names),
            tuple(name for name in second.auxiliary if name not in names),
        ),
    )
