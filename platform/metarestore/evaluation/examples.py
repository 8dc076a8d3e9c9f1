"""Test crops before and after restoration, as images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.decibels import decibels
from metarestore.degradations.resample import bicubic_upsample
from metarestore.evaluation.few_shot import TestSet, restored_crops
from metarestore.evaluation.metrics import PEAK
from metarestore.evaluation.results import Example
from metarestore.models.colour import rgb_to_y
from metarestore.workspace.workspace import Workspace


def make_examples(
    workspace: Workspace, adapted: Mapping[str, tuple[Workspace, Tensor] | Tensor], count: int = 4
) -> tuple[Example, ...]:
    """Restores one test crop of each of the first `count` photographs by bicubic upscaling and by adapted networks.

    Args:
        workspace: Any workspace of the study; it holds the test crops.
        adapted: Label to a network's workspace and its adapted parameters (P,), or to the test crops as it restored
            them, RGB (N, 3, H, W).
        count: Number of photographs.
    """
    test = TestSet.of(workspace)
    lr, hr = workspace.target_task.query_lr, workspace.target_task.query_hr
    restored = {"bicubic": bicubic_upsample(lr, workspace.study.scale).clamp(0, 1)}
    restored |= {
        label: entry if isinstance(entry, Tensor) else restored_crops(*entry) for label, entry in adapted.items()
    }
    psnr = {label: decibels(test.errors(rgb_to_y(images)), PEAK) for label, images in restored.items()}
    nearest = torch.nn.functional.interpolate(lr, scale_factor=float(workspace.study.scale), mode="nearest")
    photographs = workspace.target_draw.photographs
    chosen = [photographs.index(name) for name in dict.fromkeys(photographs)][:count]
    return tuple(
        Example(
            caption=_caption(workspace, k),
            hr=_pixels(hr[k]),
            images={"LR": _pixels(nearest[k])} | {label: _pixels(images[k]) for label, images in restored.items()},
            psnr_y={label: float(values[k]) for label, values in psnr.items()},
        )
        for k in chosen
    )


def _caption(workspace: Workspace, k: int) -> str:
    draw = workspace.target_draw.test[k]
    values = ", ".join(f"{key} {_shown(value)}" for key, value in draw.parameters().items() if _is_number(value))
    return f"{draw.support[0].image}: {values}" if values else draw.support[0].image


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    """Converts (3, H, W) in [0, 1] to uint8 (H, W, 3)."""
    rounded: NDArray[np.uint8] = (image.clamp(0, 1) * 255.0).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return rounded
