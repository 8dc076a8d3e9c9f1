"""Noise on the encoded image: the same statistics in every pixel value's own scale, no camera model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from torch import Tensor

from metarestore.config.ranges import Bounds, Range
from metarestore.degradations.base import Degradation, Image, Params, number, per_image, register
from metarestore.seeds import generator


@register
class GaussianNoise(Degradation):
    """Adds white Gaussian noise, of the same strength everywhere."""

    stochastic: ClassVar[bool] = True

    op: Literal["gaussian_noise"] = "gaussian_noise"
    sigma: Annotated[Range, Bounds(ge=0, le=255)]
    """Standard deviation, in grey levels of 0..255."""
    gray: bool = False
    """Whether the three channels share one field, so that the noise has no colour."""

    @staticmethod
    def apply(images: Tensor, params: Params, seeds: Sequence[int]) -> Tensor:
        """Adds a field of its own to each of `images` (N, 3, H, W)."""
        sigma = np.float32(number(params, "sigma") / 255)
        channels = 1 if params["gray"] else 3

        def add(image: Image, index: int) -> Image:
            shape = (*image.shape[:2], channels)
            return image + sigma * generator(seeds[index]).standard_normal(shape, dtype=np.float32)

        return per_image(images, add)


@register
class PoissonNoise(Degradation):
    """Counts photons: the mean is kept, the variance is value / peak.

    Source: Hasinoff, Photon, Poisson Noise, in Computer Vision: A Reference Guide (2014).
    """

    stochastic: ClassVar[bool] = True

    op: Literal["poisson_noise"] = "poisson_noise"
    peak: Annotated[Range, Bounds(gt=0, le=1e6)]
    """Photons that white stands for: fewer are noisier."""

    @staticmethod
    def apply(images: Tensor, params: Params, seeds: Sequence[int]) -> Tensor:
        """Draws the photons of each of `images` (N, 3, H, W), which lie in [0, 1]."""
        peak = number(params, "peak")

        def count(image: Image, index: int) -> Image:
            photons = generator(seeds[index]).poisson(image.astype(np.float64) * peak)
            return (photons / peak).astype(np.float32)

        return per_image(images, count)
