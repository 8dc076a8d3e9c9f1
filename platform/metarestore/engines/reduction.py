"""From the task gradients of shards to one gradient: the same sums in the same order, wherever they are taken.

Within a shard, tasks are summed one after the other; shards are summed as a binary tree over their positions. The order
depends on the number of shards alone, so the driver, or any number of workers, come to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from metarestore.learners.gradients import TaskGradients, TaskMetrics, joined

Weigh = Callable[[TaskMetrics], NDArray[np.float32]]
"""Turns the figures of all T tasks of a step into the factor of each task's gradient, (T,)."""

_Part = TypeVar("_Part")


class Reduced(NamedTuple):
    """One step's result.

    Attributes:
        figures: Of all T tasks, in order.
        gradient: Σ factorᵢ·gᵢ, (P,), float32.
    """

    figures: TaskMetrics
    gradient: NDArray[np.float32]


def reduced(shards: Sequence[TaskGradients], weigh: Weigh) -> Reduced:
    """Sums the gradients of shards in this process."""
    figures = joined([shard.figures for shard in shards])
    factors = split(weigh(figures), [shard.figures for shard in shards])
    parts = [shard.weighted(some) for shard, some in zip(shards, factors, strict=True)]
    return Reduced(figures, tree_sum(parts, np.add))


def split(factors: NDArray[np.float32], figures: Sequence[TaskMetrics]) -> list[NDArray[np.float32]]:
    """Cuts factors (T,) into those of each shard."""
    return np.split(factors, np.cumsum([len(shard.losses) for shard in figures])[:-1])


def tree_sum(parts: Sequence[_Part], add: Callable[[_Part, _Part], _Part]) -> _Part:
    """Adds neighbours, then neighbouring sums, until one is left.

    >>> tree_sum("abcde", lambda left, right: f"({left}{right})")
    '(((ab)(cd))e)'
    """
    level = list(parts)
    while len(level) > 1:
        odd = level[-1:] if len(level) % 2 else []
        level = [add(left, right) for left, right in zip(level[::2], level[1::2], strict=False)] + odd
    return level[0]
