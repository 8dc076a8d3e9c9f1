"""The `transfer` estimator: what a short training on each source is worth on the target's held-out shots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.config.estimators import TransferEstimator
from metarestore.config.learner import Pretrain
from metarestore.errors import UserError
from metarestore.graphs.relations import Relations
from metarestore.graphs.reliability import rank_correlation
from metarestore.learners.adaptation import adapt
from metarestore.learners.gradients import mean_loss_gradient
from metarestore.learners.learner import PretrainLearner, psnr_of_mse, restore
from metarestore.learners.workspace import Runner, TaskRef, Workspace
from metarestore.seeds import derived_seed, generator
from metarestore.tasks.task import Task

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TransferJob:
    """Trains on one source, adapts to halves of the shots, scores on the other halves.

    Attributes:
        source: Name of an auxiliary distribution, or None to adapt the parameters as they are.
        options: Lengths and number of halvings.
    """

    source: str | None
    options: TransferEstimator

    def run(self, workspace: Workspace, flat: Tensor) -> Floats:
        """Returns the PSNR in dB on the held-out half for each halving and side, (draws, 2)."""
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
    """Pre-trains on one source for a few steps, one task a step, with Adam at the experiment's outer rate."""
    spec = workspace.experiment.learner
    pretrain = Pretrain(kind="pretrain", loss=spec.loss, charbonnier_eps=spec.charbonnier_eps)
    learner = PretrainLearner(pretrain, workspace.model)
    current = flat.detach().clone().requires_grad_()
    rule = torch.optim.Adam([current], lr=workspace.experiment.training.optimizer.lr)
    seed = derived_seed(workspace.experiment.seed, "transfer")
    for step in range(steps):
        stacked = workspace.tasks([TaskRef(source, seed, step)])
        task = Task(*(tensor[0] for tensor in stacked))
        current.grad = mean_loss_gradient(learner, workspace.layout, current.detach(), task)
        rule.step()
    return current.detach()


def _score(
    workspace: Workspace,
    flat: Tensor,
    shots: Task,
    learn: NDArray[np.int64],
    test: NDArray[np.int64],
    options: TransferEstimator,
) -> float:
    """Adapts to the shots `learn` and returns the mean PSNR in dB on the shots `test`."""
    how = workspace.experiment.adaptation
    lr_images, hr_images = shots.support_lr, shots.support_hr
    adapted = adapt(
        workspace.model,
        flat,
        lr_images[learn],
        hr_images[learn],
        how.model_copy(update={"steps": options.adaptation_steps}),
        seed=derived_seed(workspace.experiment.seed, "transfer"),
        rule=workspace.learner.adapting(workspace.layout, workspace.learner.initial(flat)),
    )
    with torch.no_grad():
        restored = restore(workspace.model, workspace.layout.unflatten(adapted), lr_images[test])
    errors = (restored.clamp(0, 1) - hr_images[test]).square().mean(dim=(1, 2, 3))
    return float(psnr_of_mse(errors.cpu().numpy()).mean())


def estimate_transfer(
    workspace: Workspace,
    run: Runner,
    flat: Tensor,
    options: TransferEstimator,
    step: int = 0,
    previous: Relations | None = None,
) -> Relations:
    """Relates the target to each source by the gain, in dB on held-out shots, of having trained on it first.

    The relation is tanh(gain / 1 dB), so it lies in −1..1 and keeps the order of the gains; where there are gains above
    1 dB, as of a network without a bicubic skip, they are measured in the largest.

    Raises:
        UserError: There is only one shot, which cannot be halved.
    """
    del step, previous
    if len(workspace.shots.support_lr) < 2:
        raise UserError("graph.estimator: transfer needs at least 2 shots to hold some out; raise adaptation.shots")
    names = tuple(workspace.study.auxiliary)
    scores = run([TransferJob(None, options), *(TransferJob(name, options) for name in names)], flat)
    gains = np.stack(scores[1:]) - scores[0][None]
    means = gains.mean(axis=(1, 2))
    unit = max(1.0, float(np.abs(means).max()))
    values = np.tanh(means / unit)
    # Only two halves are ever independent, however often the shots are halved, so errors and agreement are taken within
    # each halving; the error of tanh follows by its slope.
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
