"""Figures on the target: adapt to the shots, measure every test crop after every step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.config.experiment import AdaptationOptimizer, Evaluation
from metarestore.degradations.resample import bicubic_upsample
from metarestore.evaluation.metrics import batch_psnr, ssim
from metarestore.evaluation.results import ArmResult, Curve
from metarestore.evaluation.statistics import cluster_means
from metarestore.learners.adaptation import adapt
from metarestore.learners.learner import restore
from metarestore.learners.workspace import Workspace
from metarestore.models.build import restore_rgb, to_channels
from metarestore.models.colour import rgb_to_y
from metarestore.models.network import Restore
from metarestore.models.self_ensemble import self_ensemble
from metarestore.seeds import derived_seed

Floats = NDArray[np.float64]


def evaluation_luma(y: Tensor, gray: NDArray[np.bool_]) -> Floats:
    """Converts luma (N, 1, H, W) in limited range [0, 1] to what the field measures: 8-bit grey levels, (N, H, W).

    Args:
        y: Luma as `rgb_to_y` gives it.
        gray: Which images are gray, (N,): such an image is its own Y, in full range.
    """
    levels = y[:, 0].to(torch.float64).numpy() * 255.0
    levels = np.where(gray[:, None, None], (levels - 16.0) * (255.0 / 219.0), levels)
    return np.asarray(np.clip(np.floor(levels + 0.5), 0, 255))


@dataclass(frozen=True)
class TestSet:
    """The target's test crops, ready to be measured on."""

    __test__ = False  # not a pytest class

    lr: Tensor
    reference: Floats
    gray: NDArray[np.bool_]
    border: int

    @classmethod
    def of(cls, workspace: Workspace) -> TestSet:
        """Takes the test crops of a workspace's target."""
        task = workspace.target_task
        names = workspace.target_draw.photographs
        gray = np.asarray([workspace.target.is_gray(name) for name in names])
        reference = evaluation_luma(rgb_to_y(task.query_hr), gray)
        return cls(task.query_lr, reference, gray, workspace.study.scale)

    def psnr(self, y: Tensor) -> Floats:
        """Measures restored luma (N, 1, H, W), in dB: (N,)."""
        return batch_psnr(evaluation_luma(y, self.gray), self.reference, self.border)

    def ssim(self, y: Tensor) -> Floats:
        """Measures restored luma (N, 1, H, W): (N,)."""
        b = self.border
        pairs = zip(evaluation_luma(y, self.gray), self.reference, strict=True)
        return np.asarray([ssim(a[b:-b, b:-b], r[b:-b, b:-b]) for a, r in pairs])


@dataclass(frozen=True)
class Adapted:
    """A network adapted to the shots: its figures, and its parameters (P,) after the last step."""

    curve: Curve
    flat: Tensor


@dataclass(frozen=True)
class AdaptationJob:
    """Adapts a network to the shots in one way and measures it on the way, as `evaluation.every` says."""

    how: AdaptationOptimizer

    def run(self, workspace: Workspace, flat: Tensor) -> Adapted:
        """Returns the figures of every photograph before, between and after the steps."""
        shots = workspace.for_model(workspace.shots)
        test = TestSet.of(workspace)
        lr = to_channels(test.lr, workspace.model.channels).to(workspace.device)
        hr = to_channels(workspace.target_task.query_hr, workspace.model.channels).to(workspace.device)
        rows: list[Floats] = []
        last: list[Tensor] = []

        every, steps = workspace.experiment.evaluation.every, []

        def measure(step: int, current: Tensor) -> None:
            if step % every and step != self.how.steps:
                return
            steps.append(step)
            with torch.no_grad():
                restored = _restorer(workspace, current, hr)(lr).cpu()
            last[:] = [restored if workspace.model.channels == "y" else rgb_to_y(restored.clamp(0, 1))]
            rows.append(test.psnr(last[0]))

        adapted = adapt(
            workspace.model,
            workspace.network(flat).to(workspace.device),
            shots.support_lr,
            shots.support_hr,
            self.how,
            seed=derived_seed(workspace.experiment.seed, "adaptation"),
            rule=workspace.learner.adapting(workspace.layout, flat.to(workspace.device)),
            observe=measure,
        )
        photographs = workspace.target_draw.photographs
        curve = Curve(
            label="no step, given HR"
            if workspace.model.privileged
            else _label(self.how, workspace.experiment.evaluation),
            psnr_y=cluster_means(np.stack(rows), photographs),
            ssim_y=cluster_means(test.ssim(last[0]), photographs),
            steps=tuple(steps),
        )
        return Adapted(curve, adapted.cpu())


def _label(how: AdaptationOptimizer, evaluation: Evaluation) -> str:
    patches = "" if how.patch is None else f", patches of {how.patch}"
    return f"{how.optimizer} {how.lr:g}{patches}{', self-ensemble' if evaluation.self_ensemble else ''}"


def unique_photographs(workspace: Workspace) -> tuple[str, ...]:
    """Returns the names of the test photographs, in the order of the figures."""
    return tuple(dict.fromkeys(workspace.target_draw.photographs))


def bicubic_result(workspace: Workspace) -> ArmResult:
    """Measures bicubic upscaling of the same test crops."""
    test = TestSet.of(workspace)
    y = rgb_to_y(bicubic_upsample(test.lr, workspace.study.scale).clamp(0, 1))
    photographs = workspace.target_draw.photographs
    curve = Curve("bicubic", cluster_means(test.psnr(y)[None], photographs), cluster_means(test.ssim(y), photographs))
    return ArmResult("bicubic", unique_photographs(workspace), curve)


def restored_crops(workspace: Workspace, adapted: Tensor) -> Tensor:
    """Restores the test crops in colour: (N, 3, H, W) in [0, 1]."""
    scale, channels, task = workspace.study.scale, workspace.model.channels, workspace.target_task
    hr = to_channels(task.query_hr, channels)
    return restore_rgb(_restorer(workspace, adapted, hr), task.query_lr, scale=scale, channels=channels)


def _restorer(workspace: Workspace, flat: Tensor, hr: Tensor) -> Restore:
    """Returns the network with parameters (P,), as it is measured; a teacher is given `hr`."""
    params = workspace.layout.unflatten(flat)

    def restored(lr: Tensor) -> Tensor:
        return restore(workspace.model, params, lr, hr=hr)

    return self_ensemble(restored) if workspace.experiment.evaluation.self_ensemble else restored
