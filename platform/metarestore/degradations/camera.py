"""Processing that camera software adds after the sensor: sharpening."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np

from metarestore.config.bounds import Bounds
from metarestore.config.ranges import Range, Uniform
from metarestore.degradations.base import Context, Degradation, Params, number, per_image, register
from metarestore.degradations.filtering import Filter, filter_batch, filter_image
from metarestore.degradations.kernels import gaussian_line
from metarestore.degradations.pointwise import Pixels, clipped

if TYPE_CHECKING:
    from torch import Tensor


@register
class UnsharpMask(Degradation):
    """Sharpens as cameras do: adds the difference to a Gaussian-blurred copy, which leaves halos at edges.

    Source: Gonzalez and Woods, Digital Image Processing (2018), section 3.6 (unsharp masking, highboost filtering).
    """

    examples: ClassVar = (
        {"amount": [0.5, 1.5], "radius": [0.6, 2], "threshold": [0, 10]},
        {"amount": 0.5, "radius": 25},
        {"amount": 0, "radius": 1},
    )

    op: Literal["unsharp_mask"] = "unsharp_mask"
    amount: Annotated[Range, Bounds(ge=0, le=10)]
    """Factor of the difference that is added: 0 has no effect."""
    radius: Annotated[Range, Bounds(ge=0, le=32)]
    """Standard deviation of the Gaussian, in pixels of the image it is applied to."""
    threshold: Annotated[Range, Bounds(ge=0, le=255)] = Uniform((0.0, 0.0))
    """Amount by which every difference is reduced towards 0 (soft threshold), in grey levels of 0..255, so that noise
    is not sharpened."""

    @staticmethod
    def apply(images: Tensor, params: Params, context: Context) -> Tensor:
        """Sharpens `images` (N, 3, H, W)."""
        amount, threshold = number(params, "amount"), number(params, "threshold") / 255
        line = gaussian_line(number(params, "radius"))
        blur = Filter(np.outer(line, line), (len(line) // 2, len(line) // 2), (line, line))

        def sharpened(image: Pixels, blurred: Pixels) -> Pixels:
            difference = image - blurred
            return image + amount * (difference - clipped(difference, -threshold, threshold))

        if context.backend == "torch":
            return sharpened(images, filter_batch(images, blur))
        return per_image(images, lambda image, _: sharpened(image, filter_image(image, blur)))
