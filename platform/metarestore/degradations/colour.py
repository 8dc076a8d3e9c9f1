"""Colour and tone: encoding of light, gains and tone curves, the same at every pixel."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from metarestore.config.bounds import Bounds
from metarestore.config.ranges import Range, Uniform
from metarestore.degradations.base import Params, number, register
from metarestore.degradations.pointwise import Fields, Pixels, Pointwise, clipped, constant, where_above

Gain = Annotated[Range, Bounds(gt=0, le=8)]
Offset = Annotated[Range, Bounds(ge=-255, le=255)]

_ONE = Uniform((1.0, 1.0))
_ZERO = Uniform((0.0, 0.0))


def to_linear(image: Pixels) -> Pixels:
    """Decodes sRGB values in [0, 1] to linear light in [0, 1].

    Source: IEC 61966-2-1.
    """
    curve = ((clipped(image, 0) + 0.055) / 1.055) ** 2.4
    return where_above(image, 0.04045, curve, image / 12.92)


def to_srgb(light: Pixels) -> Pixels:
    """Encodes linear light as sRGB values in [0, 1]; values outside [0, 1] are clipped, as in a sensor.

    Source: IEC 61966-2-1.
    """
    light = clipped(light, 0, 1)
    # The power has an infinite derivative at 0, which would make the gradient of the other branch NaN.
    curve = 1.055 * clipped(light, 0.0031308) ** (1 / 2.4) - 0.055
    return where_above(light, 0.0031308, curve, light * 12.92)


@register
class ToLinear(Pointwise):
    """Decodes sRGB to linear light, so that the operations up to the next `to_srgb` work in linear light.

    Blur, resampling and noise in between then mix light instead of encoded values. `sensor_noise`, `colour_shift`,
    `vignette` and `isp` decode and encode by themselves: do not put them between `to_linear` and `to_srgb`.

    Source: IEC 61966-2-1.
    """

    examples: ClassVar = ({},)

    op: Literal["to_linear"] = "to_linear"

    @staticmethod
    def change(image: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
        """Decodes."""
        return to_linear(image)


@register
class ToSrgb(Pointwise):
    """Encodes linear light as sRGB: the counterpart of `to_linear`.

    Source: IEC 61966-2-1.
    """

    examples: ClassVar = ({},)

    op: Literal["to_srgb"] = "to_srgb"

    @staticmethod
    def change(image: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
        """Encodes."""
        return to_srgb(image)


@register
class ColourShift(Pointwise):
    """Simulates errors of white balance and exposure: multiplies the channels by gains, in linear light.

    Source: the diagonal model of von Kries, e.g. Finlayson et al., Color by Correlation (2001), section 2.
    """

    examples: ClassVar = (
        {"red": [0.8, 1.25], "blue": [0.8, 1.25], "brightness": {"normal": [1, 0.1], "clip": [0.8, 1.2]}},
        {"red": 1.15, "blue": 0.8},
        {"brightness": 1},
    )

    op: Literal["colour_shift"] = "colour_shift"
    red: Gain = _ONE
    """Gain of red relative to green, in linear light: above 1 is a warm cast."""
    blue: Gain = _ONE
    """Gain of blue relative to green, in linear light: above 1 is a cool cast."""
    brightness: Gain = _ONE
    """Gain of all three channels (exposure), in linear light; 2 is one stop more."""

    @staticmethod
    def change(image: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
        """Multiplies the linear light of an sRGB image by the gains."""
        brightness = number(params, "brightness")
        gains = [number(params, "red") * brightness, brightness, number(params, "blue") * brightness]
        return to_srgb(to_linear(image) * constant(gains, image))


@register
class Levels(Pointwise):
    """Applies an affine map to the encoded values of each channel: gain times value plus offset.

    This is the colour difference between two cameras that a least-squares fit of each channel estimates.

    Source: Reinhard et al., Color Transfer between Images (2001), which scales and shifts each channel, but in
    another colour space.
    """

    examples: ClassVar = (
        {
            "gain_red": [0.9, 1.1],
            "gain_green": [0.9, 1.1],
            "gain_blue": [0.9, 1.1],
            "offset_red": [-8, 8],
            "offset_green": [-8, 8],
            "offset_blue": [-8, 8],
        },
        {},
    )

    op: Literal["levels"] = "levels"
    gain_red: Gain = _ONE
    """Factor of the red values."""
    gain_green: Gain = _ONE
    """Factor of the green values."""
    gain_blue: Gain = _ONE
    """Factor of the blue values."""
    offset_red: Offset = _ZERO
    """Added to red, in grey levels of 0..255."""
    offset_green: Offset = _ZERO
    """Added to green, in grey levels of 0..255."""
    offset_blue: Offset = _ZERO
    """Added to blue, in grey levels of 0..255."""

    @staticmethod
    def change(image: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
        """Applies the affine map of each channel."""
        gains = constant([number(params, f"gain_{name}") for name in ("red", "green", "blue")], image)
        offsets = constant([number(params, f"offset_{name}") / 255 for name in ("red", "green", "blue")], image)
        return image * gains + offsets


@register
class Gamma(Pointwise):
    """Applies a power law to the encoded values, the simplest tone curve: black and white are unchanged.

    Source: Gonzalez and Woods, Digital Image Processing (2018), section 3.2 (power-law transformations).
    """

    examples: ClassVar = ({"exponent": [0.7, 1.4]}, {"exponent": 1}, {"exponent": 2.2})

    op: Literal["gamma"] = "gamma"
    exponent: Annotated[Range, Bounds(gt=0, le=8)]
    """Exponent: above 1 darkens the mid-tones."""

    @staticmethod
    def change(image: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
        """Applies the power."""
        return clipped(image, 0) ** number(params, "exponent")
