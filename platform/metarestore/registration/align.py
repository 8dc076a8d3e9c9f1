"""Aligns pairs: warps HR onto the pixel grid of LR, matches its exposure, and masks what differs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metarestore.registration.compare import blurred, details, gray, reduced, residual
from metarestore.registration.exposure import Exposure, match_exposure
from metarestore.registration.mask import differs
from metarestore.registration.motion import LARGEST_ANGLE, LARGEST_ZOOM, Motion, has_data, warped
from metarestore.registration.register import NotRegisteredError, register, sharpness

_STILL = 0.05
"""Largest displacement in LR pixels at which HR is not resampled, since that would cost sharpness."""
_LEAST_CORRELATION = 0.4
"""Correlation of the details of an aligned pair, below which the pair cannot be aligned."""
_MOST_MASKED = 0.5
_LEAST_SIDE = 32
"""Shorter side in LR pixels of the part of LR that HR must cover."""


@dataclass(frozen=True, eq=False)
class AlignedPair:
    """An aligned pair.

    Attributes:
        lr: LR pixels as the camera stored them, uint8 (h, w, 3), cropped to where HR has data.
        hr: HR on the grid of LR and with its exposure, uint8 (s·h, s·w, 3).
        mask: Which HR pixels are aligned, (s·h, s·w).
        motion: Where the pixels of LR, before cropping, lie in HR.
        exposure: The colour map that was applied to HR.
        before: Median shift of tiles in LR pixels before the alignment; NaN without details.
        after: The same after it.
    """

    lr: NDArray[np.uint8]
    hr: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    motion: Motion
    exposure: Exposure
    before: float
    after: float

    @property
    def masked(self) -> float:
        """Fraction of the pixels that are not aligned."""
        return 1.0 - float(self.mask.mean())


def align_pair(lr: NDArray[np.uint8], hr: NDArray[np.uint8], scale: int) -> AlignedPair:
    """Aligns HR with LR; only HR is resampled, so LR keeps the blur and the noise of the camera.

    Args:
        lr: LR image (h, w, 3), RGB.
        hr: HR image (s·h, s·w, 3).
        scale: Factor s.

    Raises:
        NotRegisteredError: They cannot be aligned: they show different scenes, are more than some pixels apart, or have
            no details.
    """
    low, high = lr.astype(np.float32), hr.astype(np.float32)
    motion = _without_noise(register(low, high, scale), lr.shape[0], lr.shape[1])
    moved = warped(high, motion, scale) if motion.displaces else high
    rows, columns = covered(has_data(motion, lr.shape[0], lr.shape[1], scale))
    tall, wide = (slice(scale * part.start, scale * part.stop) for part in (rows, columns))
    low, moved = low[rows, columns], moved[tall, wide]
    if min(low.shape[:2]) < _LEAST_SIDE:
        raise NotRegisteredError("HR covers too little of LR")
    exposure, unmoved = _exposed(low, moved, scale)
    aligned = np.clip(np.round(exposure.apply(moved)), 0, 255).astype(np.uint8)
    small = reduced(aligned.astype(np.float32), scale)
    _require_alike(low, small, unmoved)
    mask = unmoved.repeat(scale, axis=0).repeat(scale, axis=1)
    before = residual(gray(lr), gray(reduced(high, scale)))
    after = residual(gray(low), gray(small), unmoved)
    return AlignedPair(lr[rows, columns], aligned, mask, motion, exposure, before, after)


def covered(known: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Returns the rows and columns of a large rectangle without missing pixels, which lie near the border.

    Args:
        known: Which pixels have data, (h, w).
    """
    top, bottom, left, right = 0, known.shape[0], 0, known.shape[1]
    while top < bottom and left < right and not known[top:bottom, left:right].all():
        part = ~known[top:bottom, left:right]
        missing = (part[0].mean(), part[-1].mean(), part[:, 0].mean(), part[:, -1].mean())
        side = int(np.argmax(missing))
        top, bottom = top + (side == 0), bottom - (side == 1)
        left, right = left + (side == 2), right - (side == 3)
    return slice(top, bottom), slice(left, right)


def _without_noise(motion: Motion, height: int, width: int) -> Motion:
    moved = motion.displacements(height, width)
    return Motion.identity() if float(np.hypot(moved[..., 0], moved[..., 1]).max()) < _STILL else motion


def _exposed(low: NDArray[np.float32], moved: NDArray[np.float32], scale: int) -> tuple[Exposure, NDArray[np.bool_]]:
    """Matches the exposure, first with all pixels, then without those that differ; returns which pixels do not."""
    small = reduced(moved, scale)
    exposure = match_exposure(low, small)
    unmoved = np.ones(low.shape[:2], np.bool_)
    for _ in range(2):
        matched = np.clip(exposure.apply(small), 0, 255)
        unmoved = ~differs(low, blurred(matched, sharpness(gray(low), gray(matched), unmoved)))
        if unmoved.mean() < 1 - _MOST_MASKED:
            raise NotRegisteredError(f"they differ in {1 - unmoved.mean():.0%} of their pixels")
        exposure = match_exposure(low, small, unmoved)
    return exposure, unmoved


def _require_alike(low: NDArray[np.float32], small: NDArray[np.float32], unmoved: NDArray[np.bool_]) -> None:
    first, second = (details(gray(image))[unmoved] for image in (low, small))
    correlation = float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum() + 1e-6))
    if correlation < _LEAST_CORRELATION:
        raise NotRegisteredError(
            f"the details of LR and HR do not match (correlation {correlation:.2f}) with a rotation of up to "
            f"{LARGEST_ANGLE:g} degrees and a change of scale of up to {LARGEST_ZOOM:.0%}"
        )
