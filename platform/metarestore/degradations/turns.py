"""The eight symmetries of the square, by which images are turned: patches to learn from, and images to restore."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TURNS = 8
"""How many there are: 0 changes nothing, 4 and more mirror first."""


def turned(images: Tensor, turn: int) -> Tensor:
    """Turns images (..., H, W) by one of the 8 symmetries of the square; centre-aligned LR and HR stay aligned."""
    import torch

    mirrored = images.flip(-1) if turn >= TURNS // 2 else images
    return torch.rot90(mirrored, turn % 4, (-2, -1))


def turned_back(images: Tensor, turn: int) -> Tensor:
    """Undoes `turned`."""
    import torch

    upright = torch.rot90(images, -turn % 4, (-2, -1))
    return upright.flip(-1) if turn >= TURNS // 2 else upright
