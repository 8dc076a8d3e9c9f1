"""The dihedral group D4: the eight ways to flip and rotate a square image by multiples of 90 degrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

DIHEDRAL = 8
"""Number of dihedral transforms: 0 is the identity; 4 and above flip the image first."""


def flip_rotate(images: Tensor, turn: int) -> Tensor:
    """Flips and rotates images by one of the eight dihedral transforms; centre-aligned LR and HR stay aligned.

    Args:
        images: Images (..., H, W).
        turn: Number of the transform, in [0, 8): it modulo 4 is the number of counter-clockwise quarter turns, and
            from 4 on the image is mirrored before it is rotated.
    """
    import torch

    mirrored = images.flip(-1) if turn >= DIHEDRAL // 2 else images
    return torch.rot90(mirrored, turn % 4, (-2, -1))


def undo_flip_rotate(images: Tensor, turn: int) -> Tensor:
    """Applies the inverse of `flip_rotate` for the same `turn`."""
    import torch

    upright = torch.rot90(images, -turn % 4, (-2, -1))
    return upright.flip(-1) if turn >= DIHEDRAL // 2 else upright
