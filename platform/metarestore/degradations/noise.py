"""Noise: fields that are drawn for each image, with a distribution that depends only on the pixel's value."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from metarestore.config.bounds import Bounds
from metarestore.config.ranges import Range, Uniform
from metarestore.degradations.base import Params, number, register
from metarestore.degradations.colour import to_linear, to_srgb
from metarestore.degradations.pointwise import Fields, Pixels, Pointwise, channel_sum, clipped, constant, root

Correlation = Annotated[Range, Bounds(ge=0, le=1)]

_NONE = Uniform((0.0, 0.0))
# Luma weights of ITU-R BT.601.
_LUMA = [0.299, 0.587, 0.114]


def normal_field(image: Pixels, correlation: float, fields: Fields[Pixels]) -> Pixels:
    """Draws normal values of variance 1 with correlated channels: covariance (1 − ρ) I + ρ 1 1ᵀ.

    Returns:
        Noise (..., H, W, 3), or (..., H, W, 1) if all channels are equal.
    """
    if correlation == 0:
        return fields.normal(image)
    shared = fields.normal(image, 1)
    if correlation == 1:
        return shared
    return math.sqrt(1 - correlation) * fields.normal(image) + math.sqrt(correlation) * shared


@register
class GaussianNoise(Pointwise):
    """Adds white Gaussian noise of uniform strength.

    Channels i and j have the covariance sigma² · ((1 − correlation) · [i = j] + correlation).

    Source: Zhang et al., Designing a Practical Degradation Model for Deep Blind Image Super-Resolution (2021),
    section 3.3, whose noise model has a general covariance of the channels, here reduced to one parameter.
    """

    stochastic: ClassVar[bool] = True
    examples: ClassVar = (
        {"sigma": [5, 25]},
        {"sigma": 10, "correlation": 1},
        {"sigma": {"log_uniform": [2, 30]}, "correlation": [0.2, 0.8]},
    )

    op: Literal["gaussian_noise"] = "gaussian_noise"
    sigma: Annotated[Range, Bounds(ge=0, le=255)]
    """Standard deviation, in grey levels of 0..255."""
    correlation: Correlation = _NONE
    """Correlation between the channels: 0 is colour noise, 1 is gray noise."""

    @staticmethod
    def change(image: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
        """Adds the noise field."""
        return image + number(params, "sigma") / 255 * normal_field(image, number(params, "correlation"), fields)


@register
class PoissonNoise(Pointwise):
    """Simulates photon counting (shot noise): the mean is preserved, the variance is value / peak.

    With a correlation ρ, the error is √(1 − ρ) times the count error of the channel plus √ρ times that of the luma. The
    error of a pixel depends only on its values, so a patch is degraded in the same way as the whole image.

    Source: Hasinoff, Photon, Poisson Noise, in Computer Vision: A Reference Guide (2014); Wang et al., Real-ESRGAN
    (2021), section 3.1, for `strength` and gray noise.
    """

    stochastic: ClassVar[bool] = True
    examples: ClassVar = (
        {"peak": {"log_uniform": [30, 300]}},
        {"peak": 256, "strength": [1, 3], "correlation": 1},
        {"peak": [4, 40], "strength": 0.5, "correlation": [0.2, 0.8]},
    )

    op: Literal["poisson_noise"] = "poisson_noise"
    peak: Annotated[Range, Bounds(gt=0, le=1e6)]
    """Number of photons at white: fewer photons mean more noise."""
    strength: Annotated[Range, Bounds(ge=0, le=16)] = Uniform((1.0, 1.0))
    """Factor of the count error: 1 is true Poisson noise."""
    correlation: Correlation = _NONE
    """Fraction of the variance that the channels share: 0 is colour noise, 1 is gray noise."""

    @staticmethod
    def change(image: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
        """Adds the count error."""
        peak, correlation = number(params, "peak"), number(params, "correlation")
        scale = number(params, "strength") / peak
        noisy = image
        if correlation > 0:
            luma = channel_sum(image, constant(_LUMA, image))
            noisy = noisy + scale * math.sqrt(correlation) * fields.count_error(luma * peak)
        if correlation < 1:
            noisy = noisy + scale * math.sqrt(1 - correlation) * fields.count_error(image * peak)
        return noisy


@register
class SpeckleNoise(Pointwise):
    """Multiplies each value by 1 plus Gaussian noise: the standard deviation grows with the value.

    Source: Jain, Fundamentals of Digital Image Processing (1989), chapter 8 (speckle noise).
    """

    stochastic: ClassVar[bool] = True
    examples: ClassVar = ({"sigma": [5, 25]}, {"sigma": 20, "correlation": 1}, {"sigma": 12, "correlation": [0.2, 0.8]})

    op: Literal["speckle_noise"] = "speckle_noise"
    sigma: Annotated[Range, Bounds(ge=0, le=255)]
    """Standard deviation at white, in grey levels of 0..255; it is proportional to the value."""
    correlation: Correlation = _NONE
    """Correlation between the channels: 0 is colour noise, 1 is gray noise."""

    @staticmethod
    def change(image: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
        """Adds the image times the noise field."""
        field = normal_field(image, number(params, "correlation"), fields)
        return image + image * (number(params, "sigma") / 255 * field)


@register
class SensorNoise(Pointwise):
    """Adds the noise of an image sensor in linear light: variance = shot · light + read².

    Source: Foi et al., Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image Raw-Data (2008),
    eq. 3, in its Gaussian approximation; applied to linear light as in Brooks et al., Unprocessing Images for
    Learned Raw Denoising (2019), section 3.1.
    """

    stochastic: ClassVar[bool] = True
    examples: ClassVar = (
        {"shot": [1e-3, 1e-2], "read": {"choice": [1e-3, 2e-3]}},
        {"shot": 0, "read": [5e-3, 2e-2]},
        {"shot": 5e-3, "read": 0},
    )

    op: Literal["sensor_noise"] = "sensor_noise"
    shot: Annotated[Range, Bounds(ge=0, le=1)]
    """Variance per unit of light, i.e. 1 / (photoelectrons at white); 1e-4 .. 1e-2 for phones."""
    read: Annotated[Range, Bounds(ge=0, le=1)]
    """Standard deviation of the read noise, as a fraction of white."""

    @staticmethod
    def change(image: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
        """Adds the noise field to the linear light of an sRGB image."""
        return to_srgb(expose(to_linear(image), params, fields))


def expose(light: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
    """Adds shot and read noise to linear light (..., H, W, C)."""
    variance = number(params, "shot") * clipped(light, 0) + number(params, "read") ** 2
    return light + root(variance) * fields.normal(light, light.shape[-1])
