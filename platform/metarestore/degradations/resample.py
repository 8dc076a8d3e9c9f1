"""Resampling, always centre-aligned: LR pixel 0 sits at HR position (s − 1) / 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from metarestore.degradations.base import Degradation, Parameter, Params, number, register

# Bicubic reaches 2 LR pixels from a centre, so none of the pixels that are kept sees the end of this border.
_BORDER_LR = 2


def _symmetric_index(length: int, border: int, device: torch.device) -> Tensor:
    """Returns which pixels make up a line that repeats its edge pixels, for any `border`: 1 0 | 0 1 2 | 2 1."""
    position = torch.arange(-border, length + border, device=device) % (2 * length)
    return torch.where(position < length, position, 2 * length - 1 - position)


def pad_symmetric(images: Tensor, border: int) -> Tensor:
    """Pads (N, C, H, W) by `border` pixels on all sides, mirrored with the edge pixel repeated."""
    height, width = images.shape[-2:]
    rows = _symmetric_index(height, border, images.device)
    columns = _symmetric_index(width, border, images.device)
    return images.index_select(-2, rows).index_select(-1, columns)


def _antialiased(images: Tensor, size: tuple[int, int], mode: str, border: int) -> Tensor:
    """Resamples padded `images` to `size` and crops `border` pixels of the result."""
    # The result of F.interpolate differs in the last bit between memory layouts.
    resampled = F.interpolate(images.contiguous(), size=size, mode=mode, antialias=True)
    return resampled[..., border:-border, border:-border]


def _downsample(images: Tensor, scale: int, mode: str) -> Tensor:
    height, width = images.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"image size must be a multiple of scale {scale}, got {height}x{width}; crop it first")
    if scale == 1:
        return images
    padded = pad_symmetric(images, _BORDER_LR * scale)
    size = (padded.shape[-2] // scale, padded.shape[-1] // scale)
    return _antialiased(padded, size, mode, _BORDER_LR)


def bicubic_downsample(images: Tensor, scale: int) -> Tensor:
    """Shrinks images by an integer factor, as MATLAB's `imresize` does.

    Args:
        images: (N, C, H, W), float32 or float64; H and W are multiples of `scale`.
        scale: Factor, 1 or more.

    Returns:
        (N, C, H/scale, W/scale), not clamped: bicubic overshoots at edges.

    Raises:
        ValueError: H or W is not a multiple of `scale`.

    Source: Keys, Cubic Convolution Interpolation for Digital Image Processing (1981), eq. 15 (a = −0.5), stretched by
    `scale` against aliasing, over a symmetric border.
    """
    return _downsample(images, scale, "bicubic")


def bicubic_upsample(images: Tensor, scale: int) -> Tensor:
    """Enlarges images by an integer factor, as MATLAB's `imresize` does; differentiable and usable under `vmap`.

    Args:
        images: (N, C, h, w), float32 or float64.
        scale: Factor, 1 or more.

    Returns:
        (N, C, scale·h, scale·w), not clamped.

    Source: Keys (1981), eq. 15 (a = −0.5), over a symmetric border.
    """
    if scale == 1:
        return images
    padded = pad_symmetric(images, _BORDER_LR)
    size = (padded.shape[-2] * scale, padded.shape[-1] * scale)
    # antialias does nothing when enlarging, except that it chooses a = −0.5 (it is −0.75 without).
    return _antialiased(padded, size, "bicubic", _BORDER_LR * scale)


def area_downsample(images: Tensor, scale: int) -> Tensor:
    """Averages blocks of scale×scale pixels (N, C, H, W), as the pixels of a sensor do.

    Raises:
        ValueError: H or W is not a multiple of `scale`.
    """
    height, width = images.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"image size must be a multiple of scale {scale}, got {height}x{width}; crop it first")
    return F.avg_pool2d(images.contiguous(), scale)


@register
class Downsample(Degradation):
    """Shrinks the image by the task's scale; every pipeline has exactly one, unless its scale is 1.

    There is no `nearest`: at an even scale it takes a pixel beside the centre, which shifts LR against HR.
    """

    op: Literal["downsample"] = "downsample"
    method: Literal["bicubic", "bilinear", "area"] = "bicubic"
    """bicubic: MATLAB's imresize; bilinear: a triangle stretched by the scale; area: the mean of each block."""

    @field_validator("probability")
    @classmethod
    def _always(cls, probability: float) -> float:
        if probability != 1:
            raise PydanticCustomError("downsample", "downsample cannot be left out; remove its probability")
        return probability

    def draw(self, rng: np.random.Generator, scale: int) -> dict[str, Parameter]:
        """Records the task's scale with the method."""
        return {"method": self.method, "scale": scale}

    @staticmethod
    def apply(images: Tensor, params: Params, seeds: Sequence[int]) -> Tensor:
        """Shrinks `images` (N, 3, H, W) to (N, 3, H/s, W/s); the noise seeds are not used."""
        scale = int(number(params, "scale"))
        if params["method"] == "area":
            return area_downsample(images, scale)
        return _downsample(images, scale, str(params["method"]))
