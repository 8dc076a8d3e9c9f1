"""Crops of a photograph with much detail, enlarged bicubically and restored, for a sheet that compares them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarestore.degradations.resample import bicubic_upsample
from metarestore.models.restore import to_image, to_pixels

CROPS = 3
_SIDE = 64
"""Side of a crop in LR pixels."""
_MARGIN = 2
"""Radius of the bicubic kernel in LR pixels."""

Pixels = NDArray[np.uint8]


class Box(NamedTuple):
    """A part of a photograph, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Comparison:
    """A crop before and after.

    Attributes:
        box: The crop, in LR pixels.
        bicubic: Enlarged bicubically, 8-bit RGB.
        restored: Restored, 8-bit RGB of the same size.
    """

    box: Box
    bicubic: Pixels
    restored: Pixels


def detailed_boxes(pixels: NDArray[Any]) -> list[Box]:
    """Returns the crops of a photograph with the largest mean gradient, at most `CROPS`, the most detailed first."""
    height, width = pixels.shape[:2]
    high, wide = min(_SIDE, height), min(_SIDE, width)
    scores = []
    for top in range(0, height - high + 1, high):
        band = _green(pixels[top : top + high]).astype(np.float32)
        across, down = np.abs(np.diff(band, axis=1, append=band[:, -1:])), np.abs(np.diff(band, axis=0))
        for left in range(0, width - wide + 1, wide):
            cell = slice(left, left + wide)
            scores.append((-float(across[:, cell].sum() + down[:, cell].sum()), Box(top, left, high, wide)))
    return [box for _, box in sorted(scores)[:CROPS]]


class Cutter:
    """Copies crops out of the strips of a restored picture while they pass by.

    Args:
        boxes: The crops, in LR pixels.
        scale: Factor s of the restoration.
    """

    def __init__(self, boxes: Sequence[Box], scale: int) -> None:
        self._boxes = boxes
        self._scale = scale
        self._cut: list[list[Pixels]] = [[] for _ in boxes]

    def through(self, strips: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Passes on strips, and copies the parts of crops that each contains."""
        top, s = 0, self._scale
        for rows in strips:
            for box, cut in zip(self._boxes, self._cut, strict=True):
                first, last = max(s * box.top - top, 0), s * (box.top + box.height) - top
                if last > 0 and first < len(rows):
                    cut.append(_shown(rows[first:last, s * box.left : s * (box.left + box.width)]))
            top += len(rows)
            yield rows

    def comparisons(self, pixels: NDArray[Any]) -> tuple[Comparison, ...]:
        """Returns the crops after all strips have passed, each beside that of the photograph, enlarged."""
        return tuple(
            Comparison(box, _enlarged(pixels, box, self._scale), np.concatenate(cut))
            for box, cut in zip(self._boxes, self._cut, strict=True)
        )


def _enlarged(pixels: NDArray[Any], box: Box, scale: int) -> Pixels:
    top, left = max(box.top - _MARGIN, 0), max(box.left - _MARGIN, 0)
    window = pixels[top : box.top + box.height + _MARGIN, left : box.left + box.width + _MARGIN]
    image = bicubic_upsample(to_image(_shown(window)), scale)[0].clamp(0, 1)
    image = image[:, (box.top - top) * scale :, (box.left - left) * scale :]
    return to_pixels(image[:, : box.height * scale, : box.width * scale])


def _green(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels if pixels.ndim == 2 else pixels[..., 1 if pixels.shape[2] > 2 else 0]


def _shown(pixels: NDArray[Any]) -> Pixels:
    """Returns 8-bit RGB (h, w, 3) without alpha."""
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    colours = planes[..., :1].repeat(3, axis=2) if planes.shape[2] < 3 else planes[..., :3]
    levels = colours if colours.dtype == np.uint8 else (colours // 257).astype(np.uint8)
    return np.array(levels, dtype=np.uint8)
