"""Metrics by which trials are compared; none of them uses a test photograph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.evaluation.few_shot import evaluation_luma
from metarestore.evaluation.metrics import batch_psnr
from metarestore.learners.adaptation import adapt
from metarestore.learners.learner import restore
from metarestore.models.colour import rgb_to_y
from metarestore.seeds import derived_seed
from metarestore.training.jobs import ValidationJob
from metarestore.workspace.job import Job
from metarestore.workspace.workspace import Workspace

_FOLDS = 5
"""Maximum number of cross-validation folds of the shots: each costs an adaptation."""


@dataclass(frozen=True)
class HeldOutShotsJob:
    """Adapts to all folds of the shots but one, with the experiment's `adaptation`, and evaluates the held-out fold.

    Attributes:
        fold: Index of the held-out fold.
        folds: Number of folds.
    """

    fold: int
    folds: int

    def run(self, workspace: Workspace, flat: Tensor) -> NDArray[np.float64]:
        """Returns the PSNR-Y in dB of each held-out shot, see `decibels`."""
        shots = workspace.for_model(workspace.shots)
        held_out = torch.arange(len(shots.support_lr)) % self.folds == self.fold
        adapted = adapt(
            workspace.model,
            workspace.network(flat).to(workspace.device),
            shots.support_lr[~held_out],
            shots.support_hr[~held_out],
            workspace.experiment.adaptation,
            seed=derived_seed(workspace.experiment.seed, "adaptation"),
            rule=workspace.learner.adapting(workspace.layout, flat.to(workspace.device)),
        )
        with torch.no_grad():
            params, hr = workspace.layout.unflatten(adapted), shots.support_hr[held_out]
            restored = restore(workspace.model, params, shots.support_lr[held_out], hr=hr).cpu()
        y = restored if workspace.model.channels == "y" else rgb_to_y(restored.clamp(0, 1))
        colour = np.zeros(int(held_out.sum()), dtype=bool)
        reference = evaluation_luma(rgb_to_y(workspace.shots.support_hr[held_out]), colour)
        return batch_psnr(evaluation_luma(y, colour), reference, workspace.study.scale)


def metric_jobs(workspace: Workspace, validated: tuple[str, ...]) -> list[Job]:
    """Returns the jobs whose mean result is the metric of the experiment's `tuning`.

    Args:
        workspace: The trial's workspace.
        validated: Distributions to validate on.
    """
    experiment = workspace.experiment
    if experiment.tuning.metric == "validation":
        return [ValidationJob(name) for name in validated]
    folds = min(len(workspace.shots.support_lr), _FOLDS)
    return [HeldOutShotsJob(fold, folds) for fold in range(folds)]
