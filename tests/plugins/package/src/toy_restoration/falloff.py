"""Falloff of light: an operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from metarestore.config.bounds import Bounds
from metarestore.config.ranges import Range
from metarestore.degradations.base import Context, Degradation, Params, number

if TYPE_CHECKING:
    from torch import Tensor


class Falloff(Degradation):
    """Darkens an image towards its corners."""

    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({"strength": [0.1, 0.6]}, {"strength": 0.3})

    op: Literal["toy_falloff"] = "toy_falloff"
    strength: Annotated[Range, Bounds(ge=0, le=1)]
    """Share of the light that is lost in the corners."""

    @staticmethod
    def apply(images: Tensor, params: Params, context: Context) -> Tensor:
        """Multiplies by 1 − strength·r², r = 1 in the corners."""
        import torch

        height, width = images.shape[-2:]
        y, x = (torch.linspace(-1, 1, side, device=images.device) for side in (height, width))
        return images * (1 - number(params, "strength") * (y[:, None] ** 2 + x**2) / 2)
