"""Rows of a contact sheet: what a task distribution does to photographs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarestore.reports.contact_sheet import SheetRow
from metarestore.tasks.distribution import SyntheticTasks, TaskDistribution
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.tasks.open import open_pairs
from metarestore.tasks.spec import PairsSpec, SyntheticSpec
from metarestore.tasks.task import Episode, TaskDraw

_SIDE = 192
"""Side of a crop, in HR pixels: a multiple of every scale, and no larger than the smallest test photograph."""


def preview_rows(name: str, spec: SyntheticSpec | PairsSpec, *, seed: int, count: int) -> list[SheetRow]:
    """Draws `count` tasks on the embedded test photographs, or on the pairs themselves."""
    episode = Episode(support=1, query=0, patch=_SIDE)
    distribution: TaskDistribution
    if isinstance(spec, PairsSpec):
        distribution = open_pairs(name, spec, episode)
    else:
        store = ImageStore.open(ImageSource.embedded("test"))
        distribution = SyntheticTasks(name, spec, {"test": store}, episode, "test")
    rows = []
    for index in range(count):
        draw = distribution.draw(seed, index)
        lr, hr = distribution.build_support(draw)
        rows.append(SheetRow(_pixels(hr[0]), _pixels(lr[0]), _caption(draw)))
    return rows


def _caption(draw: TaskDraw) -> str:
    shown = [
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in draw.parameters().items()
    ]
    return "\n".join(shown) or draw.support[0].image


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = (image * 255.0).round().byte().permute(1, 2, 0).numpy()
    return pixels
