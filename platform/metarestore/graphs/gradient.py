"""The `gradient` estimator: cosine similarity of task gradients, or of adaptation directions, on the same clean images.

For a trained network, gradients reflect its remaining errors rather than relatedness, and may be misleading. Use this
estimator early in training, with `refresh` and `memory`, or compare adaptations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.config.adaptation import AdaptationOptimizerSpec
from metarestore.config.estimators import GradientEstimatorSpec
from metarestore.config.learner import PretrainSpec
from metarestore.graphs.relations import Relations
from metarestore.graphs.reliability import jackknife_error, rank_correlation
from metarestore.learners.adaptation import adapt
from metarestore.learners.gradients import mean_loss_gradient
from metarestore.learners.learner import PretrainLearner
from metarestore.learners.sketch import sketched
from metarestore.seeds import derived_seed
from metarestore.tasks.task import Task
from metarestore.workspace.job import Runner
from metarestore.workspace.workspace import Workspace

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ShotGradientJob:
    """Computes sketched directions on each half of the shots, degraded by one distribution or by the target.

    Attributes:
        distribution: Name of an auxiliary distribution, or None for the target's real LR images.
        options: Options of the estimator.
    """

    distribution: str | None
    options: GradientEstimatorSpec

    def run(self, workspace: Workspace, flat: Tensor) -> NDArray[np.float32]:
        """Returns one sketch for each draw and half of the shots, (draws, 2, m); one draw for the target."""
        seen_lr, seen_hr = workspace.seen_shots
        if self.distribution is None:
            return _halves(workspace, flat, seen_lr, seen_hr, self.options)[None]
        distribution = workspace.auxiliary(self.distribution)
        seed = derived_seed(workspace.experiment.seed, "gradient")
        rows = []
        for index in range(self.options.draws):
            lr, hr = distribution.pairs_on(seen_hr, distribution.draw(seed, index))
            rows.append(_halves(workspace, flat, lr, hr, self.options))
        return np.stack(rows)


def _halves(
    workspace: Workspace, flat: Tensor, lr: Tensor, hr: Tensor, options: GradientEstimatorSpec
) -> NDArray[np.float32]:
    """Computes the directions (2, m) on the even and the odd images; a single image is used for both."""
    rows = []
    for half in (0, 1):
        first = half % len(lr)
        task = workspace.for_model(Task(lr[first::2], hr[first::2], lr[:0], hr[:0]))
        rows.append(_direction(workspace, flat.to(workspace.device), task, options))
    return sketched(torch.stack(rows).cpu().numpy(), options.sketch)


def _direction(workspace: Workspace, flat: Tensor, task: Task, options: GradientEstimatorSpec) -> Tensor:
    """Returns the gradient (P,) on a task's support set, or the negative parameter update of a short adaptation."""
    learner = PretrainLearner(PretrainSpec(kind="pretrain"), workspace.model)
    if options.compares == "gradients":
        return mean_loss_gradient(learner, workspace.layout, flat, task)
    adapted = adapt(
        workspace.model,
        flat,
        task.support_lr,
        task.support_hr,
        AdaptationOptimizerSpec(steps=options.adaptation_steps, lr=workspace.experiment.adaptation.lr),
        rule=learner.inner_rule,
    )
    return flat - adapted


def cosine_relations(target: Floats, auxiliary: Floats) -> Floats:
    """Returns the cosine (N,) between the target's direction (P,) and the mean direction of each distribution.

    Args:
        target: (P,).
        auxiliary: (N, draws, P).
    """
    means = auxiliary.mean(axis=1)
    norms = np.linalg.norm(means, axis=-1) * np.linalg.norm(target)
    return np.asarray(means @ target / np.maximum(norms, 1e-20))


def estimate_gradient(
    workspace: Workspace,
    run: Runner,
    flat: Tensor,
    options: GradientEstimatorSpec,
    step: int = 0,
    previous: Relations | None = None,
) -> Relations:
    """Estimates the relation of the target to every auxiliary distribution from directions at the parameters `flat`.

    With `memory` μ, directions are averaged over refreshes: μ·previous + (1 − μ)·current, each normalised to unit
    length, so that early gradients, which are longer, do not dominate.
    """
    del step
    names = tuple(workspace.study.auxiliary)
    jobs = [ShotGradientJob(None, options), *(ShotGradientJob(name, options) for name in names)]
    sketches = [np.asarray(rows, np.float64) for rows in run(jobs, flat)]
    target, auxiliary = _averaged(sketches[0][0], np.stack(sketches[1:]), options.memory, previous)
    whole = auxiliary.mean(axis=2)
    error = jackknife_error(
        [cosine_relations(target.mean(axis=0), np.delete(whole, k, axis=1)) for k in range(options.draws)], len(names)
    )
    # The two halves have no clean image in common, so their difference measures the noise between shots.
    halves = [cosine_relations(target[k], auxiliary[:, :, k]) for k in (0, 1)]
    halved = len(workspace.seen_shots[0]) > 1
    if halved:
        error = np.hypot(error, np.abs(halves[0] - halves[1]) / 2)
    return Relations(
        target=workspace.experiment.graph.target,
        auxiliary=names,
        values=cosine_relations(target.mean(axis=0), whole),
        standard_errors=error,
        estimator="gradient",
        draws=options.draws,
        reliability=rank_correlation(halves[0], halves[1]) if halved else float("nan"),
        matrix=_matrix(target.mean(axis=0), whole.mean(axis=1)),
        carried=np.concatenate([target.ravel(), auxiliary.ravel()]).astype(np.float32) if options.memory else None,
    )


def _averaged(target: Floats, auxiliary: Floats, memory: float, previous: Relations | None) -> tuple[Floats, Floats]:
    """Averages directions (2, m) and (N, draws, 2, m) with those carried over from previous refreshes."""
    if not memory:
        return target, auxiliary
    now = np.concatenate([_unit(target).ravel(), _unit(auxiliary).ravel()])
    if previous is not None and previous.carried is not None:
        now = memory * previous.carried + (1 - memory) * now
    return now[: target.size].reshape(target.shape), now[target.size :].reshape(auxiliary.shape)


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-20))


def _matrix(target: Floats, means: Floats) -> Floats:
    unit = _unit(np.concatenate([means, target[None]]))
    return np.asarray(unit @ unit.T)
