"""Applying a single operation to arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from metarestore.degradations import OPERATIONS, Context


@pytest.fixture
def apply() -> Callable[..., Tensor]:
    """Returns `apply(op, images, seeds=None, backend="opencv", **params)`: one operation, not clamped, not rounded."""

    def applied(
        op: str,
        images: np.ndarray | Tensor,
        seeds: Sequence[int] | None = None,
        backend: str = "opencv",
        size: tuple[int, int] | None = None,
        **params: object,
    ) -> Tensor:
        images = torch.as_tensor(images)
        context = Context(seeds or list(range(len(images))), size or tuple(images.shape[-2:]), backend)
        return OPERATIONS[op].apply(images, params, context)

    return applied


@pytest.fixture
def noise_image() -> Callable[..., np.ndarray]:
    """Returns `noise_image(height, width, seed=0)`: one image (1, 3, H, W) of independent pixels in [0, 1]."""

    def made(height: int, width: int, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).random((1, 3, height, width), dtype=np.float32)

    return made
