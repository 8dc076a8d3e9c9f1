"""Fits a blur kernel and an affine colour map per channel, by regularised least squares from HR to LR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import cv2
import numpy as np

from metarestore.fitting.equations import KERNEL_SIDE, Normal, PairSums
from metarestore.fitting.gaussian import Gaussian, fit_gaussian
from metarestore.fitting.pairs import Floats

_WEIGHTS = tuple(10.0**power for power in range(-5, 3))
_ROUNDS = 2
_TOLERANCE = 1.02
"""The strongest penalty is used whose held-out error is at most this factor above the minimum."""


LEAST_GAIN = 0.001
"""Gain of a channel with content in HR but not in LR: the smallest value that a task file allows."""
_FLAT = 1e-6
"""Range of values of a channel in grey levels, below which it has no content."""


@dataclass(frozen=True)
class ColourLine:
    """An affine map of the channels, value → gain · value + offset, on encoded values.

    Attributes:
        gains: Gain of R, G, B.
        offsets: Offset of R, G, B in grey levels.
    """

    gains: tuple[float, float, float]
    offsets: tuple[float, float, float]

    def apply(self, image: Floats) -> Floats:
        """Returns the recoloured image (..., 3), not clipped."""
        return np.asarray(image * np.array(self.gains) + np.array(self.offsets))

    @classmethod
    def between(cls, source: Floats, target: Floats) -> ColourLine:
        """Returns the least-squares maps from `source` to `target`, both (..., 3).

        A constant channel does not determine a gain: it is `LEAST_GAIN` if `target` is constant, and 1 if `source` is.
        """
        x, y = source.reshape(-1, 3), target.reshape(-1, 3)
        variance = np.maximum(x.var(axis=0), 1e-9)
        gains = ((x - x.mean(axis=0)) * (y - y.mean(axis=0))).mean(axis=0) / variance
        flat_x, flat_y = np.ptp(x, axis=0) < _FLAT, np.ptp(y, axis=0) < _FLAT
        gains = np.where(flat_x, 1.0, np.where(flat_y, LEAST_GAIN, gains))
        return cls(_triple(gains), _triple(y.mean(axis=0) - gains * x.mean(axis=0)))


@dataclass(frozen=True, eq=False)
class KernelFit:
    """A fitted kernel.

    Attributes:
        kernel: (K, K), of sum 1; it may have negative values.
        gaussian: The Gaussian blur that explains the pairs best.
    """

    kernel: Floats
    gaussian: Gaussian


def fit_kernel(sums: Sequence[PairSums]) -> KernelFit:
    """Fits one kernel to one or several pairs, each with its own gains and offsets.

    Components that the pairs do not determine (frequencies missing in HR, the tails) follow the best Gaussian: the
    penalty is on the difference from it, on its roughness and its distance from the centre. Without it, the kernel
    would fit the pairs equally well with a pattern of stripes that degrades other photographs. The strongest weight is
    used that explains the held-out rows almost as well as the best one.

    Source: ridge regression, Hoerl and Kennard, Ridge Regression: Biased Estimation for Nonorthogonal Problems (1970).
    """
    # A channel without content in LR has no information.
    gains = [(one.joined.energies > 0).astype(np.float64) for one in sums]
    gaussian, start = fit_gaussian(_total([one.joined.normal(gain) for one, gain in zip(sums, gains, strict=True)]))
    penalty = _penalty(math.isqrt(len(start)))
    kernel = start
    for _ in range(_ROUNDS):
        gains = [one.joined.gains(kernel) for one in sums]
        fitted = _total([one.fitted.normal(gain) for one, gain in zip(sums, gains, strict=True)])
        held = _total([one.held.normal(gain) for one, gain in zip(sums, gains, strict=True)])
        kernel = _solve(fitted + held, start, penalty, _best_weight(fitted, held, start, penalty))
        kernel /= kernel.sum()
    side = math.isqrt(len(kernel))
    return KernelFit(kernel.reshape(side, side), gaussian)


def synthesise(hr: Floats, kernel: Floats, scale: int) -> Floats:
    """Blurs and downsamples with a symmetric border: the prediction of LR before the colour map.

    Args:
        hr: (s·h, s·w, 3).
        kernel: (K, K), with K even if and only if the scale is.
        scale: Factor s.

    Returns:
        (h, w, 3).

    Raises:
        ValueError: The parity of K does not match the scale.
    """
    side = len(kernel)
    if (side - scale) % 2:
        raise ValueError(f"a kernel of side {side} has no centre at scale {scale}; both must be even, or both odd")
    anchor = (side - 1) // 2
    blurred = cv2.filter2D(hr, cv2.CV_64F, kernel, anchor=(anchor, anchor), borderType=cv2.BORDER_REFLECT)
    first = (scale - 1) // 2
    return np.asarray(blurred[first::scale, first::scale], dtype=np.float64)


def _penalty(side: int) -> Floats:
    """Returns the penalty's matrix (K², K²).

    Squared values weigh 0.1 at the centre and some 10 in the corners; the squared Laplacian is added.
    """
    offsets = (np.arange(side) - (side - 1) / 2) * KERNEL_SIDE / side
    near = (0.1 + offsets[:, None] ** 2 + offsets**2).ravel()
    second = np.diag(np.full(side, 2.0)) - np.eye(side, k=1) - np.eye(side, k=-1)
    laplacian = np.kron(second, np.eye(side)) + np.kron(np.eye(side), second)
    return np.asarray(np.diag(near) + laplacian @ laplacian)


def _best_weight(fitted: Normal, held: Normal, start: Floats, penalty: Floats) -> float:
    errors = {weight: held.error(_solve(fitted, start, penalty, weight)) for weight in _WEIGHTS}
    return max(weight for weight, error in errors.items() if error <= _TOLERANCE * min(errors.values()))


def _solve(normal: Normal, start: Floats, penalty: Floats, weight: float) -> Floats:
    """Returns the values (K²,) that explain the equations with a penalty on the difference from `start`."""
    strength = weight * np.trace(normal.gram) / len(start)
    difference = np.linalg.solve(normal.gram + strength * penalty, normal.moment - normal.gram @ start)
    return np.asarray(start + difference)


def _total(normals: Sequence[Normal]) -> Normal:
    return reduce(Normal.__add__, normals)


def _triple(values: Floats) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
