"""What a lens does beside blurring: it darkens the corners, and images red and blue at other sizes than green."""

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
    """Returns each pixel's distance (H, W) from a centre, over that of the farthest pixel.

    Args:
        height: Rows.
        width: Columns.
        centre_y: Place of the centre between the first (0) and the last row (1); it may lie outside.
        centre_x: The same for columns.
    """
    y = np.arange(height) - centre_y * (height - 1)
    x = np.arange(width) - centre_x * (width - 1)
    distance = np.hypot(y[:, None], x)
    return np.asarray(distance / max(distance.max(), 1e-6))


@register
class Vignette(Pointwise):
    """Darkens towards the corners as cos⁴ of the angle to the optical axis, in linear light.

    A task's images are patches: its centre says where in the frame they lie, and the strength is what their darkest
    pixel loses against the optical axis.

    Source: Goldman, Vignette and Exposure Calibration and Compensation (2010) (the cosine-fourth law).
    """

    examples: ClassVar = (
        {"strength": [0.1, 0.7], "centre_y": [-1, 2], "centre_x": [-1, 2]},
        {"strength": 0.5},
        {"strength": 0},
    )

    op: Literal["vignette"] = "vignette"
    strength: Annotated[Range, Bounds(ge=0, lt=1)]
    """Share of the light that the farthest corner from the centre loses, in 0..1."""
    centre_y: Centre = _HALF
    """Optical axis: 0 is the image's first row, 1 its last; it may lie outside."""
    centre_x: Centre = _HALF
    """Optical axis: 0 is the image's first column, 1 its last; it may lie outside."""

    @staticmethod
    def change(image: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
        """Multiplies the light of an sRGB image."""
        height, width = image.shape[-3], image.shape[-2]
        radius = radius_map(height, width, number(params, "centre_y"), number(params, "centre_x"))
        # cos² of the angle is 1 / (1 + tan²), and tan² grows with the square of the radius.
        tan_squared = (1 - number(params, "strength")) ** -0.5 - 1
        light = (1 + tan_squared * radius**2) ** -2
        return to_srgb(to_linear(image) * constant(light[..., None], image))


def magnified_line(length: int, magnification: float, shift: float) -> csr_array[np.float32]:
    """Returns the matrix (length, length) that magnifies a line about its centre, then moves it, bicubically.

    Args:
        length: Pixels.
        magnification: Factor of distances from the centre.
        shift: Pixels by which to move towards the end.

    Source: Keys, Cubic Convolution Interpolation for Digital Image Processing (1981), eq. 15 (a = −0.5), over a
    symmetric border.
    """
    from scipy.sparse import csr_array

    centre = (length - 1) / 2
    place = centre + (np.arange(length) - centre - shift) / magnification
    columns = np.floor(place).astype(np.int64)[:, None] + np.arange(-1, 3)
    x = np.abs(columns - place[:, None])
    inner = (1.5 * x - 2.5) * x**2 + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    mirror = columns % (2 * length)
    mirrored = np.where(mirror < length, mirror, 2 * length - 1 - mirror)
    weights = np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))
    rows = np.repeat(np.arange(length), 4)
    return csr_array((weights.ravel(), (rows, mirrored.ravel())), shape=(length, length)).astype(np.float32)


@register
class ChromaticAberration(Degradation):
    """Magnifies red and blue about the centre, each by its own factor (lateral colour); green stays.

    On a patch away from the optical axis, lateral colour is little but a constant shift of red and of blue, which
    the task may have as well: fringes are red on one side of an edge and cyan on the other.

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
    """How much larger than green red is, in parts per thousand: 1 moves red by 0.1 pixel at radius 100."""
    blue: PerThousand = _ZERO
    """How much larger than green blue is, in parts per thousand."""
    red_y: Shift = _ZERO
    """Shift of red, downwards, in pixels of the image it acts on."""
    red_x: Shift = _ZERO
    """Shift of red, to the right, in pixels of the image it acts on."""
    blue_y: Shift = _ZERO
    """Shift of blue, downwards, in pixels of the image it acts on."""
    blue_x: Shift = _ZERO
    """Shift of blue, to the right, in pixels of the image it acts on."""

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
    """Resamples one channel (N, H, W) by a matrix per axis; without any, it stays."""
    if lines is None:
        return plane
    import torch

    rows, columns = (torch.from_numpy(line.toarray()).to(plane.device) for line in lines)
    return rows @ plane @ columns.T
