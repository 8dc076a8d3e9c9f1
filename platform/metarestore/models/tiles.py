"""Restoring a large image tile by tile, with a network that depends on the whole image."""

from __future__ import annotations

import torch
from torch import Tensor

from metarestore.models.network import Restore

_OVERLAP = 4
"""Neighbouring tiles share 1/4 of their side."""


def tiled(restore: Restore, tile: int, scale: int) -> Restore:
    """Returns what restores images in overlapping tiles, which fade into each other.

    All tiles have the same size, except that none is larger than the image.

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
    """Returns where tiles start along an axis: evenly spaced, the last one ends with the image.

    Args:
        length: Pixels of the axis.
        tile: Pixels of a tile, at most `length`.
    """
    step = tile - tile // _OVERLAP
    count = -(-(length - tile) // step) + 1
    return [round(index * (length - tile) / max(count - 1, 1)) for index in range(count)]


def _ramp(side: int, scale: int) -> Tensor:
    """Returns weights (s·side,) that rise from the border of a tile over its overlap, and fall towards the other."""
    pixels = torch.arange(scale * side, dtype=torch.float64)
    from_border = torch.minimum(pixels, pixels.flip(0)) + 1
    return (from_border / max(scale * (side // _OVERLAP), 1)).clamp(max=1)
