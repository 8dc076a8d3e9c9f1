"""Posterisation: a file of degradations/ that adds an operation."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from metarestore.config.bounds import Bounds
from metarestore.config.ranges import Range
from metarestore.degradations.base import Params, number, register
from metarestore.degradations.pointwise import Fields, Pixels, Pointwise


@register
class Posterise(Pointwise):
    """Cuts every channel to a few levels, as a palette does.

    Source: Gonzalez and Woods, Digital Image Processing (2018), section 2.4 (quantisation).
    """

    examples: ClassVar = ({"levels": [4, 32]}, {"levels": 256})

    op: Literal["posterise"] = "posterise"
    levels: Annotated[Range, Bounds(ge=2, le=256, integer=True)]
    """Number of levels of a channel."""

    @staticmethod
    def change(image: Pixels, params: Params, fields: Fields[Pixels]) -> Pixels:
        """Rounds pixels (..., H, W, 3) in [0, 1] to the nearest level."""
        steps = number(params, "levels") - 1
        return (image * steps).round() / steps
