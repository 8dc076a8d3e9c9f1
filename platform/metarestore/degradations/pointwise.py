"""Pointwise operations, written once for NumPy (image by image) and PyTorch (batches, any device).

Images are (..., H, W, 3) here: one image with NumPy, a batch with PyTorch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from typing_extensions import TypeIs

from metarestore.degradations.base import Context, Degradation, Image, Params, per_image
from metarestore.seeds import generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Pixels = TypeVar("Pixels", Image, "Tensor")
"""Pixel values, as a NumPy array or a PyTorch tensor; Python's operators work on both."""

FEW_COUNTS = 4.0
"""Expectation below which counts are drawn by NumPy's sampler; above, `many_counts` draws them."""

_BLOCK_ROWS = 16


def many_counts(rate: Image, normal: Image) -> Image:
    """Maps standard normal values to Poisson counts, using an expansion of the quantiles in 1 / √rate.

    For expectations of at least 4, the error of cumulative probabilities is at most 4e-4 (1e-4 from 10 on); it takes a
    quarter of the time of an exact sampler.

    Args:
        rate: Expectations; those below `FEW_COUNTS` are raised to it.
        normal: Standard normal values of the same shape.

    Source: Giles, Algorithm 955: Approximation of the Inverse Poisson Cumulative Distribution Function (2016),
    the asymptotic expansion in a normal variable, with its first three corrections.
    """
    rate = np.maximum(rate, np.float32(FEW_COUNTS))
    inverse = 1 / rate
    spread = np.sqrt(rate)
    curve = (1 / 6 + 7 / 810 * inverse) + normal * (normal * inverse / 270 - 1 / (72 * spread))
    steps = normal * ((spread - 1 / (36 * spread)) + normal * curve)
    return np.asarray(np.floor(np.maximum(rate + 1 / 3 - 8 / 405 * inverse + steps, 0)))


class Fields(Protocol[Pixels]):
    """Source of the noise fields of an image or a batch; fields are independent between calls and between images."""

    def normal(self, like: Pixels, channels: int = 3) -> Pixels:
        """Draws standard normal values (..., H, W, channels) for the pixels of `like` (..., H, W, C)."""
        ...

    def count_error(self, rate: Pixels) -> Pixels:
        """Draws Poisson counts minus their expectations `rate`, which must not be negative; not differentiable."""
        ...


class NumpyFields:
    """Noise fields of one image."""

    def __init__(self, seed: int) -> None:
        self._rng = generator(seed)

    def normal(self, like: Image, channels: int = 3) -> Image:
        """Draws (H, W, channels)."""
        return self._rng.standard_normal((*like.shape[:-1], channels), dtype=np.float32)

    def count_error(self, rate: Image) -> Image:
        """Draws an array of the shape of `rate`."""
        normal = self._rng.standard_normal(rate.shape, dtype=np.float32)
        # Blocks of a few rows stay in the processor's cache: three times as fast as all rows at once.
        blocks = range(0, len(rate), _BLOCK_ROWS)
        counts = np.concatenate([many_counts(*(x[k : k + _BLOCK_ROWS] for x in (rate, normal))) for k in blocks])
        few = rate < FEW_COUNTS
        counts[few] = self._rng.poisson(rate[few])
        return counts - rate


class TorchFields:
    """Noise fields of a batch: one generator per image, on the device of the images."""

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        import torch

        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def normal(self, like: Tensor, channels: int = 3) -> Tensor:
        """Draws (N, H, W, channels)."""
        field = like.new_empty((*like.shape[:-1], channels))
        for each, rng in zip(field, self._generators, strict=True):
            each.normal_(generator=rng)
        return field

    def count_error(self, rate: Tensor) -> Tensor:
        """Draws a tensor of the shape of `rate` (N, ...)."""
        import torch

        rate = rate.detach()
        pairs = zip(rate, self._generators, strict=True)
        return torch.stack([torch.poisson(each.contiguous(), generator=rng) for each, rng in pairs]) - rate


def is_tensor(values: object) -> TypeIs[Tensor]:
    """Returns whether values are a PyTorch tensor rather than a NumPy array."""
    import torch

    return isinstance(values, torch.Tensor)


class Pointwise(Degradation):
    """An operation that is a formula of each pixel's value, position and noise, shared by both backends.

    An operation that also needs neighbouring pixels branches on the array type for that part only, as `isp` does.
    """

    @staticmethod
    @abstractmethod
    def change(image: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
        """Degrades pixels (..., H, W, 3) in [0, 1]; the result may leave [0, 1].

        Args:
            image: Pixels; only the last three axes (height, width, channels) are guaranteed to exist.
            params: Drawn parameters.
            fields: Source of noise.
        """

    @classmethod
    def apply(cls, images: Tensor, params: Params, context: Context) -> Tensor:
        """Applies `change` to `images` (N, 3, H, W), one by one or as a batch."""
        if context.backend == "torch":
            fields = TorchFields(context.seeds, images.device)
            return cls.change(images.permute(0, 2, 3, 1), params, fields).permute(0, 3, 1, 2)
        return per_image(images, lambda image, index: cls.change(image, params, NumpyFields(context.seeds[index])))


def where_above(values: Pixels, threshold: float, yes: Pixels, no: Pixels) -> Pixels:
    """Returns `yes` where `values` exceed a threshold, and `no` elsewhere."""
    if is_tensor(values):
        import torch

        return torch.where(values > threshold, yes, no)
    return np.where(values > threshold, yes, no)


def clipped(values: Pixels, low: float | None, high: float | None = None) -> Pixels:
    """Clips values to [low, high]; None means no bound."""
    return values.clip(low, high) if is_tensor(values) else np.clip(values, low, high)


def root(values: Pixels) -> Pixels:
    """Returns the square root of non-negative values."""
    # The derivative of the root is infinite at 0, where the chain rule would make the gradient NaN.
    return values.clip(1e-20).sqrt() if is_tensor(values) else np.sqrt(values)


def sine(values: Pixels) -> Pixels:
    """Returns the sine of angles in radians."""
    return values.sin() if is_tensor(values) else np.sin(values)


def arcsine(values: Pixels) -> Pixels:
    """Returns the angles in radians whose sines are `values`, in [-1, 1]."""
    return values.asin() if is_tensor(values) else np.arcsin(values)


def channel_sum(image: Pixels, weights: Pixels) -> Pixels:
    """Returns the weighted sum (..., H, W, 1) of the channels of (..., H, W, 3)."""
    weighted: Pixels = image * weights
    return weighted[..., 0:1] + weighted[..., 1:2] + weighted[..., 2:3]


def stacked(planes: Sequence[Pixels]) -> Pixels:
    """Stacks planes (..., H, W) as channels (..., H, W, C)."""
    first = planes[0]
    if is_tensor(first):
        import torch

        return torch.stack(list(planes), -1)
    return np.stack(list(planes), -1)


def constant(values: npt.ArrayLike, like: Pixels) -> Pixels:
    """Converts numbers, e.g. one per channel, to an array of the same library, dtype and device as `like`."""
    if is_tensor(like):
        import torch

        return torch.as_tensor(np.asarray(values), dtype=like.dtype, device=like.device)
    return np.asarray(values, dtype=like.dtype)
