"""Fits the Gaussian blur that is most similar to the kernel of a camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from metarestore.fitting.equations import Normal
from metarestore.fitting.pairs import Floats

_NARROWEST = 0.2
"""Least standard deviation: a narrower Gaussian is a single pixel, independent of its centre."""
_LONGEST = 4.0
"""Largest axis ratio."""
_FIRST = 0.1
"""Initial standard deviation of the search, as a fraction of the side of the kernel."""


@dataclass(frozen=True)
class Gaussian:
    """Width, shape and position of a blur, in HR pixels.

    Attributes:
        sigma: Root mean square of the standard deviations along both axes.
        ratio: Ratio of the long axis to the short axis.
        angle: Direction of the long axis in degrees, 0..180, counter-clockwise from the horizontal.
        centre: Centre (down, right), relative to the position of the LR pixel.
    """

    sigma: float
    ratio: float
    angle: float
    centre: tuple[float, float]


def fit_gaussian(normal: Normal) -> tuple[Gaussian, Floats]:
    """Finds the Gaussian blur that explains LR best, with a free gain.

    It determines the width of a kernel: the second moments of a fitted kernel are dominated by noise in its tails.

    Args:
        normal: Equations of a kernel of K·K values.

    Returns:
        The Gaussian, and its kernel (K²,) of sum 1.
    """
    side = math.isqrt(len(normal.moment))

    def unexplained(values: Floats) -> float:
        kernel = _kernel(side, values)
        power = max(float(kernel @ normal.gram @ kernel), 1e-12)
        return 1 - float(kernel @ normal.moment) ** 2 / (power * normal.energy)

    def unexplained_by_circle(values: Floats) -> float:
        return unexplained(_elongated(values))

    # Wide first: the error of kernels narrower than a pixel does not depend on their centre.
    start: Floats = np.array([0.0, 0.0, math.log(side * _FIRST)])
    circle: Floats = minimize(unexplained_by_circle, start, method="BFGS").x
    ellipse: Floats = minimize(unexplained, _elongated(circle), method="BFGS").x
    return _described(ellipse), _kernel(side, ellipse)


def _elongated(values: Floats) -> Floats:
    """Appends a small elongation to a round Gaussian, because the direction of none is undefined."""
    return np.append(values, (0.01, 0.01))


def _axes(values: Floats) -> tuple[float, float, float]:
    """Returns the standard deviations along the short and the long axis, and the long axis' angle to "down".

    The search is free of bounds: centre (down, right), logarithm of the geometric mean of both standard deviations,
    and a vector whose length is half the logarithm of their ratio, and whose direction is twice the angle.
    """
    half = min(math.hypot(values[3], values[4]), math.log(_LONGEST) / 2)
    mean = max(math.exp(min(values[2], 10.0)), _NARROWEST)
    return mean * math.exp(-half), mean * math.exp(half), math.atan2(values[4], values[3]) / 2


def _kernel(side: int, values: Floats) -> Floats:
    """Returns the sampled Gaussian (K²,), of sum 1."""
    short, long, angle = _axes(values)
    offsets = np.arange(side) - (side - 1) / 2
    down, right = np.meshgrid(offsets - values[0], offsets - values[1], indexing="ij")
    along = math.cos(angle) * down + math.sin(angle) * right
    across = math.cos(angle) * right - math.sin(angle) * down
    distance = (along / long) ** 2 + (across / short) ** 2
    kernel = np.exp(-0.5 * (distance - distance.min())).ravel()
    return np.asarray(kernel / kernel.sum())


def _described(values: Floats) -> Gaussian:
    short, long, angle = _axes(values)
    return Gaussian(
        sigma=math.sqrt((short**2 + long**2) / 2),
        ratio=long / short,
        angle=(math.degrees(angle) - 90.0) % 180.0,  # from "down" to the horizontal, both counter-clockwise
        centre=(float(values[0]), float(values[1])),
    )
