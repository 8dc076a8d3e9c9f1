"""Compares features of the target's shots with features of draws of the auxiliary distributions on the same shots.

Features may be degradation responses or descriptors. Each distribution is modelled by a density over features, and each
shot is soft-assigned to the densities that explain it. Shots are assigned one by one, so that a target that mixes
several degradations is related to each of them, and not to one wide distribution that covers them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from metarestore.graphs.relations import Relations
from metarestore.graphs.reliability import bootstrap_error, jackknife_error, rank_correlation

Floats = NDArray[np.float64]

_SHRINKAGE = 0.1
"""Shrinkage of the pooled correlation of features towards the identity, so that it can be inverted."""

_FREEDOM = 4.0
"""Degrees of freedom of the densities: heavy tails, because no real camera matches a distribution exactly."""

_BROAD = 4.0
"""Factor of the covariance of the density of 'none of them' relative to that of all auxiliary draws."""


@dataclass(frozen=True)
class Comparison:
    """Relations of a target to N distributions.

    Attributes:
        values: Relations, (N,), in −1..1: 1 if the target matches only this distribution, 0 if it is as distant as two
            auxiliary distributions typically are from each other, towards −1 for larger distances.
        standard_errors: Combined jackknife error over shots (if there are several) and bootstrap error over draws,
            (N,).
        reliability: Rank correlation of the values from the even and from the odd shots; NaN for one shot.
        matrix: Relations among the distributions and the target (last), (N+1, N+1), symmetric, ones on the diagonal.
    """

    values: Floats
    standard_errors: Floats
    reliability: float
    matrix: Floats

    def relations(self, target: str, auxiliary: tuple[str, ...], estimator: str, draws: int) -> Relations:
        """Returns the comparison as relations between named distributions."""
        return Relations(
            target, auxiliary, self.values, self.standard_errors, estimator, draws, self.reliability, self.matrix
        )


def compare(target: Floats, auxiliary: Floats, seed: int) -> Comparison:
    """Relates a target's shots to auxiliary distributions.

    Args:
        target: Features of each of the target's K shots, (K, F), finite.
        auxiliary: Features of the draws of N distributions on the clean images of the same shots, (N, draws, K, F).
        seed: Seed of the bootstrap.
    """
    axes = Axes.fit(auxiliary)
    shots, draws = axes.of(target), axes.of(auxiliary)
    densities = Densities.fit(draws)
    between = _between(densities, draws)
    typical = _typical(between)
    values = _relation(distances(densities.log(shots)), typical)
    errors = _errors(shots, draws, typical, seed)
    return Comparison(values, errors, _split_half(target, auxiliary, typical), _matrix(between, values))


@dataclass(frozen=True)
class Axes:
    """Directions in feature space that separate the distributions: regularised linear discriminant analysis.

    Attributes:
        centre: Mean over all draws of all distributions for each shot, (K, F): the effect of the shot's content.
        projection: (F, A), A = min(N − 1, F), at least 1; scaled so that draws of one distribution have standard
            deviation 1 along each axis.

    Source: Fisher, The use of multiple measurements in taxonomic problems (1936); Friedman, Regularized discriminant
    analysis (1989).
    """

    centre: Floats
    projection: Floats

    @classmethod
    def fit(cls, auxiliary: Floats) -> Axes:
        """Fits the axes to draws (N, draws, K, F)."""
        centre = auxiliary.mean(axis=(0, 1))
        centred = auxiliary - centre
        count, _, _, features = centred.shape
        means = centred.mean(axis=(1, 2))
        inner = (centred - means[:, None, None]).reshape(-1, features)
        spread = np.sqrt(np.square(inner).mean(axis=0))
        # Features that differ between distributions but not between draws get a minimum spread, to limit their
        # influence.
        spread = np.maximum(spread, 1e-3 * np.sqrt(np.square(means).mean(axis=0)))
        spread = np.where(spread > 1e-6 * (np.abs(centred).max(axis=(0, 1, 2)) + 1e-12), spread, np.inf)
        scaled = inner / spread
        pooled = (1 - _SHRINKAGE) * scaled.T @ scaled / len(scaled) + _SHRINKAGE * np.eye(features)
        power, vectors = np.linalg.eigh(pooled)
        whitening = vectors / np.sqrt(power) / spread[:, None]
        between = (means - means.mean(axis=0)) @ whitening
        directions = np.linalg.svd(between)[2][: max(1, min(count - 1, features))]
        return cls(centre, whitening @ directions.T)

    def of(self, features: Floats) -> Floats:
        """Projects features (..., K, F) to coordinates along the axes (..., K, A)."""
        return np.asarray((features - self.centre) @ self.projection)


@dataclass(frozen=True)
class Densities:
    """Multivariate t densities of N distributions over A axes, and a broad one (last) for shots that match none.

    Attributes:
        means: (N+1, A).
        factors: Inverse Cholesky factors of the scale matrices, (N+1, A, A).

    The broad density has the heaviest tails, so that it explains distant shots best.
    """

    means: Floats
    factors: Floats

    @classmethod
    def fit(cls, draws: Floats) -> Densities:
        """Fits the densities to coordinates (N, draws, K, A).

        Each covariance is shrunk towards the pooled one, more strongly for fewer samples.
        """
        axes = draws.shape[-1]
        points = draws.reshape(len(draws), -1, axes)
        own = np.stack([_covariance(sample) for sample in points])
        weight = axes / (axes + points.shape[1])
        shrunk = (1 - weight) * own + weight * (own.mean(axis=0) + 1e-3 * np.eye(axes))
        every = points.reshape(-1, axes)
        scales = np.concatenate([shrunk, _BROAD * (_covariance(every) + 1e-3 * np.eye(axes))[None]])
        means = np.concatenate([points.mean(axis=1), every.mean(axis=0)[None]])
        return cls(means, np.linalg.inv(np.linalg.cholesky(scales + 1e-9 * np.eye(axes))))

    def log(self, points: Floats) -> Floats:
        """Returns the log densities (P, N+1) of points (P, A), up to a common constant."""
        axes = points.shape[-1]
        away = np.einsum("nab,pnb->pna", self.factors, points[:, None] - self.means)
        peak = np.log(np.abs(np.diagonal(self.factors, axis1=1, axis2=2))).sum(axis=1)
        freedom = np.full(len(self.means), _FREEDOM)
        freedom[-1] = 1.0
        peak += gammaln((freedom + axes) / 2) - gammaln(freedom / 2) - axes / 2 * np.log(freedom)
        return np.asarray(peak - (freedom + axes) / 2 * np.log1p(np.square(away).sum(axis=-1) / freedom))


def _covariance(sample: Floats) -> Floats:
    centred = sample - sample.mean(axis=0)
    return np.asarray(centred.T @ centred / max(1, len(sample) - 1))


def distances(log: Floats) -> Floats:
    """Returns the distance of a set of shots from each distribution: −log of its mean posterior probability.

    Args:
        log: Log densities of the shots under the N distributions and under 'none of them' (last), (K, N+1).

    Returns:
        (N,), in nats, non-negative: 0 if only this distribution explains every shot, log 2 for each of two that explain
        them equally well, and about the log-likelihood ratio to the best distribution if it explains none. The prior is
        uniform.

    Source of the component for shots that match no distribution: Banfield and Raftery, Model-based Gaussian and
    non-Gaussian clustering (1993).
    """
    posterior = log - logsumexp(log, axis=1, keepdims=True)
    return np.asarray(np.maximum(np.log(len(log)) - logsumexp(posterior, axis=0)[:-1], 0.0))


def _relation(distance: Floats, typical: float) -> Floats:
    return np.asarray((typical - distance) / (typical + distance + 1e-12))


def _between(densities: Densities, draws: Floats) -> Floats:
    """Returns the symmetrised distances (N, N) of the draws of each of N distributions from the others."""
    rows = np.stack([distances(densities.log(own.reshape(-1, draws.shape[-1]))) for own in draws])
    return np.asarray((rows + rows.T) / 2)


def _typical(between: Floats) -> float:
    """Returns the mean distance between different distributions; 1 for a single distribution."""
    upper = np.triu_indices(len(between), 1)
    return float(between[upper].mean()) if len(between) > 1 else 1.0


def _matrix(between: Floats, values: Floats) -> Floats:
    """Assembles the relation matrix (N+1, N+1) of N distributions and the target (last)."""
    count = len(values)
    matrix = np.ones((count + 1, count + 1))
    matrix[:count, :count] = _relation(between, _typical(between))
    matrix[count, :count] = matrix[:count, count] = values
    np.fill_diagonal(matrix, 1.0)
    return matrix


def _values(shots: Floats, draws: Floats, typical: float) -> Floats:
    return _relation(distances(Densities.fit(draws).log(shots)), typical)


def _errors(shots: Floats, draws: Floats, typical: float, seed: int) -> Floats:
    """Combines the jackknife error over shots and the bootstrap error over draws, for fixed axes."""
    over_draws = bootstrap_error(lambda drawn: _values(shots, draws[:, drawn], typical), draws.shape[1], seed)
    if len(shots) < 2:
        return over_draws
    without = [_values(np.delete(shots, k, 0), np.delete(draws, k, 2), typical) for k in range(len(shots))]
    return np.asarray(np.hypot(jackknife_error(without, len(draws)), over_draws))


def _split_half(target: Floats, auxiliary: Floats, typical: float) -> float:
    """Returns the rank correlation between the relations of even and of odd shots, each with their own axes."""
    if len(target) < 2:
        return float("nan")
    halves = []
    for k in (0, 1):
        axes = Axes.fit(auxiliary[:, :, k::2])
        halves.append(_values(axes.of(target[k::2]), axes.of(auxiliary[:, :, k::2]), typical))
    return rank_correlation(halves[0], halves[1])
