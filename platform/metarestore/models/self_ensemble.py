"""The geometric self-ensemble: one network as eight, which see an image from eight sides."""

from __future__ import annotations

from torch import Tensor

from metarestore.degradations.dihedral import DIHEDRAL, flip_rotate, undo_flip_rotate
from metarestore.models.network import Restore


def self_ensemble(restore: Restore) -> Restore:
    """Returns what restores images in all orientations of the square and takes the mean of the results turned back.

    What a network makes of an image should not depend on how the camera was held. One that learned from five pairs
    depends on it, and the mean evens out what it only remembers of them. It costs eight times the work.

    Args:
        restore: Restores images (N, C, h, w) to (N, C, s·h, s·w), of any height and width.

    Source: Timofte et al., Seven ways to improve example-based single image super resolution (2016), enhanced
    prediction; Lim et al., Enhanced Deep Residual Networks (2017), section 3.4.
    """

    def restored(lr: Tensor) -> Tensor:
        total = restore(lr)
        for turn in range(1, DIHEDRAL):
            total = total + undo_flip_rotate(restore(flip_rotate(lr, turn)), turn)
        return total / DIHEDRAL

    return restored
