"""Masks of pairs: which HR pixels are aligned with LR and count in fits and measurements."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metarestore.errors import UserError
from metarestore.tasks.photographs import list_photographs, read_image

MASKS = "mask"
"""Folder of masks beside the folders of LR and HR."""
_ALIGNED = 128
"""Grey level of a mask from which a pixel is aligned."""


def mask_files(lr: Path, hr: Path) -> Mapping[str, Path]:
    """Returns the files in the folder `mask` beside two folders of LR and HR images, by name; empty without one."""
    folder = hr.parent / MASKS
    beside = lr.absolute().parent == hr.absolute().parent and lr.absolute() != hr.absolute()
    return list_photographs(folder) if beside and folder.is_dir() else {}


def read_mask(path: Path, height: int, width: int) -> NDArray[np.bool_]:
    """Reads the mask of an HR image of the given size: which pixels are aligned, (height, width).

    Raises:
        UserError: The mask cannot be read, has another size, or masks everything.
    """
    aligned = read_image(path).pixels[..., 0] >= _ALIGNED
    if aligned.shape != (height, width):
        given = f"{aligned.shape[0]}x{aligned.shape[1]}"
        raise UserError(
            f"{path}: is {given} (height x width), its HR image {height}x{width}; write it again or remove it"
        )
    if not aligned.any():
        raise UserError(f"{path}: masks the whole picture; remove the pair, or the mask")
    return np.asarray(aligned)
