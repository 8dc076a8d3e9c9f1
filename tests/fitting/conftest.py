"""Pairs with a known degradation, made from the embedded photographs by the package's own operations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarestore.degradations import Pipeline, replay
from metarestore.fitting.pairs import Pair
from metarestore.tasks.images import ImageSource, ImageStore, write_image


def degraded(hr: np.ndarray, scale: int, steps: list[dict[str, Any]]) -> np.ndarray:
    """Applies a pipeline to grey levels (H, W, 3)."""
    pipeline = Pipeline.model_validate(steps)
    image = torch.from_numpy(np.ascontiguousarray(hr.transpose(2, 0, 1))).float()[None] / 255
    made = replay(image, pipeline.draw(("test",), scale), [0], "opencv")
    return np.rint(made[0].permute(1, 2, 0).numpy().astype(np.float64) * 255)


@pytest.fixture(scope="session")
def photographs() -> ImageStore:
    return ImageStore.open(ImageSource.embedded("test"))


@pytest.fixture(scope="session")
def make_pair(photographs: ImageStore) -> Callable[..., Pair]:
    """Returns `make_pair(name, scale, *steps, side=384)`: a crop of a photograph, degraded."""

    def made(name: str, scale: int, *steps: dict[str, Any], side: int = 384) -> Pair:
        height, width = (min(side, length) // scale * scale for length in photographs.size(name))
        hr = photographs.patch(name, 0, 0, height, width).astype(np.float64)
        return Pair(name, scale, degraded(hr, scale, list(steps)), hr)

    return made


@pytest.fixture(scope="session")
def save_pairs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns `save_pairs(*pairs)`: a folder with lr/ and hr/."""

    def saved(*pairs: Pair) -> Path:
        folder = tmp_path_factory.mktemp("pairs")
        for side in ("lr", "hr"):
            (folder / side).mkdir(parents=True, exist_ok=True)
            for pair in pairs:
                write_image(folder / side / f"{pair.name}.png", getattr(pair, side).astype(np.uint8))
        return folder

    return saved
