"""What trials are compared by: figures that no test photograph has a part in."""

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
"""Most parts that the shots are divided into: each costs an adaptation."""


@dataclass(frozen=True)
class HeldOutShotsJob:
    """Adapts to all shots but one part of them, as the experiment's `adaptation` says, and measures that part.

    Attributes:
        fold: Number of the part.
        folds: Number of parts.
    """

    fold: int
    folds: int

    def run(self, workspace: Workspace, flat: Tensor) -> NDArray[np.float64]:
        """Returns the PSNR-Y in dB of each shot of the part, see `decibels`."""
        shots = workspace.for_model(workspace.shots)
        held = torch.arange(len(shots.support_lr)) % self.folds == self.fold
        how = workspace.experiment.adaptation
        adapted = adapt(
            workspace.model,
            workspace.network(flat).to(workspace.device),
            shots.support_lr[~held],
            shots.support_hr[~held],
            how,
            seed=derived_seed(workspace.experiment.seed, "adaptation"),
            rule=workspace.learner.adapting(workspace.layout, flat.to(workspace.device)),
        )
        with torch.no_grad():
            params, hr = workspace.layout.unflatten(adapted), shots.support_hr[held]
            restored = restore(workspace.model, params, shots.support_lr[held], hr=hr).cpu()
        y = restored if workspace.model.channels == "y" else rgb_to_y(restored.clamp(0, 1))
        colour = np.zeros(int(held.sum()), dtype=bool)
        reference = evaluation_luma(rgb_to_y(workspace.shots.support_hr[held]), colour)
        return batch_psnr(evaluation_luma(y, colour), reference, workspace.study.scale)


def metric_jobs(workspace: Workspace, validated: tuple[str, ...]) -> list[Job]:
    """Returns the jobs whose figures, averaged, are the metric of the experiment's `tuning`.

    Args:
        workspace: The trial's.
        validated: Distributions that validation figures are taken on.
    """
    experiment = workspace.experiment
    if experiment.tuning.metric == "validation":
        return [ValidationJob(name) for name in validated]
    folds = min(len(workspace.shots.support_lr), _FOLDS)
    return [HeldOutShotsJob(fold, folds) for fold in range(folds)]
