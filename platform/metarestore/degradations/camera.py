"""What a camera adds: the noise of its sensor, and the processing after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from torch import Tensor

from metarestore.config.ranges import Bounds, Range, Uniform
from metarestore.degradations.base import Degradation, Image, Params, number, per_image, register
from metarestore.degradations.blur import blur_isotropic, gaussian_line
from metarestore.seeds import generator


def to_linear(image: Image) -> Image:
    """Decodes sRGB values in [0, 1] to linear light in [0, 1].

    Source: IEC 61966-2-1.
    """
    curve = ((np.maximum(image, 0) + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(image <= 0.04045, image / np.float32(12.92), curve).astype(np.float32)


def to_srgb(light: Image) -> Image:
    """Encodes linear light as sRGB values in [0, 1]; what lies outside [0, 1] is clipped, as the sensor does.

    Source: IEC 61966-2-1.
    """
    light = np.clip(light, 0, 1)
    curve = np.float32(1.055) * light ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(light <= 0.0031308, light * np.float32(12.92), curve).astype(np.float32)


@register
class SensorNoise(Degradation):
    """Adds the noise of an image sensor in linear light: variance = shot · light + read².

    Source: Foi et al., Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image Raw-Data (2008),
    eq. 3, in its Gaussian approximation; applied to unprocessed light as in Brooks et al., Unprocessing Images for
    Learned Raw Denoising (2019), section 3.1.
    """

    stochastic: ClassVar[bool] = True

    op: Literal["sensor_noise"] = "sensor_noise"
    shot: Annotated[Range, Bounds(ge=0, le=1)]
    """Variance per unit of light, i.e. 1 / (photoelectrons at white); phones lie in 1e-4 .. 1e-2."""
    read: Annotated[Range, Bounds(ge=0, le=1)]
    """Standard deviation in the dark, as a fraction of white."""

    @staticmethod
    def apply(images: Tensor, params: Params, seeds: Sequence[int]) -> Tensor:
        """Adds a field of its own to each of `images` (N, 3, H, W), which are sRGB in [0, 1]."""
        shot, read = np.float32(number(params, "shot")), np.float32(number(params, "read"))

        def expose(image: Image, index: int) -> Image:
            light = to_linear(image)
            field = generator(seeds[index]).standard_normal(image.shape, dtype=np.float32)
            return to_srgb(light + np.sqrt(shot * light + read * read) * field)

        return per_image(images, expose)


@register
class UnsharpMask(Degradation):
    """Sharpens as cameras do: adds back what a Gaussian blur takes away, which leaves halos at edges.

    Source: Gonzalez and Woods, Digital Image Processing (2018), section 3.6 (unsharp masking, highboost filtering).
    """

    op: Literal["unsharp_mask"] = "unsharp_mask"
    amount: Annotated[Range, Bounds(ge=0, le=10)]
    """How much of the difference is added: 0 does nothing."""
    radius: Annotated[Range, Bounds(ge=0, le=32)]
    """Standard deviation of the Gaussian, in pixels of the image it acts on."""

    @staticmethod
    def apply(images: Tensor, params: Params, seeds: Sequence[int]) -> Tensor:
        """Sharpens `images` (N, 3, H, W); the noise seeds are not used."""
        amount = np.float32(number(params, "amount"))
        line = gaussian_line(number(params, "radius"))
        return per_image(images, lambda image, _: image + amount * (image - blur_isotropic(image, line)))


@register
class ColourShift(Degradation):
    """Misses the white balance and the exposure: multiplies the channels by gains, in linear light.

    Source: the diagonal model of von Kries, e.g. Finlayson et al., Color by Correlation (2001), section 2.
    """

    op: Literal["colour_shift"] = "colour_shift"
    red: Annotated[Range, Bounds(gt=0, le=8)] = Uniform((1.0, 1.0))
    """Gain of red against green."""
    blue: Annotated[Range, Bounds(gt=0, le=8)] = Uniform((1.0, 1.0))
    """Gain of blue against green."""
    brightness: Annotated[Range, Bounds(gt=0, le=8)] = Uniform((1.0, 1.0))
    """Gain of all three channels: the exposure."""

    @staticmethod
    def apply(images: Tensor, params: Params, seeds: Sequence[int]) -> Tensor:
        """Recolours `images` (N, 3, H, W), which are sRGB in [0, 1]; the noise seeds are not used."""
        balance = np.array([number(params, "red"), 1.0, number(params, "blue")])
        gains = (balance * number(params, "brightness")).astype(np.float32)
        return per_image(images, lambda image, _: to_srgb(to_linear(image) * gains))


@register
class Gamma(Degradation):
    """Applies a power law to the encoded values, the simplest tone curve: black and white stay.

    Source: Gonzalez and Woods, Digital Image Processing (2018), section 3.2 (power-law transformations).
    """

    op: Literal["gamma"] = "gamma"
    exponent: Annotated[Range, Bounds(gt=0, le=8)]
    """The power: above 1 darkens the mid-tones."""

    @staticmethod
    def apply(images: Tensor, params: Params, seeds: Sequence[int]) -> Tensor:
        """Applies the curve to `images` (N, 3, H, W) in [0, 1]; the noise seeds are not used."""
        exponent = np.float32(number(params, "exponent"))
        return per_image(images, lambda image, _: np.maximum(image, 0) ** exponent)
