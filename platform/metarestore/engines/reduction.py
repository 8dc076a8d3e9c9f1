"""Reduces the task gradients of shards to one gradient: the same sums in the same order on every engine.

Within a shard, tasks are summed sequentially; shards are summed as a binary tree over their indices. The order depends
only on the number of shards, so the driver and any number of workers compute the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from metarestore.learners.gradients import TaskGradients, TaskMetrics, joined

Weigh = Callable[[TaskMetrics], NDArray[np.float32]]
"""Computes the factor of each task's gradient, (T,), from the metrics of all T tasks of a step."""

_Part = TypeVar("_Part")


class Reduced(NamedTuple):
    """The result of one step.

    Attributes:
        metrics: Metrics of all T tasks, in order.
        gradient: Σ factorᵢ·gᵢ, (P,), float32.
    """

    metrics: TaskMetrics
    gradient: NDArray[np.float32]


def reduced(shards: Sequence[TaskGradients], weigh: Weigh) -> Reduced:
    """Sums the gradients of shards in this process."""
    metrics = joined([shard.metrics for shard in shards])
    factors = split(weigh(metrics), [shard.metrics for shard in shards])
    parts = [shard.weighted(some) for shard, some in zip(shards, factors, strict=True)]
    return Reduced(metrics, tree_sum(parts, np.add))


def split(factors: NDArray[np.float32], metrics: Sequence[TaskMetrics]) -> list[NDArray[np.float32]]:
    """Splits factors (T,) by shard."""
    return np.split(factors, np.cumsum([len(shard.losses) for shard in metrics])[:-1])


def tree_sum(parts: Sequence[_Part], add: Callable[[_Part, _Part], _Part]) -> _Part:
    """Sums parts pairwise as a binary tree over their order.

    >>> tree_sum("abcde", lambda left, right: f"({left}{right})")
    '(((ab)(cd))e)'
    """
    level = list(parts)
    while len(level) > 1:
        odd = level[-1:] if len(level) % 2 else []
        level = [add(left, right) for left, right in zip(level[::2], level[1::2], strict=False)] + odd
    return level[0]
