"""Lens effects besides blur: vignetting, and lateral chromatic aberration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from metarestore.config.bounds import Bounds
from metarestore.config.ranges import Range, Uniform
from metarestore.degradations.base import Context, Degradation, Image, Params, number, per_image, register
from metarestore.degradations.colour import to_linear, to_srgb
from metarestore.degradations.pointwise import Fields, Pixels, Pointwise, constant

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from torch import Tensor

Floats = npt.NDArray[np.float64]
Centre = Annotated[Range, Bounds(ge=-8, le=8)]
PerThousand = Annotated[Range, Bounds(ge=-50, le=50)]
Shift = Annotated[Range, Bounds(ge=-16, le=16)]

_ZERO = Uniform((0.0, 0.0))
_HALF = Uniform((0.5, 0.5))


def radius_map(height: int, width: int, centre_y: float, centre_x: float) -> Floats:
    """Returns the distance (H, W) of each pixel from a centre, divided by the largest distance.

    Args:
        height: Number of rows.
        width: Number of columns.
        centre_y: Position of the centre between the first (0) and the last row (1); it may lie outside.
        centre_x: Position of the centre between the first (0) and the last column (1); it may lie outside.
    """
    y = np.arange(height) - centre_y * (height - 1)
    x = np.arange(width) - centre_x * (width - 1)
    distance = np.hypot(y[:, None], x)
    return np.asarray(distance / max(distance.max(), 1e-6))


@register
class Vignette(Pointwise):
    """Darkens towards the corners as cos⁴ of the angle to the optical axis, in linear light.

    The images of a task are patches: the centre gives the position of the optical axis relative to the patch, and the
    strength is the loss of the darkest pixel relative to the optical axis.

    Source: Goldman, Vignette and Exposure Calibration and Compensation (2010) (the cosine-fourth law).
    """

    examples: ClassVar = (
        {"strength": [0.1, 0.7], "centre_y": [-1, 2], "centre_x": [-1, 2]},
        {"strength": 0.5},
        {"strength": 0},
    )

    op: Literal["vignette"] = "vignette"
    strength: Annotated[Range, Bounds(ge=0, lt=1)]
    """Fraction of the light lost at the corner farthest from the centre, in [0, 1)."""
    centre_y: Centre = _HALF
    """Vertical position of the optical axis: 0 is the first row of the image, 1 the last; it may lie outside."""
    centre_x: Centre = _HALF
    """Horizontal position of the optical axis: 0 is the first column of the image, 1 the last; it may lie outside."""

    @staticmethod
    def change(image: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
        """Attenuates the linear light of an sRGB image."""
        height, width = image.shape[-3], image.shape[-2]
        radius = radius_map(height, width, number(params, "centre_y"), number(params, "centre_x"))
        # cos² of the angle is 1 / (1 + tan²), and tan² grows with the square of the radius.
        tan_squared = (1 - number(params, "strength")) ** -0.5 - 1
        light = (1 + tan_squared * radius**2) ** -2
        return to_srgb(to_linear(image) * constant(light[..., None], image))


def magnified_line(length: int, magnification: float, shift: float) -> csr_array[np.float32]:
    """Returns the matrix (length, length) that magnifies a row about its centre and shifts it, bicubically.

    Args:
        length: Number of pixels.
        magnification: Factor of distances from the centre.
        shift: Shift towards the end, in pixels.

    Source: Keys, Cubic Convolution Interpolation for Digital Image Processing (1981), eq. 15 (a = −0.5), with
    symmetric padding.
    """
    from scipy.sparse import csr_array

    centre = (length - 1) / 2
    position = centre + (np.arange(length) - centre - shift) / magnification
    columns = np.floor(position).astype(np.int64)[:, None] + np.arange(-1, 3)
    x = np.abs(columns - position[:, None])
    inner = (1.5 * x - 2.5) * x**2 + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    mirror = columns % (2 * length)
    mirrored = np.where(mirror < length, mirror, 2 * length - 1 - mirror)
    weights = np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))
    rows = np.repeat(np.arange(length), 4)
    return csr_array((weights.ravel(), (rows, mirrored.ravel())), shape=(length, length)).astype(np.float32)


@register
class ChromaticAberration(Degradation):
    """Magnifies red and blue about the centre, each by its own factor (lateral colour); green is unchanged.

    In a patch away from the optical axis, lateral colour is close to a constant shift of red and of blue, which can be
    set separately: fringes are red on one side of an edge and cyan on the other.

    Source: Kang, Automatic Removal of Chromatic Aberration from a Single Image (2007).
    """

    examples: ClassVar = (
        {"red": [-4, 4], "blue": [-4, 4]},
        {"red_y": [-1, 1], "red_x": [-1, 1], "blue_y": [-1, 1], "blue_x": [-1, 1]},
        {"red": 10, "blue": -10, "red_x": 0.5},
        {"red": 0},
    )

    op: Literal["chromatic_aberration"] = "chromatic_aberration"
    red: PerThousand = _ZERO
    """Magnification of red relative to green, in parts per thousand: 1 moves red by 0.1 pixels at radius 100."""
    blue: PerThousand = _ZERO
    """Magnification of blue relative to green, in parts per thousand."""
    red_y: Shift = _ZERO
    """Downward shift of red, in pixels of the image it is applied to."""
    red_x: Shift = _ZERO
    """Rightward shift of red, in pixels of the image it is applied to."""
    blue_y: Shift = _ZERO
    """Downward shift of blue, in pixels of the image it is applied to."""
    blue_x: Shift = _ZERO
    """Rightward shift of blue, in pixels of the image it is applied to."""

    @staticmethod
    def apply(images: Tensor, params: Params, context: Context) -> Tensor:
        """Resamples red and blue of `images` (N, 3, H, W)."""
        height, width = images.shape[-2:]
        lines = {}
        for channel, name in ((0, "red"), (2, "blue")):
            factor = 1 + number(params, name) / 1000
            shifts = number(params, f"{name}_y"), number(params, f"{name}_x")
            lines[channel] = magnified_line(height, factor, shifts[0]), magnified_line(width, factor, shifts[1])
        if context.backend == "torch":
            import torch

            return torch.stack([_plane_of_batch(images[:, channel], lines.get(channel)) for channel in range(3)], dim=1)

        def magnify(image: Image, _: int) -> Image:
            result = image.copy()
            for channel, (rows, columns) in lines.items():
                result[..., channel] = (columns @ (rows @ image[..., channel]).T).T
            return result

        return per_image(images, magnify)


def _plane_of_batch(plane: Tensor, lines: tuple[csr_array[np.float32], csr_array[np.float32]] | None) -> Tensor:
    """Resamples one channel (N, H, W) with one matrix per axis, or returns it unchanged if `lines` is None."""
    if lines is None:
        return plane
    import torch

    rows, columns = (torch.from_numpy(line.toarray()).to(plane.device) for line in lines)
    return rows @ plane @ columns.T
