"""Resampling, always centre-aligned: LR pixel 0 is at HR position (s − 1) / 2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

import numpy as np
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from metarestore.config.bounds import Bounds
from metarestore.config.ranges import Range
from metarestore.degradations.base import (
    Backend,
    Context,
    Degradation,
    Drawn,
    Parameter,
    Params,
    number,
    per_image,
    register,
)
from metarestore.degradations.exportable import upsample_by_convolution
from metarestore.degradations.interpolation import Method, resample_batch, resample_image

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# The radius of the bicubic kernel is 2 LR pixels, so the pixels that are kept do not depend on the end of this border.
_BORDER_LR = 2


def _symmetric_index(length: int, border: int, device: torch.device) -> Tensor:
    """Returns the indices of symmetric padding, for any `border`: 1 0 | 0 1 2 | 2 1."""
    import torch

    position = torch.arange(-border, length + border, device=device) % (2 * length)
    return torch.where(position < length, position, 2 * length - 1 - position)


def pad_symmetric(images: Tensor, border: int) -> Tensor:
    """Pads (N, C, H, W) symmetrically by `border` pixels on all sides: mirrored, with the edge pixel repeated."""
    import torch

    for axis in (-1, -2):
        if border <= images.shape[axis]:  # same result as below, several times faster
            first, last = (images.narrow(axis, start, border) for start in (0, images.shape[axis] - border))
            images = torch.cat([first.flip(axis), images, last.flip(axis)], axis)
        else:
            images = images.index_select(axis, _symmetric_index(images.shape[axis], border, images.device))
    return images


def _antialiased(images: Tensor, size: tuple[int, int], border: int) -> Tensor:
    """Resamples padded `images` to `size` and crops `border` pixels from each side of the result."""
    from torch.nn import functional as F

    # The result of F.interpolate differs in the last bit between memory layouts.
    resampled = F.interpolate(images.contiguous(), size=size, mode="bicubic", antialias=True)
    return resampled[..., border:-border, border:-border]


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
    `scale` for antialiasing, with symmetric padding.
    """
    height, width = images.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"image size must be a multiple of scale {scale}, got {height}x{width}; crop it first")
    if scale == 1:
        return images
    padded = pad_symmetric(images, _BORDER_LR * scale)
    size = (padded.shape[-2] // scale, padded.shape[-1] // scale)
    return _antialiased(padded, size, _BORDER_LR)


def bicubic_upsample(images: Tensor, scale: int) -> Tensor:
    """Enlarges images by an integer factor, as MATLAB's `imresize` does; differentiable and usable under `vmap`.

    Args:
        images: (N, C, h, w), float32 or float64.
        scale: Factor, 1 or more.

    Returns:
        (N, C, scale·h, scale·w), not clamped.

    Source: Keys (1981), eq. 15 (a = −0.5), with symmetric padding.
    """
    import torch

    if scale == 1:
        return images
    if torch.compiler.is_exporting():  # exchange formats have no antialiased interpolation
        return upsample_by_convolution(images, scale)
    padded = pad_symmetric(images, _BORDER_LR)
    size = (padded.shape[-2] * scale, padded.shape[-1] * scale)
    # When enlarging, antialias only selects a = −0.5 (without it, a is −0.75).
    return _antialiased(padded, size, _BORDER_LR * scale)


Methods = Annotated[tuple[Method, ...], Field(min_length=1)]


def resampled(images: Tensor, size: tuple[int, int], method: Method, *, antialias: bool, backend: Backend) -> Tensor:
    """Resamples images (N, 3, H, W) to `size` (height, width); returns them unchanged if they have that size."""
    if tuple(images.shape[-2:]) == size:
        return images
    if backend == "torch":
        return resample_batch(images, size, method, antialias)
    return per_image(images, lambda image, _: resample_image(image, size, method, antialias))


class _Resampling(Degradation):
    """Options shared by `resize` and `downsample`."""

    method: Method | Methods = "bicubic"
    """bicubic, bilinear, area (the mean of the covered pixels), nearest or lanczos; one of them is drawn from a
    list."""
    antialias: bool = True
    """Whether shrinking stretches the kernel as in MATLAB's imresize; otherwise as in the resize of OpenCV and
    PyTorch."""

    def draw(self, rng: np.random.Generator, scale: int) -> dict[str, Parameter]:
        """Draws the parameters, including the method if it is a list."""
        drawn = super().draw(rng, scale)
        if isinstance(self.method, tuple):
            drawn["method"] = self.method[int(rng.integers(len(self.method)))]
        return drawn

    @staticmethod
    def _to(images: Tensor, size: tuple[int, int], params: Params, context: Context) -> Tensor:
        method, antialias = cast(Method, params["method"]), bool(params["antialias"])
        return resampled(images, size, method, antialias=antialias, backend=context.backend)

    def cases(self, position: tuple[int, ...], scale: int) -> Iterator[Drawn]:
        """Yields every combination of methods and factors."""
        for method in (self.method,) if isinstance(self.method, str) else self.method:
            yield from Degradation.cases(self.model_copy(update={"method": method}), position, scale)


@register
class Resize(_Resampling):
    """Resamples the image by a factor, up or down; a later `downsample` brings it to the LR size, whatever its size.

    Source: Wang et al., Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data (2021),
    section 3.1.
    """

    examples: ClassVar = (
        {"factor": [0.4, 1.5], "method": ["area", "bilinear", "bicubic"]},
        {"factor": {"log_uniform": [0.5, 1.5]}, "of": "lr", "antialias": False},
    )

    op: Literal["resize"] = "resize"
    factor: Annotated[Range, Bounds(gt=0, le=8)]
    """New size divided by the size that `of` selects, on both axes; sizes are rounded and at least 4 pixels."""
    of: Literal["image", "lr"] = "image"
    """Size that the factor is relative to: that of the current image, or the LR size."""

    @classmethod
    def apply(cls, images: Tensor, params: Params, context: Context) -> Tensor:
        """Resamples `images` (N, 3, H, W) to (N, 3, H', W')."""
        height, width = context.size if params["of"] == "lr" else images.shape[-2:]
        factor = number(params, "factor")
        size = (max(4, round(height * factor)), max(4, round(width * factor)))
        return cls._to(images, size, params, context)


@register
class Downsample(_Resampling):
    """Shrinks the image to the LR size, 1/scale of HR; every draw of a pipeline has exactly one.

    `nearest` keeps one pixel of each block, which at even scales is half a pixel off its centre: blur with a kernel of
    `centre: block` just before it, otherwise LR is shifted relative to HR.
    """

    examples: ClassVar = (
        {"method": "bicubic"},
        {"method": ["bilinear", "area", "lanczos"]},
        {"method": "nearest"},
        {"method": "bicubic", "antialias": False},
    )

    op: Literal["downsample"] = "downsample"

    @field_validator("probability")
    @classmethod
    def _always(cls, probability: float) -> float:
        if probability != 1:
            raise PydanticCustomError("downsample", "downsample must always be applied; remove its probability")
        return probability

    def draw(self, rng: np.random.Generator, scale: int) -> dict[str, Parameter]:
        """Draws the parameters and records the scale of the task."""
        return {**super().draw(rng, scale), "scale": scale}

    def downsamples(self) -> tuple[int, int]:
        """Returns (1, 1): this operation shrinks the image to the LR size once."""
        return 1, 1

    @classmethod
    def apply(cls, images: Tensor, params: Params, context: Context) -> Tensor:
        """Shrinks `images` (N, 3, H, W) to the LR size."""
        scale = int(number(params, "scale"))
        height, width = context.size
        whole = tuple(images.shape[-2:]) == (height * scale, width * scale)
        if whole and params["method"] == "bicubic" and params["antialias"]:
            return bicubic_downsample(images, scale)  # the same function with which `evaluate` creates LR images
        return cls._to(images, context.size, params, context)
