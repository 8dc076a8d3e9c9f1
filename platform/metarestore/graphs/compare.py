"""Relates feature vectors of the target's shots to those that draws of the auxiliary distributions give on these shots.

What the features are, is the caller's affair: degradation responses, descriptors. Every distribution becomes a density
over features, and a shot is shared out among the densities that explain it. Shots are shared out one by one, so that a
target which mixes several degradations is related to each of them, and not to a wide distribution that holds them all.
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
"""Share of the diagonal in the pooled correlation of features, which has to be inverted."""

_FREEDOM = 4.0
"""Degrees of freedom of the densities: heavy tails, as no real camera follows one of the distributions exactly."""

_BROAD = 4.0
"""How much wider than all auxiliary draws together the density of 'none of them' is, as a factor on the covariance."""


@dataclass(frozen=True)
class Comparison:
    """How a target relates to N distributions.

    Attributes:
        values: Relations, (N,), in −1..1: 1 for a target that is like the distribution and no other, 0 for one as far
            away as two auxiliary distributions typically are from one another, towards −1 far away.
        standard_errors: Jackknife error over shots (where there are several) and bootstrap error over draws, (N,).
        reliability: Rank correlation of the values from the even and from the odd shots; NaN for one shot.
        matrix: Relations among the distributions and the target (last), (N+1, N+1), symmetric, ones on the diagonal.
    """

    values: Floats
    standard_errors: Floats
    reliability: float
    matrix: Floats

    def relations(self, target: str, auxiliary: tuple[str, ...], estimator: str, draws: int) -> Relations:
        """Names what was compared."""
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
    """The directions in feature space in which the distributions differ: Fisher's discriminant analysis, regularised.

    Attributes:
        centre: Mean over all draws of all distributions for each shot, (K, F): what the shot's content does.
        projection: (F, A), A = min(N − 1, F), at least 1; the draws of one distribution vary by 1 along each axis.

    Source: Fisher, The use of multiple measurements in taxonomic problems (1936); Friedman, Regularized discriminant
    analysis (1989).
    """

    centre: Floats
    projection: Floats

    @classmethod
    def fit(cls, auxiliary: Floats) -> Axes:
        """Finds the axes from draws (N, draws, K, F) alone."""
        centre = auxiliary.mean(axis=(0, 1))
        centred = auxiliary - centre
        count, _, _, features = centred.shape
        means = centred.mean(axis=(1, 2))
        inner = (centred - means[:, None, None]).reshape(-1, features)
        spread = np.sqrt(np.square(inner).mean(axis=0))
        # A feature in which distributions differ, but not their draws, counts as one of which little is known.
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
        """Returns coordinates along the axes, (..., K, A), of features (..., K, F)."""
        return np.asarray((features - self.centre) @ self.projection)


@dataclass(frozen=True)
class Densities:
    """Multivariate t densities of N distributions over A axes, and a broad one (last) for what is like none of them.

    Attributes:
        means: (N+1, A).
        factors: Inverse Cholesky factors of the scale matrices, (N+1, A, A).

    The broad density has the heaviest tails, so that far away nothing explains a shot as well.
    """

    means: Floats
    factors: Floats

    @classmethod
    def fit(cls, draws: Floats) -> Densities:
        """Fits them to coordinates (N, draws, K, A).

        Each covariance is drawn towards the pooled one, the more the fewer its samples.
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
        """Returns the log densities (P, N+1) of points (P, A), up to a constant that all share."""
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
    """Returns how far a set of shots is from each distribution: −log of the distribution's share in explaining it.

    Args:
        log: Log densities of the shots under the N distributions and under 'none of them' (last), (K, N+1).

    Returns:
        (N,), in nats, 0 or more: 0 where a distribution explains every shot and no other does, log 2 for each of two
        that share the shots, and about the log likelihood ratio to the best explanation for one that explains none.
        The share is the mean posterior probability, all being equally likely beforehand.

    Source of the component for what fits no other: Banfield and Raftery, Model-based Gaussian and non-Gaussian
    clustering (1993).
    """
    posterior = log - logsumexp(log, axis=1, keepdims=True)
    return np.asarray(np.maximum(np.log(len(log)) - logsumexp(posterior, axis=0)[:-1], 0.0))


def _relation(distance: Floats, typical: float) -> Floats:
    return np.asarray((typical - distance) / (typical + distance + 1e-12))


def _between(densities: Densities, draws: Floats) -> Floats:
    """Returns the distances between N distributions, (N, N): from the draws of each to the others, both ways."""
    rows = np.stack([distances(densities.log(own.reshape(-1, draws.shape[-1]))) for own in draws])
    return np.asarray((rows + rows.T) / 2)


def _typical(between: Floats) -> float:
    """Returns the mean distance between different distributions; 1 where there is one alone."""
    upper = np.triu_indices(len(between), 1)
    return float(between[upper].mean()) if len(between) > 1 else 1.0


def _matrix(between: Floats, values: Floats) -> Floats:
    """Puts the relations among N distributions and those of the target (last) together, (N+1, N+1)."""
    count = len(values)
    matrix = np.ones((count + 1, count + 1))
    matrix[:count, :count] = _relation(between, _typical(between))
    matrix[count, :count] = matrix[:count, count] = values
    np.fill_diagonal(matrix, 1.0)
    return matrix


def _values(shots: Floats, draws: Floats, typical: float) -> Floats:
    return _relation(distances(Densities.fit(draws).log(shots)), typical)


def _errors(shots: Floats, draws: Floats, typical: float, seed: int) -> Floats:
    """Combines the jackknife error over shots and the bootstrap error over draws, along given axes."""
    over_draws = bootstrap_error(lambda drawn: _values(shots, draws[:, drawn], typical), draws.shape[1], seed)
    if len(shots) < 2:
        return over_draws
    without = [_values(np.delete(shots, k, 0), np.delete(draws, k, 2), typical) for k in range(len(shots))]
    return np.asarray(np.hypot(jackknife_error(without, len(draws)), over_draws))


def _split_half(target: Floats, auxiliary: Floats, typical: float) -> float:
    """Returns the rank correlation between the relations from the even and from the odd shots, each with own axes."""
    if len(target) < 2:
        return float("nan")
    halves = []
    for k in (0, 1):
        axes = Axes.fit(auxiliary[:, :, k::2])
        halves.append(_values(axes.of(target[k::2]), axes.of(auxiliary[:, :, k::2]), typical))
    return rank_correlation(halves[0], halves[1])
