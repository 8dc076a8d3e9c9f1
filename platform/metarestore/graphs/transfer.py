"""The `transfer` estimator: the gain of a short training on each source, measured on held-out shots of the target."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.config.estimators import TransferEstimatorSpec
from metarestore.config.learner import PretrainSpec
from metarestore.errors import UserError
from metarestore.graphs.relations import Relations
from metarestore.graphs.reliability import rank_correlation
from metarestore.learners.adaptation import adapt
from metarestore.learners.gradients import mean_loss_gradient
from metarestore.learners.learner import PretrainLearner, psnr_of_mse, restore
from metarestore.seeds import derived_seed, generator
from metarestore.tasks.task import Task, without_support
from metarestore.workspace.job import Runner
from metarestore.workspace.refs import TaskRef
from metarestore.workspace.workspace import Workspace

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TransferJob:
    """Trains on one source, adapts to halves of the shots, and evaluates on the other halves.

    Attributes:
        source: Name of an auxiliary distribution, or None to adapt the given parameters without training.
        options: Numbers of steps and of splits.
    """

    source: str | None
    options: TransferEstimatorSpec

    def run(self, workspace: Workspace, flat: Tensor) -> Floats:
        """Returns the PSNR in dB on the held-out half for each split and half, (draws, 2)."""
        flat = flat.to(workspace.device)
        if self.source is not None:
            flat = _train(workspace, flat, self.source, self.options.steps)
        shots = workspace.for_model(workspace.shots)
        rng = generator(workspace.experiment.seed, "halves")
        count = len(shots.support_lr)
        rows = []
        for _ in range(self.options.draws):
            order = rng.permutation(count)
            halves = [np.sort(order[: count // 2]), np.sort(order[count // 2 :])]
            rows.append([_score(workspace, flat, shots, halves[k], halves[1 - k], self.options) for k in (0, 1)])
        return np.asarray(rows)


def _train(workspace: Workspace, flat: Tensor, source: str, steps: int) -> Tensor:
    """Pre-trains on one source for a few steps, one task per step, with Adam at the outer learning rate."""
    spec = workspace.experiment.learner
    pretrain = PretrainSpec(kind="pretrain", loss=spec.loss, charbonnier_eps=spec.charbonnier_eps)
    learner = PretrainLearner(pretrain, workspace.model)
    current = flat.detach().clone().requires_grad_()
    rule = torch.optim.Adam([current], lr=workspace.experiment.training.optimizer.lr)
    seed = derived_seed(workspace.experiment.seed, "transfer")
    for step in range(steps):
        stacked = workspace.tasks([TaskRef(source, seed, step)])
        task = Task(*(tensor[0] for tensor in stacked))
        task = without_support(task) if workspace.episode.internal else task
        current.grad = mean_loss_gradient(learner, workspace.layout, current.detach(), task)
        rule.step()
    return current.detach()


def _score(
    workspace: Workspace,
    flat: Tensor,
    shots: Task,
    learn: NDArray[np.int64],
    test: NDArray[np.int64],
    options: TransferEstimatorSpec,
) -> float:
    """Adapts to the shots `learn` and returns the mean PSNR in dB on the shots `test`."""
    adaptation = workspace.experiment.adaptation
    lr_images, hr_images = shots.support_lr, shots.support_hr
    adapted = adapt(
        workspace.model,
        flat,
        lr_images[learn],
        hr_images[learn],
        adaptation.model_copy(update={"steps": options.adaptation_steps}),
        seed=derived_seed(workspace.experiment.seed, "transfer"),
        rule=workspace.learner.adapting(workspace.layout, workspace.learner.initial(flat)),
    )
    with torch.no_grad():
        restored = restore(workspace.model, workspace.layout.unflatten(adapted), lr_images[test])
    errors = (restored.clamp(0, 1) - hr_images[test]).square().mean(dim=(1, 2, 3))
    if not torch.isfinite(errors).all():
        return math.nan  # diverged: such a source has no relation, and the caller names it
    return float(psnr_of_mse(errors.cpu().numpy()).mean())


def estimate_transfer(
    workspace: Workspace,
    run: Runner,
    flat: Tensor,
    options: TransferEstimatorSpec,
    step: int = 0,
    previous: Relations | None = None,
) -> Relations:
    """Relates the target to each source by the gain, in dB on held-out shots, of having trained on it first.

    The relation is tanh(gain / 1 dB), so it is in −1..1 and preserves the order of the gains; if gains exceed 1 dB, as
    for a network without a bicubic skip, they are divided by the largest one.

    Raises:
        UserError: There is only one shot, which cannot be split.
    """
    del step, previous
    if len(workspace.shots.support_lr) < 2:
        raise UserError("graph.estimator: transfer requires at least 2 shots to hold some out; raise adaptation.shots")
    names = tuple(workspace.study.auxiliary)
    scores = run([TransferJob(None, options), *(TransferJob(name, options) for name in names)], flat)
    gains = np.stack(scores[1:]) - scores[0][None]
    means = gains.mean(axis=(1, 2))
    unit = max(1.0, float(np.abs(means).max()))
    values = np.tanh(means / unit)
    # Only the two halves of a split are independent, so errors and agreement are computed within each split; the error
    # of tanh follows from its derivative.
    within = np.sqrt(np.square((gains[:, :, 0] - gains[:, :, 1]) / 2).mean(axis=1))
    error = within / unit * (1 - values**2)
    agreements = [rank_correlation(gains[:, k, 0], gains[:, k, 1]) for k in range(options.draws)]
    return Relations(
        target=workspace.experiment.graph.target,
        auxiliary=names,
        values=values,
        standard_errors=error,
        estimator="transfer",
        draws=options.draws,
        reliability=float(np.mean(agreements)),
    )
