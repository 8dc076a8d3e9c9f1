"""Restores at a smaller factor than that of a network: its output is downsampled."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from metarestore.models.network import Restore

MARGIN = 2
"""Radius in LR pixels of the antialiased bicubic kernel for any two factors, rounded up."""


def at_scale(restore: Restore, own: int, scale: int) -> Restore:
    """Returns a function that restores by a smaller factor: bicubic downsampling with antialiasing.

    Restored pixels keep the grid of the photograph, so strips of it can be restored with a margin of `MARGIN`.

    Args:
        restore: Restores images (N, C, h, w) to (N, C, own·h, own·w).
        own: Its factor.
        scale: The factor to restore by, at most `own`.
    """
    if scale == own:
        return restore

    def restored(lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        large = restore(lr).contiguous()
        return F.interpolate(large, size=(scale * height, scale * width), mode="bicubic", antialias=True)

    return restored
