"""Blur kernels in the platform's convention: weights (K, K) whose centre of mass is the middle, (K − 1) / 2.

K is even for even scales and odd for odd scales. LR pixel 0 then lies at HR position (s − 1) / 2, as everywhere in the
package: `degradations.kernel_file` reads such a kernel unchanged, with `centre: block` before `downsample: nearest`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from metarestore.degradations.kernels import Kernel, gaussian_kernel, mass_centre, recentred
from metarestore.degradations.resample import bicubic_downsample

Floats = npt.NDArray[np.float64]

# 3e-4 of the mass of a two-dimensional Gaussian lies beyond 4 standard deviations, which is invisible in 8-bit images.
_TRUNCATE = 4.0
# A bicubic kernel has a radius of 2 LR pixels, so this number of LR pixels contains its whole impulse response.
_RESPONSE = 8


def bicubic_kernel(scale: int) -> Kernel:
    """Returns the kernel of MATLAB's antialiased bicubic downsampling: (4s, 4s), or (4s − 1, 4s − 1) at odd scales.

    Args:
        scale: Factor s, 2 or more.
    """
    impulses = torch.eye(_RESPONSE * scale, dtype=torch.float64)[:, None, None, :].expand(-1, 1, scale, -1)
    response = bicubic_downsample(impulses.contiguous(), scale)[:, 0, 0, _RESPONSE // 2].numpy()
    side = 4 * scale - scale % 2
    first = scale * (_RESPONSE // 2) + (scale - side) // 2
    line = response[first : first + side]
    return np.asarray(np.outer(line, line) / line.sum() ** 2, dtype=np.float32)


def gaussian_of(covariance: Floats, scale: int) -> Kernel:
    """Returns the Gaussian kernel with a covariance.

    Args:
        covariance: (2, 2), positive definite, in HR pixels squared; rows first, then columns.
        scale: Factor, which determines whether the side of the kernel is even or odd.
    """
    variances, axes = np.linalg.eigh(covariance)
    short, long = np.sqrt(variances)
    down, right = axes[:, 1]
    angle = math.degrees(math.atan2(-down, right))  # rows count downwards, angles counter-clockwise
    size = 2 * math.ceil(_TRUNCATE * long) + 1
    return gaussian_kernel(float(short), float(long / short), angle, _shift(scale), size)


def cleaned(kernel: npt.ArrayLike, scale: int, cut: float = 0.05) -> Kernel:
    """Converts a raw estimate to a valid kernel: non-negative, connected, of sum 1, and centred by its mass.

    Args:
        kernel: Weights (h, w) with a positive value.
        scale: Factor, which determines the position of the centre.
        cut: Weights below this fraction of the largest are set to 0, and so are all pieces but the heaviest.

    Raises:
        ValueError: No weight is positive.
    """
    weights = np.maximum(np.asarray(kernel, dtype=np.float64), 0)
    if not weights.max() > 0:
        raise ValueError("a kernel needs a positive weight, got none")
    weights[weights < cut * weights.max()] = 0
    pieces, count = ndimage.label(weights > 0, structure=np.ones((3, 3)))
    heaviest = 1 + int(np.argmax(ndimage.sum_labels(weights, pieces, np.arange(1, count + 1))))
    weights[pieces != heaviest] = 0
    return _centred(np.asarray(weights / weights.sum(), dtype=np.float32), scale)


def relative_error(kernel: Kernel, truth: Kernel) -> float:
    """Returns ‖k − truth‖ / ‖truth‖ for two centred kernels, whose sides are both even or both odd."""
    side = max(*kernel.shape, *truth.shape)
    a, b = (_framed(each.astype(np.float64), side) for each in (kernel, truth))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _centred(kernel: Kernel, scale: int) -> Kernel:
    """Recentres a kernel, and keeps its weights non-negative.

    Spline interpolation preserves the width but causes small negative weights. Removing them shifts the centre of mass
    slightly. Linear interpolation, which causes no negative weights, shifts it back.
    """
    positive = np.maximum(recentred(kernel, _shift(scale)).astype(np.float64), 0)
    middle = (len(positive) + 1) / 2
    padded = np.pad(positive, 1)
    row, column = mass_centre(np.asarray(padded, dtype=np.float32))
    moved = ndimage.shift(padded, (middle - row, middle - column), order=1, mode="constant")
    return np.asarray(moved / moved.sum(), dtype=np.float32)


def _framed(kernel: Floats, side: int) -> Floats:
    height, width = kernel.shape
    if (side - height) % 2 or (side - width) % 2:
        raise ValueError(f"kernels of {height}x{width} and {side}x{side} have different centres")
    return np.pad(kernel, [((side - height) // 2,) * 2, ((side - width) // 2,) * 2])


def _shift(scale: int) -> float:
    return 0.0 if scale % 2 else 0.5
