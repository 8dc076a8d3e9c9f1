"""Shots of real pairs whose colour disagrees with that of the others: another white balance or exposure of one side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

COLOUR_BOUND = 0.07
"""Largest ordinary deviation of a shot's channel gains from each other, as a natural logarithm (7%).

In 11,600 random sets of 3, 5 or 8 real pairs of eight cameras (RealSR, DRealSR, City100; shots of 64 to 512 pixels) an
ordinary shot is named in 4. A shot whose HR image has gains of .88, .96 and .76 is named in 84%, 92% and 93% of them.
"""
BRIGHTNESS_BOUND = 0.15
"""The same of the mean gain of the three channels: gains of .7 are named in 97% to 99.8% of those sets."""
_SPREAD = 4.0
"""A shot stands out only by so many times the median deviation, in sets whose shots all differ."""
_OFFSET = 24.0
"""Grey levels added to the means of a channel, so that dark channels, whose ratios scatter, count for less."""
_FEWEST = 3
"""Of two shots nobody can tell which is wrong."""


def off_colour_shots(lr: Tensor, hr: Tensor) -> tuple[int, ...]:
    """Finds the shots whose gain from LR to HR disagrees with that of the others.

    The gain of a channel is the ratio of its means over HR and LR. A shot is named if the logarithms of its gains,
    compared with their median over all shots, differ between the channels by more than `COLOUR_BOUND`, or in their mean
    by more than `BRIGHTNESS_BOUND`, and by four times the median of these deviations over the shots: fewer than half of
    the shots can be named.

    Args:
        lr: LR shots (K, 3, h, w) in [0, 1].
        hr: HR shots (K, 3, s·h, s·w) in [0, 1].

    Returns:
        Their indices, in order; none of fewer than three shots.
    """
    if len(lr) < _FEWEST:
        return ()
    gains = np.log(_means(hr)) - np.log(_means(lr))
    deviations = gains - np.median(gains, axis=0)
    brightness = np.abs(deviations.mean(axis=1))
    colour = np.abs(deviations - deviations.mean(axis=1, keepdims=True)).max(axis=1)
    named = _stands_out(colour, COLOUR_BOUND) | _stands_out(brightness, BRIGHTNESS_BOUND)
    return tuple(np.flatnonzero(named).tolist())


def _stands_out(deviations: NDArray[np.float64], bound: float) -> NDArray[np.bool_]:
    return np.asarray(deviations > max(bound, _SPREAD * float(np.median(deviations))))


def _means(images: Tensor) -> NDArray[np.float64]:
    """Returns the mean of each channel in grey levels, moved off 0, (K, 3)."""
    return np.asarray(images.double().mean(dim=(-2, -1)).numpy() * 255.0 + _OFFSET)
