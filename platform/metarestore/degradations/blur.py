"""Blurs: convolution with a kernel that sums to 1, over a symmetric border (the edge pixel is repeated)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from metarestore.config.ranges import Bounds, Range, Uniform
from metarestore.degradations.base import Degradation, Image, Params, number, per_image, register

# Beyond 5 standard deviations lies less than 1e-6 of a Gaussian: below what float32 images can show.
_TRUNCATE = 5.0
# A Gaussian this narrow is a single pixel: sigma 0 means no blur.
_SMALLEST_SIGMA = 1e-3


def gaussian_line(sigma: float) -> Image:
    """Returns a sampled Gaussian of standard deviation `sigma` pixels, which sums to 1."""
    sigma = max(sigma, _SMALLEST_SIGMA)
    radius = max(1, math.ceil(_TRUNCATE * sigma))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(weights / weights.sum(), dtype=np.float32)


def gaussian_kernel(sigma: float, ratio: float, angle: float) -> Image:
    """Returns a sampled anisotropic Gaussian (K, K), which sums to 1.

    Args:
        sigma: Standard deviation along the short axis, in pixels.
        ratio: Long axis over short axis, 1 or more.
        angle: Direction of the long axis in degrees, counter-clockwise from the horizontal.
    """
    short = max(sigma, _SMALLEST_SIGMA)
    long = short * ratio
    y, x = _grid(math.ceil(_TRUNCATE * long))
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, across = cosine * x - sine * y, sine * x + cosine * y  # rows count downwards
    weights = np.exp(-0.5 * ((along / long) ** 2 + (across / short) ** 2))
    return np.asarray(weights / weights.sum(), dtype=np.float32)


def disc_kernel(radius: float) -> Image:
    """Returns a disc (K, K) of `radius` pixels that sums to 1; its edge falls linearly over one pixel.

    Below a radius of 2, the pixel grid is coarse against the disc: the size is then accurate to about a tenth.
    """
    y, x = _grid(math.ceil(radius + 0.5))
    weights = np.clip(radius + 0.5 - np.hypot(x, y), 0.0, 1.0)
    return np.asarray(weights / weights.sum(), dtype=np.float32)


def blur_isotropic(image: Image, line: Image) -> Image:
    """Convolves one image (H, W, 3) with `line` along both axes."""
    return np.asarray(cv2.sepFilter2D(image, -1, line, line, borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def blur_plane(image: Image, kernel: Image) -> Image:
    """Convolves one image (H, W, 3) with a point-symmetric `kernel` (K, K)."""
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT), dtype=np.float32)


def _grid(radius: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns the vertical and the horizontal distance from the centre of a kernel."""
    offsets = np.arange(-radius, radius + 1, dtype=np.float64)
    y, x = np.meshgrid(offsets, offsets, indexing="ij")
    return y, x


@register
class GaussianBlur(Degradation):
    """Blurs with a Gaussian, round or elongated.

    Source: the anisotropic Gaussian kernels of Zhang et al., Learning a Single Convolutional Super-Resolution Network
    for Multiple Degradations (2018), section 3.2.
    """

    op: Literal["gaussian_blur"] = "gaussian_blur"
    sigma: Annotated[Range, Bounds(ge=0, le=32)]
    """Standard deviation along the short axis, in pixels of the image it acts on (HR pixels before `downsample`)."""
    ratio: Annotated[Range, Bounds(ge=1, le=16)] = Uniform((1.0, 1.0))
    """Long axis over short axis: 1 is round."""
    angle: Annotated[Range, Bounds(ge=0, le=180)] = Uniform((0.0, 0.0))
    """Direction of the long axis in degrees, counter-clockwise from the horizontal."""

    @staticmethod
    def apply(images: Tensor, params: Params, seeds: Sequence[int]) -> Tensor:
        """Blurs `images` (N, 3, H, W); the noise seeds are not used."""
        sigma, ratio = number(params, "sigma"), number(params, "ratio")
        if ratio == 1:
            line = gaussian_line(sigma)
            return per_image(images, lambda image, _: blur_isotropic(image, line))
        kernel = gaussian_kernel(sigma, ratio, number(params, "angle"))
        return per_image(images, lambda image, _: blur_plane(image, kernel))


@register
class DefocusBlur(Degradation):
    """Blurs with a disc, as a lens out of focus does in geometrical optics.

    Source: Goodman, Introduction to Fourier Optics (2005), section 6.4: the point spread of a large focusing error is
    the image of the round aperture.
    """

    op: Literal["defocus_blur"] = "defocus_blur"
    radius: Annotated[Range, Bounds(ge=0, le=32)]
    """Radius of the disc, in pixels of the image it acts on (HR pixels before `downsample`)."""

    @staticmethod
    def apply(images: Tensor, params: Params, seeds: Sequence[int]) -> Tensor:
        """Blurs `images` (N, 3, H, W); the noise seeds are not used."""
        kernel = disc_kernel(number(params, "radius"))
        return per_image(images, lambda image, _: blur_plane(image, kernel))
