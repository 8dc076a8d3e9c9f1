"""Measurements on the target: adapts to the shots and measures every test crop between adaptation steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.config.adaptation import AdaptationOptimizerSpec, Adapts, LoRASpec
from metarestore.config.experiment import EvaluationSpec
from metarestore.decibels import decibels
from metarestore.degradations.resample import bicubic_upsample
from metarestore.errors import UserError
from metarestore.evaluation.colour import ColourMetrics, colour_metrics
from metarestore.evaluation.metrics import PEAK, batch_mse, inside, ssim
from metarestore.evaluation.results import ArmResult, Curve
from metarestore.evaluation.statistics import cluster_means
from metarestore.learners.adaptation import adapt
from metarestore.learners.learner import restore
from metarestore.models.build import restore_rgb, to_channels
from metarestore.models.colour import rgb_to_y
from metarestore.models.network import Restore
from metarestore.models.self_ensemble import self_ensemble
from metarestore.seeds import derived_seed
from metarestore.workspace.workspace import Workspace

Floats = NDArray[np.float64]


def evaluation_luma(y: Tensor, gray: NDArray[np.bool_]) -> Floats:
    """Converts luma (N, 1, H, W) in limited range [0, 1] to 8-bit grey levels (N, H, W), as in published metrics.

    Args:
        y: Luma as returned by `rgb_to_y`.
        gray: Mask of gray images, (N,): the luma of a gray image is the image itself, in full range.
    """
    levels = y[:, 0].to(torch.float64).numpy() * 255.0
    levels = np.where(gray[:, None, None], (levels - 16.0) * (255.0 / 219.0), levels)
    return np.asarray(np.clip(np.floor(levels + 0.5), 0, 255))


def require_measurable(workspace: Workspace) -> None:
    """Makes sure that there is something to be measured on.

    Raises:
        UserError: The target is a single photograph without HR.
    """
    if not workspace.target_draw.test:
        raise UserError(
            f"graph.target: '{workspace.experiment.graph.target}' is a single photograph without HR, on which nothing "
            "can be measured; name pairs or a synthetic distribution, or restore it with --adapt zero-shot"
        )


@dataclass(frozen=True)
class TestSet:
    """The test crops of the target, prepared for measurements."""

    __test__ = False  # not a pytest class

    lr: Tensor
    hr: Tensor
    reference: Floats
    gray: NDArray[np.bool_]
    border: int
    photographs: tuple[str, ...]
    """The photograph of each crop."""

    @classmethod
    def of(cls, workspace: Workspace) -> TestSet:
        """Takes the test crops of a workspace's target."""
        task = workspace.target_task
        names = workspace.target_draw.photographs
        gray = np.asarray([workspace.target.is_gray(name) for name in names])
        reference = evaluation_luma(rgb_to_y(task.query_hr), gray)
        return cls(task.query_lr, task.query_hr, reference, gray, workspace.study.scale, names)

    def errors(self, y: Tensor) -> Floats:
        """Returns the mean squared error of restored luma (N, 1, H, W), by crop: (N,)."""
        return batch_mse(evaluation_luma(y, self.gray), self.reference, self.border)

    def psnr(self, y: Tensor) -> Floats:
        """Measures restored luma (N, 1, H, W) by photograph, in dB: (P,)."""
        return decibels(cluster_means(self.errors(y), self.photographs), PEAK)

    def ssim(self, y: Tensor) -> Floats:
        """Measures restored luma (N, 1, H, W) by photograph: (P,)."""
        crops = zip(*(inside(one, self.border) for one in (evaluation_luma(y, self.gray), self.reference)), strict=True)
        return cluster_means(np.nan_to_num([ssim(a, r) for a, r in crops]), self.photographs)

    def colour(self, rgb: Tensor, y: Tensor) -> ColourMetrics:
        """Measures restored RGB (N, 3, H, W) and its luma (N, 1, H, W) by photograph."""
        restored, truth = (inside(_levels(images), self.border) for images in (rgb, self.hr))
        luma, reference = (inside(one, self.border) for one in (evaluation_luma(y, self.gray), self.reference))
        return colour_metrics(restored, truth, luma, reference, self.photographs)

    def undefined(self, y: Tensor) -> tuple[str, ...]:
        """Returns the photographs whose restored luma (N, 1, H, W) has non-finite pixels."""
        invalid = ~np.isfinite(y.numpy()).all(axis=(1, 2, 3))
        return tuple(dict.fromkeys(name for name, bad in zip(self.photographs, invalid, strict=True) if bad))

    def curve(self, label: str, rows: Sequence[Floats], steps: Sequence[int], rgb: Tensor, y: Tensor) -> Curve:
        """Collects the PSNR-Y of every measurement, and all other metrics of the last restoration.

        Args:
            label: Label of the curve.
            rows: PSNR-Y of each measurement, (P,) each.
            steps: Adaptation steps before each measurement.
            rgb: The last restoration, (N, 3, H, W).
            y: Its luma, (N, 1, H, W).
        """
        return Curve(
            label, np.stack(rows), self.ssim(y), tuple(steps), self.colour(rgb, y), undefined=self.undefined(y)
        )


@dataclass(frozen=True)
class Adapted:
    """An adapted network: its figures, and its parameters (P,) after the last step.

    Attributes:
        curve: The figures.
        flat: The parameters; those that every crop was adapted from, if each has its own.
        restored: The restored test crops, RGB (N, 3, H, W) in [0, 1], if `flat` alone cannot restore them.
    """

    curve: Curve
    flat: Tensor
    restored: Tensor | None = None


@dataclass(frozen=True)
class AdaptationJob:
    """Adapts a network to the shots, and measures it every `evaluation.every` steps."""

    options: AdaptationOptimizerSpec

    def run(self, workspace: Workspace, flat: Tensor) -> Adapted:
        """Returns the metrics of every photograph before, between and after the steps."""
        shots = workspace.for_model(workspace.shots)
        test = TestSet.of(workspace)
        lr = to_channels(test.lr, workspace.model.channels).to(workspace.device)
        hr = to_channels(workspace.target_task.query_hr, workspace.model.channels).to(workspace.device)
        rows: list[Floats] = []
        last: list[Tensor] = []
        every, steps = workspace.experiment.evaluation.every, []

        def measure(step: int, current: Tensor) -> None:
            if step % every and step != self.options.steps:
                return
            steps.append(step)
            with torch.no_grad():
                restored = restorer(workspace, current, hr)(lr).cpu()
            last[:] = [restored, restored if workspace.model.channels == "y" else rgb_to_y(restored.clamp(0, 1))]
            rows.append(test.psnr(last[1]))

        adapted = adapt(
            workspace.model,
            workspace.network(flat).to(workspace.device),
            shots.support_lr,
            shots.support_hr,
            self.options,
            seed=derived_seed(workspace.experiment.seed, "adaptation"),
            rule=workspace.learner.adapting(workspace.layout, flat.to(workspace.device)),
            observe=measure,
        )
        described = adaptation_label(self.options, workspace.experiment.evaluation)
        label = "no step, given HR" if workspace.model.privileged else described
        restored, y = last
        rgb = restore_rgb(lambda _: restored, test.lr, scale=workspace.study.scale, channels=workspace.model.channels)
        curve = test.curve(label, rows, steps, rgb, y)
        return Adapted(curve, adapted.cpu())


def _levels(images: Tensor) -> Floats:
    """Rounds images in [0, 1] to 8-bit grey levels; NaN is kept."""
    return np.asarray(np.clip(np.floor(images.to(torch.float64).numpy() * 255.0 + 0.5), 0, 255))


def adaptation_label(options: AdaptationOptimizerSpec, evaluation: EvaluationSpec) -> str:
    """Returns the label of adaptation options, e.g. `adam 0.0003, patches of 32`."""
    patches = "" if options.patch is None else f", patches of {options.patch}"
    parts = _parts(options.adapts)
    return f"{options.optimizer} {options.lr:g}{parts}{patches}{', self-ensemble' if evaluation.self_ensemble else ''}"


def _parts(adapts: Adapts) -> str:
    """Names what adapts, for labels; everything has no name."""
    if isinstance(adapts, LoRASpec):
        return f", LoRA of rank {adapts.lora}"
    return "" if adapts == "all" else f", {adapts if isinstance(adapts, str) else ' '.join(adapts)}"


def unique_photographs(workspace: Workspace) -> tuple[str, ...]:
    """Returns the names of the test photographs, in the order of the metrics."""
    return tuple(dict.fromkeys(workspace.target_draw.photographs))


def bicubic_result(workspace: Workspace) -> ArmResult:
    """Measures bicubic upscaling on the same test crops."""
    test = TestSet.of(workspace)
    rgb = bicubic_upsample(test.lr, workspace.study.scale).clamp(0, 1)
    y = rgb_to_y(rgb)
    curve = test.curve("bicubic", [test.psnr(y)], [0], rgb, y)
    return ArmResult("bicubic", unique_photographs(workspace), curve)


def restored_crops(workspace: Workspace, adapted: Tensor) -> Tensor:
    """Restores the test crops in colour: (N, 3, H, W) in [0, 1]."""
    scale, channels, task = workspace.study.scale, workspace.model.channels, workspace.target_task
    hr = to_channels(task.query_hr, channels)
    return restore_rgb(restorer(workspace, adapted, hr), task.query_lr, scale=scale, channels=channels)


def restorer(workspace: Workspace, flat: Tensor, hr: Tensor) -> Restore:
    """Returns the network with parameters (P,), as it is measured; a teacher is given `hr`."""
    params = workspace.layout.unflatten(flat)

    def restored(lr: Tensor) -> Tensor:
        return restore(workspace.model, params, lr, hr=hr)

    return self_ensemble(restored) if workspace.experiment.evaluation.self_ensemble else restored
