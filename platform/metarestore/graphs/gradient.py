"""The `gradient` estimator: cosine of task gradients on the same clean images.

At a network that is already trained it measures what the network still does wrong, not kinship, and can point the wrong
way; use it early, along the trajectory (`refresh`), or as a control.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.config.estimators import GradientEstimator
from metarestore.graphs.relations import Relations
from metarestore.graphs.reliability import jackknife_error, rank_correlation
from metarestore.learners.gradients import mean_loss_gradient
from metarestore.learners.learner import PretrainLearner
from metarestore.learners.workspace import Runner, Workspace
from metarestore.seeds import derived_seed
from metarestore.tasks.distribution import SyntheticTasks
from metarestore.tasks.task import Task

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ShotGradientJob:
    """Computes the gradients of the restoration loss on each shot, degraded by one distribution or by the target.

    Attributes:
        distribution: Name of an auxiliary distribution, or None for the target's real LR images.
        draws: Tasks drawn from the distribution.
    """

    distribution: str | None
    draws: int

    def run(self, workspace: Workspace, flat: Tensor) -> NDArray[np.float32]:
        """Returns one gradient for each draw and half of the shots, (draws, 2, P); one draw for the target."""
        shots = workspace.shots
        if self.distribution is None:
            return _halves(workspace, flat, shots.support_lr, shots.support_hr)[None]
        distribution = workspace.distribution(self.distribution)
        seed = derived_seed(workspace.experiment.seed, "gradient")
        rows = []
        for index in range(self.draws):
            draw = distribution.draw(seed, index)
            if isinstance(distribution, SyntheticTasks):
                lr, hr = distribution.degrade(shots.support_hr, draw), shots.support_hr
            else:
                lr, hr, _, _ = distribution.build(draw)
            rows.append(_halves(workspace, flat, lr, hr))
        return np.stack(rows)


def _halves(workspace: Workspace, flat: Tensor, lr: Tensor, hr: Tensor) -> NDArray[np.float32]:
    """Computes the gradients (2, P) on the even and the odd images; a single image stands for both."""
    learner = PretrainLearner(workspace.model)
    rows = []
    for half in (0, 1):
        first = half % len(lr)
        task = workspace.for_model(Task(lr[first::2], hr[first::2], lr[:0], hr[:0]))
        rows.append(mean_loss_gradient(learner, workspace.layout, flat.to(workspace.device), task))
    return torch.stack(rows).cpu().numpy()


def cosine_relations(target: Floats, auxiliary: Floats) -> Floats:
    """Returns the cosine (N,) between the target's gradient (P,) and the mean gradient of each distribution.

    Args:
        target: (P,).
        auxiliary: (N, draws, P).
    """
    means = auxiliary.mean(axis=1)
    norms = np.linalg.norm(means, axis=-1) * np.linalg.norm(target)
    return np.asarray(means @ target / np.maximum(norms, 1e-20))


def estimate_gradient(
    workspace: Workspace, run: Runner, flat: Tensor, options: GradientEstimator, previous: Relations | None
) -> Relations:
    """Relates the target to every auxiliary distribution by their gradients at the parameters `flat`."""
    names, draws = tuple(workspace.study.auxiliary), options.draws
    jobs = [ShotGradientJob(None, 1), *(ShotGradientJob(name, draws) for name in names)]
    found = [np.asarray(rows, np.float64) for rows in run(jobs, flat)]
    target, auxiliary = found[0][0], np.stack(found[1:])
    whole = auxiliary.mean(axis=2)
    error = jackknife_error(
        [cosine_relations(target.mean(axis=0), np.delete(whole, k, axis=1)) for k in range(draws)], len(names)
    )
    # The two halves have no clean image in common, so their agreement tells the noise of the shots.
    halves = [cosine_relations(target[k], auxiliary[:, :, k]) for k in (0, 1)]
    halved = len(workspace.shots.support_lr) > 1
    if halved:
        error = np.hypot(error, np.abs(halves[0] - halves[1]) / 2)
    return Relations(
        target=workspace.experiment.graph.target,
        auxiliary=names,
        values=cosine_relations(target.mean(axis=0), whole),
        standard_errors=error,
        estimator="gradient",
        draws=draws,
        reliability=rank_correlation(halves[0], halves[1]) if halved else float("nan"),
        matrix=_matrix(target.mean(axis=0), whole.mean(axis=1)),
    )


def _matrix(target: Floats, means: Floats) -> Floats:
    vectors = np.concatenate([means, target[None]])
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-20)
    return np.asarray(unit @ unit.T)
