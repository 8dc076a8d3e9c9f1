"""Makes LR and HR comparable at the size of LR, and measures how far apart they are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation

Gray = NDArray[np.float32]

_FINE, _COARSE = 1.0, 8.0
"""Standard deviations of the Gaussians between which details are compared, in LR pixels."""
_TILE = 40
"""Side of the tiles in which shifts are measured, in LR pixels."""
_SEARCHED = 4
"""Largest shift of a tile in LR pixels; beyond it, the tile has no clear peak."""
_MOST_TILES = 64
_UPSAMPLING = 50
"""Shifts of tiles are measured in steps of 1/50 LR pixel."""
_LEAST_DETAIL = 1.0
"""Standard deviation of the details of a tile in grey levels, below which its shift is not measured."""


def gray(image: NDArray[np.generic]) -> Gray:
    """Returns the mean of the channels of an image (h, w, 3), (h, w)."""
    return np.asarray(image.mean(axis=-1, dtype=np.float32))


def reduced(hr: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """Averages blocks of s x s pixels: (s·h, s·w) or (s·h, s·w, C) to the size of LR."""
    height, width = (side // scale for side in hr.shape[:2])
    return np.asarray(cv2.resize(hr, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def blurred(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Blurs an image with a Gaussian and mirrored borders; `sigma` of 0 leaves it as it is."""
    if sigma <= 0:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)


def details(image: Gray, fine: float = _FINE, coarse: float = _COARSE) -> Gray:
    """Removes the finest details, which noise and blur change, and the coarsest, which exposure and shading change."""
    return blurred(image, fine) - blurred(image, coarse)


def tile_shifts(lr: Gray, high: Gray, usable: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Measures the shift of the most detailed tiles by cross-correlation of their details.

    It shares nothing with the estimators of `register`, so that it can check them.

    Args:
        lr: Gray LR (h, w).
        high: Gray HR, reduced to the size of LR.
        usable: Tiles with pixels that are not usable are left out; if omitted, all are usable.

    Returns:
        Shifts (N, 2), (right, down) in LR pixels, of up to 64 tiles of 40 x 40.

    Source: Guizar-Sicairos et al., Efficient Subpixel Image Registration Algorithms (2008).
    """
    low, other = details(lr), details(high)
    window = np.outer(*(np.hanning(min(_TILE, side)) for side in lr.shape)).astype(np.float32)
    shifts = []
    for tile in _detailed_tiles(low, other, usable):
        shift, _, _ = phase_cross_correlation(  # type: ignore[no-untyped-call]  # scikit-image is not typed
            low[tile] * window, other[tile] * window, upsample_factor=_UPSAMPLING, normalization=None
        )
        if np.abs(shift).max() <= _SEARCHED:
            shifts.append((-float(shift[1]), -float(shift[0])))
    return np.asarray(shifts, np.float64).reshape(-1, 2)


def residual(lr: Gray, high: Gray, usable: NDArray[np.bool_] | None = None) -> float:
    """Returns the median length of the shifts of tiles in LR pixels, see `tile_shifts`; NaN without details."""
    shifts = tile_shifts(lr, high, usable)
    return float(np.median(np.hypot(*shifts.T))) if len(shifts) else float("nan")


def _detailed_tiles(low: Gray, other: Gray, usable: NDArray[np.bool_] | None) -> Iterator[tuple[slice, slice]]:
    starts = (_starts(side) for side in low.shape)
    tiles = [(slice(top, top + _TILE), slice(left, left + _TILE)) for top, left in product(*starts)]
    ranked = sorted(((-min(float(low[t].std()), float(other[t].std())), k) for k, t in enumerate(tiles)))
    kept = [tiles[k] for detail, k in ranked if -detail >= _LEAST_DETAIL]
    if usable is not None:
        kept = [tile for tile in kept if usable[tile].all()]
    yield from kept[:_MOST_TILES]


def _starts(side: int) -> list[int]:
    """Returns the first pixels of tiles that cover a side; neighbours overlap if it is not a multiple."""
    count = max(-(-side // _TILE), 1)
    return sorted({round(k * max(side - _TILE, 0) / max(count - 1, 1)) for k in range(count)})
