"""Evaluates zero-shot adaptation: the network learns from the LR of each test crop alone, and is measured on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from metarestore.config.adaptation import AdaptationOptimizerSpec, AdaptationSpec
from metarestore.decibels import decibels
from metarestore.evaluation.few_shot import AdaptationJob, Adapted, Floats, TestSet, adaptation_label, restorer
from metarestore.evaluation.metrics import PEAK
from metarestore.evaluation.statistics import cluster_means
from metarestore.learners.adaptation import adapt
from metarestore.models.build import restore_rgb, to_channels
from metarestore.models.colour import rgb_to_y
from metarestore.seeds import derived_seed
from metarestore.workspace.workspace import Workspace
from metarestore.zero_shot.blur import Blur
from metarestore.zero_shot.kernel import estimate_kernel
from metarestore.zero_shot.network import internal_pair
from metarestore.zero_shot.options import ZeroShotOptions
from metarestore.zero_shot.restore import restore_zero_shot
from metarestore.zero_shot.shapes import bicubic_kernel

_TEACHER_SHARE = 0.75

KernelName = Literal["estimated", "bicubic"]


class MeasuredJob(Protocol):
    """Adapts a network and measures it."""

    def run(self, workspace: Workspace, flat: Tensor) -> Adapted:
        """Returns the metrics of every photograph before, between and after the steps."""
        ...


def adaptation_job(options: AdaptationOptimizerSpec, adaptation: AdaptationSpec) -> MeasuredJob:
    """Returns the job that adapts with these options, by the method of an experiment."""
    if adaptation.method == "teacher_student":
        return TeacherStudentJob(options, adaptation.kernel)
    return ZeroShotJob(options, adaptation.kernel) if adaptation.method == "zero_shot" else AdaptationJob(options)


@dataclass(frozen=True)
class ZeroShotJob:
    """Adapts a network to the LR of each test crop, and measures it every `evaluation.every` steps."""

    options: AdaptationOptimizerSpec
    kernel: KernelName = "estimated"

    def run(self, workspace: Workspace, flat: Tensor) -> Adapted:
        """Returns the metrics of every photograph before, between and after the steps."""
        test = TestSet.of(workspace)
        steps: list[int] = []
        errors: list[list[float]] = []
        restored: list[Tensor] = []
        for number in range(len(test.lr)):
            crop = _Crop.of(test, number, workspace, self, flat)
            steps, restored = crop.steps, [*restored, crop.restored]
            errors.append(crop.errors)
        by_step = np.asarray(errors).T
        rows = [decibels(cluster_means(row, test.photographs), PEAK) for row in by_step]
        images = torch.cat(restored)
        channels = workspace.model.channels
        y = images if channels == "y" else rgb_to_y(images.clamp(0, 1))
        rgb = restore_rgb(lambda _: images, test.lr, scale=workspace.study.scale, channels=channels)
        label = f"zero-shot, {adaptation_label(self.options, workspace.experiment.evaluation)}"
        if self.kernel == "bicubic":
            label = f"{label}, bicubic kernel"
        curve = test.curve(label, rows, steps, rgb, y)
        return Adapted(curve, workspace.network(flat).detach().cpu(), rgb)


@dataclass(frozen=True)
class TeacherStudentJob:
    """Restores the LR of each test crop by zero-shot restoration with a teacher and a student, and measures it.

    The teacher takes three quarters of the steps. The student takes the rest, at a third of the learning rate. The
    result before the first step is that of back-projection alone.
    """

    options: AdaptationOptimizerSpec
    kernel: KernelName = "estimated"

    def run(self, workspace: Workspace, flat: Tensor) -> Adapted:
        """Returns the metrics of every photograph before and after the steps."""
        test = TestSet.of(workspace)
        before = self._restored(workspace, test, learn=False)
        after = self._restored(workspace, test, learn=True) if self.options.steps else before
        rows = [test.psnr(rgb_to_y(images)) for images in (before, after)[: 2 if self.options.steps else 1]]
        label = f"teacher and student, {adaptation_label(self.options, workspace.experiment.evaluation)}"
        label = f"{label}, bicubic kernel" if self.kernel == "bicubic" else label
        steps = [0, self.options.steps] if self.options.steps else [0]
        return Adapted(test.curve(label, rows, steps, after, rgb_to_y(after)), workspace.network(flat).cpu(), after)

    def _restored(self, workspace: Workspace, test: TestSet, *, learn: bool) -> Tensor:
        """Restores all crops, RGB (N, 3, H, W) in [0, 1]."""
        scale, defaults = workspace.study.scale, ZeroShotOptions()
        steps = self.options.steps if learn else 0
        first = round(_TEACHER_SHARE * steps)
        options = replace(
            defaults,
            kernel=bicubic_kernel(scale) if self.kernel == "bicubic" else None,
            teacher=replace(defaults.teacher, steps=first, lr=self.options.lr),
            student=replace(defaults.student, steps=steps - first, lr=self.options.lr / 3),
            patch=self.options.patch or defaults.patch,
            batch=self.options.batch if self.options.patch else defaults.batch,
            preprocessing=getattr(workspace.experiment.model, "preprocessing", defaults.preprocessing),
            self_ensemble=workspace.experiment.evaluation.self_ensemble,
        )
        seeds = (derived_seed(workspace.experiment.seed, "zero-shot", number) for number in range(len(test.lr)))
        images = (
            restore_zero_shot(lr.to(workspace.device), scale, replace(options, seed=seed)).image.cpu()
            for lr, seed in zip(test.lr, seeds, strict=True)
        )
        return torch.stack(list(images)).clamp(0, 1)


@dataclass(frozen=True)
class _Crop:
    """Results of one test crop: measured steps, mean squared errors, and the last restoration (1, C, H, W)."""

    steps: list[int]
    errors: list[float]
    restored: Tensor

    @classmethod
    def of(cls, test: TestSet, number: int, workspace: Workspace, job: ZeroShotJob, flat: Tensor) -> _Crop:
        own = _only(test, number)
        channels, device = workspace.model.channels, workspace.device
        lr, hr = (to_channels(side, channels).to(device) for side in (own.lr, own.hr))
        scale = workspace.study.scale
        kernel = bicubic_kernel(scale) if job.kernel == "bicubic" else estimate_kernel(own.lr[0], scale).kernel
        support = internal_pair(own.lr, Blur(kernel, scale))
        support_lr, support_hr = (to_channels(side, channels).to(device) for side in support)
        steps: list[int] = []
        errors: list[float] = []
        last: list[Tensor] = []
        every = workspace.experiment.evaluation.every

        def measure(step: int, current: Tensor) -> None:
            if step % every and step != job.options.steps:
                return
            with torch.no_grad():
                image = restorer(workspace, current, hr)(lr).cpu()
            y = image if channels == "y" else rgb_to_y(image.clamp(0, 1))
            steps.append(step)
            errors.append(float(own.errors(y)[0]))
            last[:] = [image]

        adapt(
            workspace.model,
            workspace.network(flat).to(device),
            support_lr,
            support_hr,
            job.options,
            seed=derived_seed(workspace.experiment.seed, "zero-shot", number),
            rule=workspace.learner.adapting(workspace.layout, flat.to(device)),
            observe=measure,
        )
        return cls(steps, errors, last[0])


def _only(test: TestSet, number: int) -> TestSet:
    """Returns a test set with one crop only."""
    one = slice(number, number + 1)
    reference: Floats = test.reference[one]
    return replace(
        test,
        lr=test.lr[one],
        hr=test.hr[one],
        reference=reference,
        gray=test.gray[one],
        photographs=test.photographs[one],
    )
