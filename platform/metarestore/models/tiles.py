"""Restores a large image in overlapping tiles, with a network whose receptive field is the whole image."""

from __future__ import annotations

import torch
from torch import Tensor

from metarestore.models.network import Restore

_OVERLAP = 4
"""Neighbouring tiles overlap by 1/4 of their side."""


def tiled(restore: Restore, tile: int, scale: int) -> Restore:
    """Returns a function that restores images in overlapping tiles, which are blended.

    All tiles have the same size, at most that of the image.

    Args:
        restore: Restores images (N, C, h, w) to (N, C, s·h, s·w).
        tile: Side of a tile, in LR pixels.
        scale: Upscaling factor s.
    """

    def restored(lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        total = lr.new_zeros(*lr.shape[:-2], scale * height, scale * width)
        weights = lr.new_zeros(scale * height, scale * width)
        high, wide = min(tile, height), min(tile, width)
        weight = torch.outer(_ramp(high, scale), _ramp(wide, scale)).to(lr)
        for top in starts(height, high):
            for left in starts(width, wide):
                part = restore(lr[..., top : top + high, left : left + wide])
                rows = slice(scale * top, scale * (top + high))
                columns = slice(scale * left, scale * (left + wide))
                total[..., rows, columns] += weight * part
                weights[rows, columns] += weight
        return total / weights

    return restored


def starts(length: int, tile: int) -> list[int]:
    """Returns the first pixels of the tiles along an axis: evenly spaced, with the last tile at the image's end.

    Args:
        length: Length of the axis in pixels.
        tile: Side of a tile in pixels, at most `length`.
    """
    step = tile - tile // _OVERLAP
    count = -(-(length - tile) // step) + 1
    return [round(index * (length - tile) / max(count - 1, 1)) for index in range(count)]


def _ramp(side: int, scale: int) -> Tensor:
    """Returns blending weights (s·side,) that increase from both borders of a tile over the overlap."""
    pixels = torch.arange(scale * side, dtype=torch.float64)
    from_border = torch.minimum(pixels, pixels.flip(0)) + 1
    return (from_border / max(scale * (side // _OVERLAP), 1)).clamp(max=1)
