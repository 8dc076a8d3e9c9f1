"""Measures properties of an image from which its kernel is estimated, in LR pixels and grey levels, for any scale."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from metarestore.zero_shot.spectra import (
    SIDE,
    Floats,
    WidthFit,
    as_floats,
    fit_width,
    mean_power,
    noise_floor,
    noise_level,
    radii,
    window_powers,
)

SMALLEST = 48
"""Minimum height and width of an image that can be measured: the largest window."""

_OTHER_SIDES = (24, 48)
_OTHER_BANDS = ((0.5, 1.6), (0.5, 2.6))
_EDGE = 8  # pixels over which the contrast of an edge is measured
_MOST_PIXELS = 1024  # maximum side of the part in which sharpness and blocks are measured
_QUIET = 1e-3
_RINGS = np.linspace(0.3, math.pi, 9)  # bounds of the frequencies over which the power is averaged
_FINE = 1.4  # radians per LR pixel from which a frequency is fine detail
_SHARPEST = (0.75, 0.9)  # quantiles of the share of fine detail from which a window is among the sharpest
_FEWEST_WINDOWS = 8
_VISIBLE = 4.0  # minimum ratio of a window's power to that of the noise


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
    windows = window_powers(luma)
    power = as_floats(windows.mean(0))
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
        "edge_high": sum(_sharpness(pixels, axis, 0.99) for axis in (0, 1)) / 2,
        "edge_width": 1 / max(sum(edges) / 2, 0.1) ** 2,
        "blocks": math.log(_blockiness(pixels)),
        "contrast": math.log(max(float(pixels.std()), _QUIET)),
        "parts": math.log(_spread(parts)),
        "others": math.log(_spread([fit, *others])),
        "pixels": math.log(pixels.size),
        **_profile(power, noise),
        **_window_features(windows, noise),
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


def _profile(power: Floats, noise: float) -> dict[str, float]:
    """Returns the decrease of the mean log power between neighbouring rings of frequencies."""
    log = np.log(np.maximum(power - noise_floor(noise), 0.02 * power) + 1e-6)
    rings = itertools.pairwise(_RINGS)
    means = [float(log[(radii() >= low) & (radii() < high)].mean()) for low, high in rings]
    return {f"slope_{k}": a - b for k, (a, b) in enumerate(itertools.pairwise(means))}


def _window_features(windows: Tensor, noise: float) -> dict[str, float]:
    """Returns the widths that fit the windows with equal weights and the sharpest ones, and how sharp those are.

    The mean spectrum shows the windows of most contrast, which may be out of focus where others are not.
    """
    energy = windows.sum(dim=(1, 2))
    visible = energy > windows[0].numel() * max(_VISIBLE * noise_floor(noise), 1.0)
    if int(visible.sum()) < _FEWEST_WINDOWS:
        visible = energy >= energy.quantile(0.5)
    windows, energy = windows[visible], energy[visible]
    equal = fit_width(as_floats((windows / energy[:, None, None]).mean(0)) * float(energy.mean()), noise)
    fine = torch.from_numpy(radii() > _FINE).to(windows)
    share = ((windows - noise_floor(noise)).clamp(min=0) * fine).sum(dim=(1, 2)) / energy
    features = {"equal": equal.width, "equal_residual": equal.residual}
    for k, quantile in enumerate(_SHARPEST):
        bound = share.quantile(quantile)
        sharp = fit_width(as_floats(windows[share >= bound].mean(0)), noise)
        features |= {f"sharp_{k}": sharp.width, f"share_{k}": math.log(float(bound) + 1e-4)}
    return features


def _sharpness(pixels: Floats, axis: int, quantile: float = 0.95) -> float:
    """Returns the fraction of its contrast that a strong edge rises within one pixel, as a quantile over edges."""
    rise = np.abs(np.diff(pixels, axis=axis))
    highest, lowest = (
        extreme(pixels, _EDGE, axis=axis) for extreme in (ndimage.maximum_filter1d, ndimage.minimum_filter1d)
    )
    contrast = (highest - lowest)[: rise.shape[0], : rise.shape[1]]
    strong = contrast >= np.quantile(contrast, 0.9)
    return float(np.quantile(rise[strong] / np.maximum(contrast[strong], 1), quantile))


def _blockiness(pixels: Floats) -> float:
    """Returns the ratio of the largest to the median second difference over the 8 phases; above 1 after JPEG."""
    ratios = []
    for axis in (0, 1):
        second = np.abs(np.diff(pixels, 2, axis=axis)).mean(axis=1 - axis)
        phases = second[: len(second) // 8 * 8].reshape(-1, 8).mean(axis=0)
        ratios.append(float(phases.max() / max(np.median(phases), _QUIET)))
    return max(*ratios, 1.0)
