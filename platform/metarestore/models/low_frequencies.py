"""Keeps the low frequencies of the input: exposure, tone and vignetting of LR are not what super-resolution restores.

LR and HR of a real pair differ in them from photograph to photograph, and a network that learns from a handful of pairs
learns those differences, too.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from metarestore.degradations.resample import bicubic_upsample

SIGMA = 4.0
"""Standard deviation of the Gaussian, in LR pixels."""
RADIUS = 12
"""Radius of the Gaussian, in LR pixels."""
REACH = RADIUS + 2
"""Farthest LR pixel that a corrected pixel depends on: the Gaussian, and bicubic upscaling."""


def keep_low_frequencies(images: Tensor, lr: Tensor, scale: int) -> Tensor:
    """Replaces the low frequencies of restored or HR images by those of LR: y + up(G(x − down(y))).

    It is linear in both, differentiable, and usable under `vmap`.

    Args:
        images: y, (N, C, s·h, s·w).
        lr: x, (N, C, h, w).
        scale: The factor s.

    Returns:
        The corrected images, not clamped; G is a Gaussian of `SIGMA` LR pixels, normalised at the borders, and down is
        the mean of s×s pixels.
    """
    # Pooling by a view is exact for any memory layout and has derivatives of any order.
    high, wide = lr.shape[-2:]
    small = images.reshape(*images.shape[:-2], high, scale, wide, scale).mean(dim=(-3, -1))
    return images + bicubic_upsample(_smoothed(lr - small), scale)


def _smoothed(images: Tensor) -> Tensor:
    """Convolves (N, C, h, w) with the Gaussian; weights outside of the image are left out."""
    for axis in (-1, -2):
        images = _along(images, axis) / _along(torch.ones_like(images[:1, :1]), axis)
    return images


def _along(images: Tensor, axis: int) -> Tensor:
    """Convolves (N, C, h, w) with the Gaussian along an axis, with zeros outside."""
    # What is computed while exporting is symbolic, and must not stay in the cache.
    gaussian = _gaussian.__wrapped__ if torch.compiler.is_exporting() else _gaussian
    weight = gaussian(images.dtype, str(images.device))
    weight = weight[None, None, None] if axis == -1 else weight[None, None, :, None]
    planes = images.reshape(-1, 1, *images.shape[-2:])
    return F.conv2d(planes, weight, padding=(0, RADIUS) if axis == -1 else (RADIUS, 0)).reshape(images.shape)


@lru_cache(maxsize=8)
def _gaussian(dtype: torch.dtype, device: str) -> Tensor:
    """Returns the weights (2·RADIUS + 1,)."""
    positions = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (positions / SIGMA) ** 2)
    return (weights / weights.sum()).to(device, dtype)
