"""Compares ways to adapt on the shots alone: some are left out, and the adapted network is measured on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.config.adaptation import AdaptationSpec
from metarestore.decibels import decibels
from metarestore.degradations.resample import bicubic_upsample
from metarestore.evaluation.few_shot import evaluation_luma
from metarestore.evaluation.metrics import PEAK, batch_mse
from metarestore.learners.adaptation import adapt
from metarestore.models.build import restore_rgb
from metarestore.models.colour import rgb_to_y
from metarestore.models.parameters import initial_vector
from metarestore.seeds import derived_seed
from metarestore.workspace.workspace import Workspace

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shots:
    """The shots, as a network sees them, and as it is measured on them.

    Attributes:
        lr: LR (K, C, h, w), in the network's channels.
        hr: HR that is learned from, (K, C, s·h, s·w).
        rgb: LR in RGB, (K, 3, h, w).
        truth: HR in RGB, (K, 3, s·h, s·w).
    """

    lr: Tensor
    hr: Tensor
    rgb: Tensor
    truth: Tensor

    @classmethod
    def of(cls, workspace: Workspace) -> Shots:
        """Takes the shots of a workspace, without those of another colour."""
        learned, given = workspace.for_model(workspace.shots), workspace.given_shots
        return cls(learned.support_lr, learned.support_hr, given.support_lr, given.support_hr)

    def without(self, left_out: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns LR and HR of all others."""
        others = [k for k in range(len(self.lr)) if k not in left_out]
        return self.lr[others], self.hr[others]


@dataclass(frozen=True)
class Candidate:
    """A network that is adapted in one way: its workspace, initial parameters, and options (None: not adapted)."""

    workspace: Workspace
    flat: Tensor
    options: AdaptationSpec | None


def candidate(workspace: Workspace) -> Candidate:
    """Returns the way of an arm that is not trained itself."""
    options = workspace.experiment.adaptation
    return Candidate(workspace, workspace.network(workspace.initial()), options if options.steps else None)


def folds(shots: int, count: int) -> list[list[int]]:
    """Divides shots into groups that are left out together.

    >>> folds(5, 5), folds(5, 2)
    ([[0], [1], [2], [3], [4]], [[0, 2, 4], [1, 3]])
    """
    return [list(range(shots))[start::count] for start in range(count)]


def left_out_gains(one: Candidate, groups: Sequence[Sequence[int]], advance: Callable[[], None]) -> Floats:
    """Measures a way on every shot, adapted to the shots of the other groups.

    Args:
        one: The way.
        groups: The shots that are left out together.
        advance: Called after each group.

    Returns:
        PSNR-Y over bicubic upscaling in dB, of each shot: (K,).
    """
    shots, workspace = Shots.of(one.workspace), one.workspace
    gains = np.empty(len(shots.lr))
    for number, group in enumerate(groups):
        flat = one.flat
        if one.options is not None:
            lr, hr = shots.without(group)
            seed = derived_seed(workspace.experiment.seed, "left-out", number)
            rule = workspace.learner.adapting(workspace.layout, flat)
            flat = adapt(workspace.model, flat, lr, hr, one.options, rule=rule, seed=seed)
        gains[list(group)] = [_gain(workspace, flat, shots, k) for k in group]
        advance()
    return gains


def seconds_per_step(workspace: Workspace, steps: int = 2) -> float:
    """Measures the duration of an adaptation step; the first, which is slower, is not counted."""
    shots, options = Shots.of(workspace), workspace.experiment.adaptation
    began: list[float] = []
    adapt(
        workspace.model,
        initial_vector(workspace.model),
        shots.lr,
        shots.hr,
        options.model_copy(update={"steps": steps + 1}),
        rule=workspace.learner.adapting(workspace.layout, workspace.initial()),
        observe=lambda step, flat: began.append(time.perf_counter()),
    )
    return (began[-1] - began[1]) / steps


def best(gains: Mapping[str, Floats]) -> str:
    """Returns the way with the greatest mean gain; of equal ones, the first.

    >>> best({"unadapted": np.array([0.1, 0.3]), "adapted": np.array([0.4, 0.2])})
    'adapted'
    """
    return max(gains, key=lambda name: float(np.nan_to_num(gains[name], nan=-np.inf).mean()))


def _gain(workspace: Workspace, flat: Tensor, shots: Shots, k: int) -> float:
    """Returns PSNR-Y over bicubic upscaling of one shot, in dB."""
    one, scale, channels = slice(k, k + 1), workspace.study.scale, workspace.model.channels
    params = workspace.layout.unflatten(flat)

    def restored(lr: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(workspace.model, params, (lr,))
        return output

    own = restore_rgb(restored, shots.rgb[one], scale=scale, channels=channels)
    bicubic = bicubic_upsample(shots.rgb[one], scale).clamp(0, 1)
    truth = _luma(shots.truth[one])
    mine, theirs = (batch_mse(_luma(image), truth, scale) for image in (own, bicubic))
    return float(decibels(mine, PEAK)[0] - decibels(theirs, PEAK)[0])


def _luma(rgb: Tensor) -> Floats:
    return evaluation_luma(rgb_to_y(rgb), np.zeros(len(rgb), np.bool_))
