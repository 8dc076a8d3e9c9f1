"""A small camera pipeline: inverts an sRGB image to the sensor's mosaic, adds noise, and renders an image again."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np

from metarestore.config.bounds import Bounds
from metarestore.config.ranges import Range, Uniform
from metarestore.degradations.base import Image, Params, number, register
from metarestore.degradations.colour import to_linear, to_srgb
from metarestore.degradations.noise import expose
from metarestore.degradations.pointwise import (
    Fields,
    Pixels,
    Pointwise,
    arcsine,
    channel_sum,
    clipped,
    constant,
    is_tensor,
    sine,
    stacked,
)

_ZERO = Uniform((0.0, 0.0))

# Channel value, in linear light, above which it counts as saturated.
_HIGHLIGHT = 0.9

# Filters that estimate green at a red or blue pixel; red or blue at a green pixel, from its row or from its column; and
# red at a blue pixel or vice versa: Malvar, He and Cutler (2004), figure 2.
_CROSS = [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]
_ACROSS = [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]
_ALONG = [list(column) for column in zip(*_ACROSS, strict=True)]
_DIAGONAL = [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]
_KERNELS = np.array([_CROSS, _ACROSS, _ALONG, _DIAGONAL], dtype=np.float32) / 8


def tone_curve(values: Pixels, strength: float) -> Pixels:
    """Increases the contrast of encoded values in [0, 1]: blends the identity with smoothstep, 3 v² − 2 v³."""
    return (1 - strength) * values + strength * (3 - 2 * values) * values * values


def inverse_tone_curve(values: Pixels, strength: float) -> Pixels:
    """Inverts `tone_curve`, using the trigonometric root of its cubic."""
    if strength < 1e-6:
        return values
    # With u = v − 1/2 the curve is (1 + t/2) u − 2t u³; u = a sin φ makes that (t a³ / 2) sin 3φ.
    amplitude = math.sqrt((2 + strength) / (3 * strength))
    # At black and white, the inverse of a full smoothstep has an infinite derivative, and gradients would be NaN.
    sines = clipped((values - 0.5) * (2 / (strength * amplitude**3)), -1 + 1e-6, 1 - 1e-6)
    return amplitude * sine(arcsine(sines) * (1 / 3)) + 0.5


def without_gains(light: Pixels, gains: Pixels) -> Pixels:
    """Inverts white-balance gains of 1 or more, except near white, where the sensor was saturated.

    Args:
        light: Linear light (..., H, W, 3) in [0, 1].
        gains: One gain per channel (3,).

    Source: Brooks et al., Unprocessing Images for Learned Raw Denoising (2019), section 3, on white balance.
    """
    full = clipped((light - _HIGHLIGHT) / (1 - _HIGHLIGHT), 0) ** 2
    dark = light / gains
    return dark + full * (light - dark)


def bayer(height: int, width: int) -> Image:
    """Returns the one-hot mask (H, W, 3) of the channel that each pixel of an RGGB mosaic measures."""
    y, x = np.indices((height, width)) % 2
    return np.stack([(1 - y) * (1 - x), (y + x) % 2, y * x], axis=-1).astype(np.float32)


def _filtered(mosaic: Pixels) -> list[Pixels]:
    """Correlates a mosaic (..., H, W) with each of the kernels; the padding continues the pattern of colours."""
    if is_tensor(mosaic):
        import torch
        from torch.nn import functional as F

        # Depthwise, because PyTorch may round the inputs of other convolutions to 10 bits on GPUs.
        weights = torch.from_numpy(_KERNELS).to(mosaic.device)[:, None]
        padded = F.pad(mosaic[:, None], (2, 2, 2, 2), mode="reflect")
        return list(F.conv2d(padded.repeat(1, len(weights), 1, 1), weights, groups=len(weights)).unbind(1))
    images = (cv2.filter2D(mosaic, -1, kernel, borderType=cv2.BORDER_REFLECT_101) for kernel in _KERNELS)
    return [np.asarray(image, dtype=np.float32) for image in images]


def demosaic(mosaic: Pixels) -> Pixels:
    """Interpolates the two missing channels of each pixel of an RGGB mosaic (..., H, W), with linear 5x5 filters.

    Returns:
        Images (..., H, W, 3); H and W must be at least 3.

    Source: Malvar, He and Cutler, High-Quality Linear Interpolation for Demosaicing of Bayer-Patterned Color Images
    (2004), figure 2.
    """
    mask = bayer(mosaic.shape[-2], mosaic.shape[-1])
    red, green, blue = (constant(mask[..., channel], mosaic) for channel in range(3))
    rows = constant(mask[..., :1].max(axis=1, keepdims=True)[..., 0], mosaic)  # 1 in rows with red pixels
    cross, across, along, diagonal = _filtered(mosaic)
    swap = rows * (across - along)  # a green pixel has red beside it in one row, above and below it in the next
    return stacked(
        [
            red * mosaic + green * (along + swap) + blue * diagonal,
            green * mosaic + (red + blue) * cross,
            blue * mosaic + green * (across - swap) + red * diagonal,
        ]
    )


def mixed(light: Pixels, crosstalk: float) -> Pixels:
    """Blends every channel with the mean of all three by the fraction `crosstalk`, as overlapping colour filters do."""
    return light + crosstalk * (_mean(light) - light)


def unmixed(light: Pixels, crosstalk: float) -> Pixels:
    """Inverts `mixed`: the colour-correction matrix (I − k/3 · 1 1ᵀ) / (1 − k)."""
    return light + crosstalk / (1 - crosstalk) * (light - _mean(light))


def _mean(light: Pixels) -> Pixels:
    return channel_sum(light, constant([1 / 3] * 3, light))


@register
class Isp(Pointwise):
    """Inverts a camera's processing, adds sensor noise to the mosaic, and processes it again.

    The noise then looks as in real cameras: demosaicing turns it into colour blotches, white balance amplifies it in
    red and blue, and the tone curves amplify it in the shadows. Colours are preserved, except near white, where the
    sensor saturates.

    Source: Brooks et al., Unprocessing Images for Learned Raw Denoising (2019), section 3.
    """

    stochastic: ClassVar[bool] = True
    examples: ClassVar = (
        {"shot": {"log_uniform": [1e-3, 1e-2]}, "read": [1e-3, 1e-2], "tone": [0, 1], "crosstalk": [0, 0.5]},
        {"shot": 5e-3, "read": 0, "red_gain": 1, "blue_gain": 1, "tone": 0},
        {"shot": 0, "read": 1e-2, "red_gain": [1.9, 2.4], "blue_gain": [1.5, 1.9]},
    )

    op: Literal["isp"] = "isp"
    shot: Annotated[Range, Bounds(ge=0, le=1)]
    """Variance of the sensor per unit of light; Brooks et al. use 1e-4 .. 1.2e-2."""
    read: Annotated[Range, Bounds(ge=0, le=1)]
    """Standard deviation of the read noise, as a fraction of white."""
    red_gain: Annotated[Range, Bounds(ge=1, le=8)] = Uniform((1.9, 2.4))
    """White-balance gain of red, in linear light."""
    blue_gain: Annotated[Range, Bounds(ge=1, le=8)] = Uniform((1.5, 1.9))
    """White-balance gain of blue, in linear light."""
    tone: Annotated[Range, Bounds(ge=0, le=1)] = Uniform((1.0, 1.0))
    """Strength of the tone curve on the encoded values: 0 is none, 1 is smoothstep."""
    crosstalk: Annotated[Range, Bounds(ge=0, le=0.8)] = _ZERO
    """Fraction of each colour filter's light that is shared by all channels; the colour-correction matrix removes it at
    the cost of noise. Cameras have about 0.5."""

    @staticmethod
    def change(image: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
        """Converts to the mosaic, adds noise, and converts back."""
        tone, crosstalk = number(params, "tone"), number(params, "crosstalk")
        gains = constant([number(params, "red_gain"), 1.0, number(params, "blue_gain")], image)
        mask = constant(bayer(image.shape[-3], image.shape[-2]), image)

        light = mixed(to_linear(inverse_tone_curve(image, tone)), crosstalk)
        mosaic = channel_sum(without_gains(light, gains), mask)
        exposed = clipped(expose(mosaic, params, fields), None, 1)
        # Malvar's filters assume balanced channels, so the gains are applied first, as in Brooks et al.
        balanced = clipped(exposed * channel_sum(gains, mask), None, 1)
        return tone_curve(to_srgb(unmixed(demosaic(balanced[..., 0]), crosstalk)), tone)
