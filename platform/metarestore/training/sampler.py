"""Draws the tasks of an outer step, as a pure function of the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metarestore.seeds import generator
from metarestore.workspace.refs import TaskRef

Shard = tuple[TaskRef, ...]


@dataclass(frozen=True)
class TaskSampler:
    """Draws the tasks of a step from N distributions and optionally the target's shots, and splits them into shards.

    Args:
        distributions: Names of the N distributions.
        seed: Seed of the run.
        tasks_per_step: Tasks T of one outer step.
        shard_size: Tasks of one shard; the last shard may be smaller.
        shared_until: Step before which all tasks of a step degrade the same clean patches.
        target: Name of the target, whose shots are used too if `shot_tasks` is positive.
        shot_tasks: Number of tasks of a step that use the target's shots; they come last.
        distinct: Number of different tasks of a distribution, after which they repeat; None if all are new.
    """

    distributions: tuple[str, ...]
    seed: int
    tasks_per_step: int
    shard_size: int
    shared_until: int = 0
    target: str = ""
    shot_tasks: int = 0
    distinct: int | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all sources of tasks: the distributions, and the target (last) if its shots are used."""
        return (*self.distributions, self.target) if self.shot_tasks else self.distributions

    def shards(
        self,
        step: int,
        probabilities: NDArray[np.float64] | None = None,
        among: NDArray[np.bool_] | None = None,
    ) -> list[Shard]:
        """Returns the shards of a step.

        Args:
            step: Outer step, from 0.
            probabilities: Probability of each distribution, (N,); None draws all equally often.
            among: Mask of the distributions to draw if there are no probabilities, (N,); None for all.
        """
        order = self._balanced(step, among) if probabilities is None else self._systematic(step, probabilities)
        first = step * self.tasks_per_step
        patches = self._index(first) if step < self.shared_until else None
        names = [*(self.distributions[i] for i in order), *[self.target] * self.shot_tasks]
        refs = [TaskRef(name, self.seed, self._index(first + k), patches) for k, name in enumerate(names)]
        return [tuple(refs[k : k + self.shard_size]) for k in range(0, len(refs), self.shard_size)]

    def _index(self, position: int) -> int:
        return position if self.distinct is None else position % self.distinct

    @property
    def _drawn(self) -> int:
        """Number of tasks of a step that are drawn from the distributions."""
        return self.tasks_per_step - self.shot_tasks

    def _balanced(self, step: int, among: NDArray[np.bool_] | None) -> list[int]:
        """Deals the distributions like cards: a new shuffled deck starts only when the last one is used up."""
        dealt = np.arange(len(self.distributions)) if among is None else np.flatnonzero(among)
        count = len(dealt)
        first = step * self._drawn
        order = []
        for position in range(first, first + self._drawn):
            deck, card = divmod(position, count)
            order.append(int(dealt[generator(self.seed, "deck", deck).permutation(count)[card]]))
        return order

    def _systematic(self, step: int, probabilities: NDArray[np.float64]) -> list[int]:
        """Draws by systematic sampling, with one random offset for all tasks, which minimises the counts' variance."""
        rng = generator(self.seed, "systematic", step)
        points = (np.arange(self._drawn) + rng.random()) / self._drawn
        cumulative = np.cumsum(probabilities / probabilities.sum())
        chosen = np.searchsorted(cumulative, points, side="right").clip(max=len(self.distributions) - 1)
        return [int(i) for i in rng.permutation(chosen)]


def positions(shards: Sequence[Shard], distributions: Sequence[str]) -> NDArray[np.int64]:
    """Returns the index of each task's distribution, (T,), in shard order."""
    lookup = {name: i for i, name in enumerate(distributions)}
    return np.asarray([lookup[ref.distribution] for shard in shards for ref in shard], np.int64)
