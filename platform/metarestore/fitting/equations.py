"""Normal equations of a blur kernel: sums over the LR pixels of aligned pairs.

LR pixel n of channel c is modelled as

    lr[n, c] = gain[c] · sum_d k[d] · hr[s·n + (s − 1)/2 + d, c] + offset[c],   sum_d k[d] = 1,

so a kernel whose centre of mass is 0 corresponds to centre-aligned images. At an even scale the LR pixel lies between
HR pixels, and so does the centre of the kernel, whose side is even.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from metarestore.errors import UserError
from metarestore.fitting.pairs import Floats, Pair
from metarestore.seeds import generator

KERNEL_SIDE = 6
"""Side of a kernel in LR pixels: real cameras spread a point over about 0.6 LR pixels (standard deviation)."""

_MAX_PIXELS = 20_000
"""Maximum number of LR pixels used: 35 for each of the 576 values at x4."""
_CHUNK = 2_048
_SATURATED = (1.0, 254.0)
_BAND = 6
"""Rows of a band; every fourth band is held out."""
_LEAST_CONTRAST = 1.0
"""Standard deviation of an image in grey levels, below which there is nothing to fit a kernel to."""


@dataclass(frozen=True)
class Normal:
    """Normal equations of a kernel of K·K values; those of several pairs add up.

    Attributes:
        gram: (K², K²).
        moment: (K²,).
        energy: Sum of squared targets.
    """

    gram: Floats
    moment: Floats
    energy: float

    def __add__(self, other: Normal) -> Normal:
        return Normal(self.gram + other.gram, self.moment + other.moment, self.energy + other.energy)

    def error(self, kernel: Floats) -> float:
        """Returns the sum of squared residuals of a kernel (K²,)."""
        return float(self.energy - 2 * kernel @ self.moment + kernel @ self.gram @ kernel)


@dataclass(frozen=True)
class Sums:
    """Sums over the LR pixels of one pair, centred at the means of the channels.

    Attributes:
        grams: Gram matrices of the HR windows, (3, K², K²).
        moments: Products of HR windows and LR values, (3, K²).
        energies: Sums of squared LR values, (3,).
    """

    grams: Floats
    moments: Floats
    energies: Floats

    def normal(self, gains: Floats) -> Normal:
        """Combines the channels, given their gains (3,)."""
        gram = np.tensordot(gains**2, self.grams, axes=1)
        return Normal(gram, gains @ self.moments, float(self.energies.sum()))

    def gains(self, kernel: Floats) -> Floats:
        """Returns the least-squares gains (3,) of the channels for a kernel (K²,) of sum 1."""
        power = np.einsum("i,cij,j->c", kernel, self.grams, kernel)
        return np.asarray(self.moments @ kernel / np.maximum(power, 1e-9))

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.grams + other.grams, self.moments + other.moments, self.energies + other.energies)


@dataclass(frozen=True)
class PairSums:
    """The equations of a pair, separately for fitting and for the held-out bands of rows."""

    fitted: Sums
    held: Sums

    @property
    def joined(self) -> Sums:
        """All equations of the pair."""
        return self.fitted + self.held


def kernel_size(scale: int) -> int:
    """Returns the side K of a kernel in HR pixels: even where the scale is even, so that its centre is exact."""
    side = KERNEL_SIDE * scale
    return side + (side - scale) % 2


def pair_sums(pair: Pair) -> PairSums:
    """Computes the equations of a pair, without saturated pixels and pixels near the border.

    Raises:
        UserError: The LR image is flat or saturated.
    """
    lit = lit_channels(pair.lr)
    rows, columns = _usable_pixels(pair, lit)
    contrast = pair.lr[rows, columns][:, lit].std(axis=0).mean() if len(rows) else 0.0
    if len(rows) < kernel_size(pair.scale) ** 2 or contrast < _LEAST_CONTRAST:
        raise UserError(
            f"pair '{pair.name}': LR is flat or saturated nearly everywhere; remove it, or use another crop"
        )
    held = rows // _BAND % 4 == 3
    return PairSums(_sums(pair, rows[~held], columns[~held]), _sums(pair, rows[held], columns[held]))


def border(scale: int) -> int:
    """Returns the number of LR pixels at the edge for which the kernel extends beyond the HR image."""
    return -(-(kernel_size(scale) - scale) // (2 * scale))


def aligned_pixels(pair: Pair) -> NDArray[np.bool_]:
    """Returns which LR pixels (h, w) depend, through the kernel, on aligned HR pixels only."""
    if pair.mask is None:
        return np.ones(pair.lr.shape[:2], np.bool_)
    side = kernel_size(pair.scale) + 1
    whole = cv2.erode(np.asarray(pair.mask, np.uint8), np.ones((side, side), np.uint8)) > 0
    first = pair.scale // 2
    return np.asarray(whole[first :: pair.scale, first :: pair.scale])


def lit_channels(image: Floats) -> NDArray[np.bool_]:
    """Returns which channels of an image (h, w, 3) have content: a colour filter may leave one at 0 everywhere."""
    return np.asarray(np.ptp(image, axis=(0, 1)) > 0)


def _usable_pixels(pair: Pair, lit: NDArray[np.bool_]) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows and columns of the LR pixels to use; channels without content are ignored."""
    edge = border(pair.scale)
    low, high = _SATURATED
    inside = pair.lr[edge:-edge, edge:-edge][..., lit]
    if not lit.any():
        return np.array([], np.intp), np.array([], np.intp)
    usable = np.all((inside > low) & (inside < high), axis=-1) & aligned_pixels(pair)[edge:-edge, edge:-edge]
    rows, columns = np.nonzero(usable)
    rows, columns = rows + edge, columns + edge
    if len(rows) > _MAX_PIXELS:
        chosen = np.sort(generator("fitting").choice(len(rows), _MAX_PIXELS, replace=False))
        rows, columns = rows[chosen], columns[chosen]
    return rows, columns


def _sums(pair: Pair, rows: np.ndarray, columns: np.ndarray) -> Sums:
    """Sums over the given LR pixels."""
    side = kernel_size(pair.scale)
    first = (pair.scale - side) // 2
    tops, lefts = pair.scale * rows + first, pair.scale * columns + first
    grams = np.zeros((3, side**2, side**2))
    moments = np.zeros((3, side**2))
    targets = pair.lr[rows, columns] - pair.lr[rows, columns].mean(axis=0)
    for channel in range(3):
        windows = np.lib.stride_tricks.sliding_window_view(pair.hr[..., channel], (side, side))
        # Centred, because sums of squares of raw grey levels would lose half of the digits.
        level = pair.hr[..., channel].mean()
        total = np.zeros(side**2)
        for part in _chunks(len(rows)):
            values = windows[tops[part], lefts[part]].reshape(-1, side**2) - level
            grams[channel] += values.T @ values
            moments[channel] += targets[part, channel] @ values
            total += values.sum(axis=0)
        grams[channel] -= np.outer(total, total) / max(len(rows), 1)
    return Sums(grams, moments, (targets**2).sum(axis=0))


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))
