"""Measures properties of an image from which its kernel is estimated, in LR pixels and grey levels, for any scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from torch import Tensor

from metarestore.zero_shot.spectra import SIDE, Floats, WidthFit, fit_width, mean_power, noise_level

SMALLEST = 48
"""Minimum height and width of an image that can be measured: the largest window."""

_OTHER_SIDES = (24, 48)
_OTHER_BANDS = ((0.5, 1.6), (0.5, 2.6))
_EDGE = 8  # pixels over which the contrast of an edge is measured
_MOST_PIXELS = 1024  # maximum side of the part in which sharpness and blocks are measured
_QUIET = 1e-3


@dataclass(frozen=True, eq=False)
class Measurements:
    """Measurements of an image that depend on its blur.

    Attributes:
        fit: The blur that was fitted to the spectrum.
        features: Features by name, from which `calibration` corrects the blur and predicts the error.
    """

    fit: WidthFit
    features: Mapping[str, float]


def measure(luma: Tensor) -> Measurements:
    """Measures an image (h, w) in grey levels, at least `SMALLEST` high and wide."""
    pixels = luma.cpu().numpy().astype(np.float64)
    top, left = (max(0, (length - _MOST_PIXELS) // 2) // _EDGE * _EDGE for length in pixels.shape)
    pixels = pixels[top : top + _MOST_PIXELS, left : left + _MOST_PIXELS]
    noise = noise_level(pixels)
    power = mean_power(luma)
    fit = fit_width(power, noise)
    others = [fit_width(mean_power(luma, side), noise) for side in _OTHER_SIDES]
    others += [fit_width(power, noise, band) for band in _OTHER_BANDS]
    parts = [fit_width(mean_power(part), noise) for part in _halves(luma)]
    edges = [_sharpness(pixels, axis) for axis in (0, 1)]
    features = {
        **{f"width_{k}": other.width for k, other in enumerate([fit, *others])},
        "residual": fit.residual,
        "signal": fit.signal,
        "noise": math.log(max(noise, 0.05)),
        "edge_mean": sum(edges) / 2,
        "edge_max": max(edges),
        "edge_width": 1 / max(sum(edges) / 2, 0.1) ** 2,
        "blocks": math.log(_blockiness(pixels)),
        "contrast": math.log(max(float(pixels.std()), _QUIET)),
        "parts": math.log(_spread(parts)),
        "others": math.log(_spread([fit, *others])),
    }
    return Measurements(fit, features)


def _halves(luma: Tensor) -> list[Tensor]:
    """Returns the upper, lower, left and right half, each at least as high and wide as a window."""
    height, width = (max(length // 2, SIDE) for length in luma.shape)
    return [luma[:height], luma[-height:], luma[:, :width], luma[:, -width:]]


def _spread(fits: list[WidthFit]) -> float:
    """Returns the root mean square deviation of fits from their mean, in LR pixels squared."""
    stack = np.stack([fit.covariance for fit in fits])
    return max(float(np.sqrt(((stack - stack.mean(axis=0)) ** 2).sum(axis=(1, 2)).mean())), _QUIET)


def _sharpness(pixels: Floats, axis: int) -> float:
    """Returns the fraction of its contrast that a strong edge rises within one pixel, as a 95% quantile over edges."""
    rise = np.abs(np.diff(pixels, axis=axis))
    highest, lowest = (
        extreme(pixels, _EDGE, axis=axis) for extreme in (ndimage.maximum_filter1d, ndimage.minimum_filter1d)
    )
    contrast = (highest - lowest)[: rise.shape[0], : rise.shape[1]]
    strong = contrast >= np.quantile(contrast, 0.9)
    return float(np.quantile(rise[strong] / np.maximum(contrast[strong], 1), 0.95))


def _blockiness(pixels: Floats) -> float:
    """Returns the ratio of the largest to the median second difference over the 8 phases; above 1 after JPEG."""
    ratios = []
    for axis in (0, 1):
        second = np.abs(np.diff(pixels, 2, axis=axis)).mean(axis=1 - axis)
        phases = second[: len(second) // 8 * 8].reshape(-1, 8).mean(axis=0)
        ratios.append(float(phases.max() / max(np.median(phases), _QUIET)))
    return max(*ratios, 1.0)
