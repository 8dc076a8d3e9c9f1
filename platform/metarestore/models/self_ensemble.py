"""The geometric self-ensemble: averages a network's outputs over the eight flips and rotations of an image."""

from __future__ import annotations

from torch import Tensor

from metarestore.degradations.dihedral import DIHEDRAL, flip_rotate, undo_flip_rotate
from metarestore.models.network import Restore


def self_ensemble(restore: Restore) -> Restore:
    """Returns a function that restores images in all eight orientations and averages the results, transformed back.

    A network's output should not depend on the orientation of the camera. A network adapted to five pairs does depend
    on it, and averaging reduces this overfitting. It takes eight times the computation.

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
