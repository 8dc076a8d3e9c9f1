"""How relations weight the tasks of one outer step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metarestore.config.graph import WeightsSpec
from metarestore.errors import UserError
from metarestore.graphs.relations import Relations
from metarestore.graphs.weights import balancing, effective_tasks, relation_weights, relative_to_largest
from metarestore.learners.gradients import TaskMetrics

_NORM_MEMORY = 0.95
"""Fraction of the old value in the moving average of gradient norms."""

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]
"""Index of the source of each task, (T,)."""


@dataclass(frozen=True)
class StepWeights:
    """The gradient weights of one outer step, and what they act on.

    Attributes:
        values: Weight of each of N distributions, (N,), mean 1.
        spec: How relations become weights, and what the weights act on.
        shots: Whether tasks of the target's shots are drawn too; their source comes last, with weight 1.
        norms: Moving averages of the gradient norms of all sources before the step; empty before the first one.
    """

    values: Floats
    spec: WeightsSpec
    shots: bool
    norms: Sequence[float]

    @property
    def probabilities(self) -> Floats | None:
        """Probability of drawing each distribution, (N,), up to a factor; None if all are drawn equally often."""
        return self.values if self.spec.acts_on == "sampling" else None

    @property
    def drawn(self) -> NDArray[np.bool_]:
        """Which distributions are drawn at all, (N,)."""
        return self.values > 0

    @property
    def logged(self) -> Floats:
        """Weight of each source."""
        return self._of_sources(self.values)

    @property
    def effective(self) -> float:
        """Effective number of distributions."""
        return effective_tasks(self.values)

    def outer(self, sources: Positions) -> Floats:
        """Returns the factor of each task's gradient, (T,), before balancing."""
        if self.spec.acts_on not in ("gradients", "both"):
            return self._of_sources(np.ones(len(self.values)))[sources]
        # Distributions of weight 0 are not drawn: the others share the whole weight, which has mean 1 over all.
        return self._of_sources(self.values * np.mean(self.drawn))[sources]

    def inner(self, sources: Positions) -> Floats | None:
        """Returns the factor of each task's inner learning rate, (T,); None if the weights do not act on it."""
        if self.spec.acts_on not in ("inner", "both"):
            return None
        return self._of_sources(relative_to_largest(self.values))[sources]

    def balance(self, metrics: TaskMetrics, sources: Positions) -> Floats:
        """Returns the balancing factor of each task's gradient, (T,)."""
        if self.spec.balance == "none":
            return np.ones(len(sources))
        if self.spec.balance == "unit":
            return balancing(metrics.norms)
        return balancing(np.asarray(self.norms_after(metrics, sources))[sources])

    def norms_after(self, metrics: TaskMetrics, sources: Positions) -> list[float]:
        """Returns the moving average of each source's gradient norm after the step."""
        norms = list(self.norms) or [0.0] * (len(self.values) + self.shots)
        for norm, i in zip(metrics.norms.tolist(), sources.tolist(), strict=True):
            norms[i] = norm if not norms[i] else _NORM_MEMORY * norms[i] + (1 - _NORM_MEMORY) * norm
        return norms

    def _of_sources(self, factors: Floats) -> Floats:
        """Appends the factor of the target's shots, 1, to those of the distributions, if tasks of them are drawn."""
        return np.append(factors, 1.0) if self.shots else factors


def distribution_weights(relations: Relations | None, spec: WeightsSpec, count: int, step: int, steps: int) -> Floats:
    """Returns the weights of `count` distributions at a step, mean 1; all are 1 if there are no relations."""
    return np.ones(count) if relations is None else relation_weights(relations, spec, step, steps)


def require_finite(metrics: TaskMetrics, step: int) -> None:
    """Stops the training before a loss or gradient that is not finite spoils the parameters.

    Raises:
        UserError: One is not finite.
    """
    if not (np.isfinite(metrics.norms).all() and np.isfinite(metrics.losses).all()):
        raise UserError(
            f"step {step + 1}: the loss or its gradient is not finite; lower training.optimizer.lr or "
            "learner.inner_lr (the last checkpoint is unchanged)"
        )
