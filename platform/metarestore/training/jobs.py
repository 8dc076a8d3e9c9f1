"""The jobs of the outer loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.learners.gradients import TaskGradients
from metarestore.learners.learner import psnr_of_mse, restore
from metarestore.learners.sketch import sketched
from metarestore.seeds import derived_seed
from metarestore.tasks.task import without_support
from metarestore.training.sampler import Shard
from metarestore.workspace.workspace import Workspace


@dataclass(frozen=True)
class GradientJob:
    """Computes the task gradients of one shard."""

    shard: Shard
    step: int = 0
    """The outer step, which a loss may depend on."""
    inner: tuple[float, ...] | None = None
    """Factor on the inner learning rate of each task."""

    def run(self, workspace: Workspace, flat: Tensor) -> TaskGradients:
        """Builds the shard's tasks and computes the gradients of their losses."""
        return workspace.gradients(flat, workspace.tasks(self.shard), self.step, self.inner)


def gradient_jobs(shards: Sequence[Shard], step: int, inner: NDArray[np.float64] | None = None) -> list[GradientJob]:
    """Returns the jobs of a step; `inner` are factors on the inner learning rates of its T tasks, in shard order."""
    if inner is None:
        return [GradientJob(shard, step) for shard in shards]
    factors = iter(inner.tolist())
    return [GradientJob(shard, step, tuple(next(factors) for _ in shard)) for shard in shards]


@dataclass(frozen=True)
class SketchJob:
    """Computes the task gradients of one shard, and returns sketches of their network part only.

    Attributes:
        shard: The tasks.
        size: Size m of a sketch.
        step: The outer step.
    """

    shard: Shard
    size: int
    step: int = 0

    def run(self, workspace: Workspace, flat: Tensor) -> NDArray[np.float32]:
        """Returns a sketch for each task, (T, m)."""
        result = workspace.gradients(flat, workspace.tasks(self.shard), self.step)
        return sketched(result.gradients[:, : workspace.layout.size], self.size)


@dataclass(frozen=True)
class ValidationJob:
    """Evaluates the network, without adaptation, on tasks from validation photographs."""

    distribution: str
    tasks: int = 2

    def run(self, workspace: Workspace, flat: Tensor) -> NDArray[np.float64]:
        """Returns the PSNR in dB of each task's patches, (tasks,)."""
        spec = workspace.study.auxiliary[self.distribution]
        distribution = workspace.open_tasks(self.distribution, spec, "validation")
        seed = derived_seed(workspace.experiment.seed, "validation")
        errors = []
        params = workspace.layout.unflatten(workspace.network(flat).to(workspace.device))
        for index in range(self.tasks):
            task = workspace.for_model(distribution.build(distribution.draw(seed, index)))
            task = without_support(task) if distribution.episode.internal else task
            lr, hr = torch.cat([task.support_lr, task.query_lr]), torch.cat([task.support_hr, task.query_hr])
            with torch.no_grad():
                errors.append(float((restore(workspace.model, params, lr, hr=hr) - hr).square().mean()))
        return psnr_of_mse(errors)
