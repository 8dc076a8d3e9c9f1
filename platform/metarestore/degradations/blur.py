"""Blurs: each pixel becomes a weighted mean of its neighbourhood, with a kernel that is drawn once per task.

Kernels are applied by correlation, out[p] = Σ_d k[d] · in[p + d].
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from metarestore.config.bounds import Bounds
from metarestore.config.ranges import Range, Uniform
from metarestore.degradations.base import Context, Degradation, Parameter, Params, number, per_image, register
from metarestore.degradations.filtering import Filter, filter_batch, filter_image, prepare
from metarestore.degradations.kernels import (
    Kernel,
    disc_kernel,
    gaussian_kernel,
    gaussian_line,
    generalised_kernel,
    motion_kernel,
    plateau_kernel,
    sinc_kernel,
)

if TYPE_CHECKING:
    from torch import Tensor


class KernelBlur(Degradation):
    """An operation that filters by a kernel, which the subclass defines."""

    centre: Literal["pixel", "block"] = "pixel"
    """Position of the kernel's centre. `block`: at even scales half a pixel further right and down, so that LR is
    aligned with HR when `downsample` with method `nearest` follows."""

    def shift(self, scale: int) -> float:
        """Returns the offset of the kernel's centre to the right and down, in pixels."""
        return 0.5 if self.centre == "block" and scale % 2 == 0 else 0.0

    def draw(self, rng: np.random.Generator, scale: int) -> dict[str, Parameter]:
        """Draws the parameters; `centre` is replaced by `shift`, and keys that are None are omitted."""
        drawn = {name: value for name, value in super().draw(rng, scale).items() if value is not None}
        del drawn["centre"]
        return {**drawn, "shift": self.shift(scale)}

    @staticmethod
    @abstractmethod
    def kernel(params: Params) -> Kernel:
        """Returns the kernel for drawn parameters: (h, w), or (K,) for the outer product of a vector with itself.

        The output pixel corresponds to the kernel's pixel (h − 1) // 2, (w − 1) // 2.
        """

    @classmethod
    def apply(cls, images: Tensor, params: Params, context: Context) -> Tensor:
        """Filters `images` (N, 3, H, W)."""
        ready = _ready(cls, tuple((name, _frozen(value)) for name, value in params.items()))
        if context.backend == "torch":
            return filter_batch(images, ready)
        return per_image(images, lambda image, _: filter_image(image, ready))


_Frozen = float | int | str | tuple[float, ...]


def _frozen(value: Parameter) -> _Frozen:
    return tuple(value) if isinstance(value, list) else value


# A task applies the same kernel to each of its images in turn.
@lru_cache(maxsize=32)
def _ready(operation: type[KernelBlur], params: tuple[tuple[str, _Frozen], ...]) -> Filter:
    return prepare(
        operation.kernel({name: list(value) if isinstance(value, tuple) else value for name, value in params})
    )


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise PydanticCustomError("kernel", "{size} is even; write an odd number", {"size": size})
    return size


Size = Annotated[int, Field(ge=3, le=101), AfterValidator(_odd)]
Beta = Annotated[Range, Bounds(ge=0.25, le=16)]


class _Elliptic(KernelBlur):
    """A kernel whose level sets are ellipses."""

    sigma: Annotated[Range, Bounds(ge=0, le=32)]
    """Width along the short axis, in pixels of the image it is applied to (HR pixels before `downsample`); the standard
    deviation for a Gaussian."""
    ratio: Annotated[Range, Bounds(ge=1, le=16)] = Uniform((1.0, 1.0))
    """Ratio of the long axis to the short axis: 1 is round."""
    angle: Annotated[Range, Bounds(ge=0, le=180)] = Uniform((0.0, 0.0))
    """Direction of the long axis in degrees, counter-clockwise from the horizontal."""
    across: Annotated[Range, Bounds(ge=0, le=32)] | None = None
    """Width perpendicular to `angle`, in pixels, drawn independently and used instead of `ratio`; `sigma` is then the
    width along `angle`, which may be the longer or the shorter axis."""

    @model_validator(mode="after")
    def _ratio_or_across(self) -> Self:
        if self.across is not None and self.ratio != Uniform((1.0, 1.0)):
            raise PydanticCustomError(
                "kernel", "across and ratio both set the elongation of the kernel; remove one of them"
            )
        return self

    def draw(self, rng: np.random.Generator, scale: int) -> dict[str, Parameter]:
        """Draws the parameters, with either `ratio` or `across`."""
        drawn = super().draw(rng, scale)
        if self.across is not None:
            del drawn["ratio"]
        return drawn


def _ellipse(params: Params) -> tuple[float, float, float]:
    """Returns the width perpendicular to `angle`, the ratio of the width along it to that width, and `angle`."""
    sigma, angle = number(params, "sigma"), number(params, "angle")
    if "across" not in params:
        return sigma, number(params, "ratio"), angle
    # A width of 0 is replaced by one that is too small to matter.
    along, across = max(sigma, 1e-3), max(number(params, "across"), 1e-3)
    return across, along / across, angle


@register
class GaussianBlur(_Elliptic):
    """Blurs with an isotropic or anisotropic Gaussian.

    Source: the anisotropic Gaussian kernels of Zhang et al., Learning a Single Convolutional Super-Resolution Network
    for Multiple Degradations (2018), section 3.2.
    """

    examples: ClassVar = (
        {"sigma": [0.5, 2]},
        {"sigma": [0.5, 1], "ratio": [2, 3], "angle": [0, 180]},
        {"sigma": [0.2, 3], "across": [0.2, 3], "angle": [0, 180], "size": 21, "centre": "block"},
        {"sigma": 0},
    )

    op: Literal["gaussian_blur"] = "gaussian_blur"
    size: Size | None = None
    """Side of the kernel in pixels, odd; it is truncated there. By default it is truncated at 5 standard deviations,
    but at most 256 pixels, from the centre."""

    @staticmethod
    def kernel(params: Params) -> Kernel:
        """Returns the Gaussian; an isotropic one as a vector."""
        sigma, ratio, angle = _ellipse(params)
        shift, size = number(params, "shift"), int(number(params, "size")) if "size" in params else None
        if ratio == 1:
            return gaussian_line(sigma, shift, size)
        return gaussian_kernel(sigma, ratio, angle, shift, size)


@register
class GeneralisedBlur(_Elliptic):
    """Blurs with a generalised Gaussian: exp(−d^(2·beta) / 2) at d widths from the centre.

    Source: Wang et al., Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data (2021),
    section 3.1; Liu et al., Estimating Generalized Gaussian Blur Kernels for Out-of-Focus Image Deblurring (2020).
    """

    examples: ClassVar = (
        {"sigma": [0.5, 2], "beta": [0.5, 4]},
        {"sigma": [0.5, 1], "ratio": [2, 3], "angle": [0, 180], "beta": {"log_uniform": [0.5, 4]}, "size": 13},
        {"sigma": 0, "across": [0.2, 3], "beta": 2},
    )

    op: Literal["generalised_blur"] = "generalised_blur"
    beta: Beta
    """Shape: 1 is a Gaussian; smaller values have a sharper peak and longer tails, larger values approach a disc."""
    size: Size = 21
    """Side of the kernel in pixels, odd; it is truncated there."""

    @staticmethod
    def kernel(params: Params) -> Kernel:
        """Returns the generalised Gaussian."""
        beta, size = number(params, "beta"), int(number(params, "size"))
        return generalised_kernel(*_ellipse(params), beta, size, number(params, "shift"))


@register
class PlateauBlur(_Elliptic):
    """Blurs with a plateau-shaped kernel: 1 / (1 + d^(2·beta)) at d widths from the centre.

    Source: Wang et al., Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data (2021),
    section 3.1.
    """

    examples: ClassVar = (
        {"sigma": [0.5, 2], "beta": [1, 2]},
        {"sigma": [0.5, 1], "ratio": [2, 3], "angle": [0, 180], "beta": {"log_uniform": [1, 2]}, "size": 13},
        {"sigma": 0, "across": [0.2, 3], "beta": 2},
    )

    op: Literal["plateau_blur"] = "plateau_blur"
    beta: Beta
    """Steepness of the edge of the plateau; below 2, the tails are long."""
    size: Size = 21
    """Side of the kernel in pixels, odd; it is truncated there."""

    @staticmethod
    def kernel(params: Params) -> Kernel:
        """Returns the plateau-shaped kernel."""
        beta, size = number(params, "beta"), int(number(params, "size"))
        return plateau_kernel(*_ellipse(params), beta, size, number(params, "shift"))


@register
class MotionBlur(KernelBlur):
    """Blurs along the path of a camera that moves while the shutter is open: a circular arc at constant speed.

    Source: Gonzalez and Woods, Digital Image Processing (2018), section 5.6: blur as an integral over the exposure.
    """

    examples: ClassVar = (
        {"length": [1, 12], "angle": [0, 180]},
        {"length": [6, 20], "angle": [0, 180], "curvature": [-1, 1]},
        {"length": 0},
    )

    op: Literal["motion_blur"] = "motion_blur"
    length: Annotated[Range, Bounds(ge=0, le=128)]
    """Length of the path, in pixels of the image it is applied to (HR pixels before `downsample`)."""
    angle: Annotated[Range, Bounds(ge=0, le=180)] = Uniform((0.0, 0.0))
    """Direction at the middle of the path in degrees, counter-clockwise from the horizontal."""
    curvature: Annotated[Range, Bounds(ge=-2, le=2)] = Uniform((0.0, 0.0))
    """Change of direction from one end of the path to the other, in half circles, counter-clockwise: 0 is straight, 1
    is half a circle."""

    @staticmethod
    def kernel(params: Params) -> Kernel:
        """Returns the arc."""
        return motion_kernel(*(number(params, name) for name in ("length", "angle", "curvature", "shift")))


@register
class DefocusBlur(KernelBlur):
    """Blurs with a disc, the point spread of an out-of-focus lens in geometrical optics.

    Source: Goodman, Introduction to Fourier Optics (2005), section 6.4: the point spread of a large focusing error is
    the shape of the round aperture.
    """

    examples: ClassVar = ({"radius": [0.5, 3]}, {"radius": [1, 6], "edge": [0, 3]}, {"radius": 0})

    op: Literal["defocus_blur"] = "defocus_blur"
    radius: Annotated[Range, Bounds(ge=0, le=32)]
    """Radius of the disc, in pixels of the image it is applied to (HR pixels before `downsample`)."""
    edge: Annotated[Range, Bounds(ge=0, le=16)] = Uniform((1.0, 1.0))
    """Width over which the edge of the disc falls from full weight to 0, in pixels."""

    @staticmethod
    def kernel(params: Params) -> Kernel:
        """Returns the disc."""
        return disc_kernel(*(number(params, name) for name in ("radius", "edge", "shift")))


@register
class SincBlur(KernelBlur):
    """Removes all frequencies above a cutoff, which causes ringing and overshoot along edges.

    Source: Wang et al., Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data (2021),
    section 3.3.
    """

    examples: ClassVar = ({"cutoff": [1.05, 3.14]}, {"cutoff": [0.6, 2], "size": 13})

    op: Literal["sinc_blur"] = "sinc_blur"
    cutoff: Annotated[Range, Bounds(gt=0, le=math.pi)]
    """Highest frequency that passes, in radians per pixel."""
    size: Size = 21
    """Side of the kernel in pixels, odd; it is truncated there."""

    @staticmethod
    def kernel(params: Params) -> Kernel:
        """Returns the low-pass filter."""
        return sinc_kernel(number(params, "cutoff"), int(number(params, "size")), number(params, "shift"))
