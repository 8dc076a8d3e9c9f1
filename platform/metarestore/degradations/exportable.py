"""Bicubic upscaling from operations that every exchange format of networks has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from metarestore.degradations.interpolation import Floats, cubic

if TYPE_CHECKING:
    from torch import Tensor

_RADIUS = 2
_TAPS = 2 * _RADIUS + 1


def upsample_by_convolution(images: Tensor, scale: int) -> Tensor:
    """Computes `bicubic_upsample` as a convolution at LR size, followed by a pixel shuffle.

    Each of the s·s phases of an output pixel is a sum over 4×4 input pixels with fixed weights.

    Args:
        images: (N, C, h, w), at least 2×2 pixels; h and w may be symbolic.
        scale: Factor s, 2 or more.

    Returns:
        (N, C, s·h, s·w), not clamped.

    Source: Keys (1981), eq. 15 (a = −0.5), with symmetric padding; Shi et al. (2016) for the sub-pixel form.
    """
    import torch
    from torch.nn import functional as F

    channels, height, width = images.shape[-3:]
    planes = _padded(images).reshape(-1, 1, height + 2 * _RADIUS, width + 2 * _RADIUS)
    phases = F.conv2d(planes, torch.tensor(_phases(scale), dtype=images.dtype, device=images.device))
    return F.pixel_shuffle(phases, scale).reshape(-1, channels, scale * height, scale * width)


def _padded(images: Tensor) -> Tensor:
    """Pads symmetrically by `_RADIUS` pixels; slices export with free sizes, unlike indices that depend on the size."""
    import torch

    for axis in (-1, -2):
        last = images.shape[axis] - 1
        before = [images.narrow(axis, index, 1) for index in reversed(range(_RADIUS))]
        after = [images.narrow(axis, last - index, 1) for index in range(_RADIUS)]
        images = torch.cat([*before, images, *after], axis)
    return images


def _phases(scale: int) -> Floats:
    """Returns the weights of all phases, (s², 1, 5, 5); one row and one column of each phase, if not more, are 0."""
    shifts = (np.arange(scale) + 0.5) / scale - 0.5
    lines = cubic(-0.5)(np.arange(-_RADIUS, _RADIUS + 1) - shifts[:, None])
    phases = lines[:, None, :, None] * lines[None, :, None, :]
    return phases.reshape(scale**2, 1, _TAPS, _TAPS)
