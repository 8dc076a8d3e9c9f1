"""Masks of pairs: which HR pixels are aligned with LR and count in fits and measurements."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metarestore.errors import UserError
from metarestore.tasks.photographs import list_photographs, read_image

Masks = Mapping[str, NDArray[np.bool_]]
"""Which HR pixels (H, W) are aligned, by the name of the pair; all are for other pairs."""
Box = tuple[int, int, int, int]

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


def aligned_part(masks: Masks, name: str, box: Box) -> float:
    """Returns the fraction of the pixels of a box (top, left, height, width) of an HR image that are aligned."""
    if name not in masks:
        return 1.0
    top, left, height, width = box
    return float(masks[name][top : top + height, left : left + width].mean())


def most_aligned(masks: Masks, name: str, boxes: Sequence[Box], preferred: Sequence[Box]) -> list[Box]:
    """Chooses crops of an HR image without masked pixels.

    Args:
        masks: The masks.
        name: Name of the pair.
        boxes: All crops that may be chosen.
        preferred: Those of them that are chosen if they have no masked pixels.

    Returns:
        The preferred crops without masked pixels; if there are none, as many of the others; if there are none either,
        the crop with fewest masked pixels.
    """
    for group in (preferred, boxes):
        if whole := [box for box in group if aligned_part(masks, name, box) == 1.0]:
            return whole[: len(preferred)]
    return [max(boxes, key=lambda box: (aligned_part(masks, name, box), box in preferred))]


def masks_content(masks: Masks) -> str:
    """Returns a hash (16 hex digits) of the names and pixels of masks."""
    content = hashlib.blake2b(digest_size=8)
    for name, mask in sorted(masks.items()):
        content.update(f"{name} {mask.shape}".encode())
        content.update(np.packbits(mask).tobytes())
    return content.hexdigest()
