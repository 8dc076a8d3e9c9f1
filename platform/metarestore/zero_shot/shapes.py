"""Blur kernels in the platform's convention: weights (K, K) whose mass centre is their middle, (K − 1) / 2.

K is even at even scales and odd at odd ones. LR pixel 0 then lies at HR position (s − 1) / 2, as everywhere in the
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

# Beyond 4 standard deviations lies 3e-4 of the mass of a Gaussian of two dimensions, which 8-bit images do not show.
_TRUNCATE = 4.0
# A bicubic kernel reaches 2 LR pixels; so many LR pixels show all of its response to a point in the middle.
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
    """Returns the Gaussian kernel of a covariance.

    Args:
        covariance: (2, 2), positive definite, in HR pixels squared; rows first, then columns.
        scale: Factor, which says whether the kernel has an even or an odd side.
    """
    variances, axes = np.linalg.eigh(covariance)
    short, long = np.sqrt(variances)
    down, right = axes[:, 1]
    angle = math.degrees(math.atan2(-down, right))  # rows count downwards, angles counter-clockwise
    size = 2 * math.ceil(_TRUNCATE * long) + 1
    return gaussian_kernel(float(short), float(long / short), angle, _shift(scale), size)


def cleaned(kernel: npt.ArrayLike, scale: int, cut: float = 0.05) -> Kernel:
    """Makes a raw estimate a valid kernel: not negative, in one piece, of sum 1, centred by its mass.

    Args:
        kernel: Weights (h, w) with a positive value.
        scale: Factor, which says where the centre lies.
        cut: Weights below this share of the largest are set to 0; so are islands beside the heaviest piece.

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
    """Returns ‖k − truth‖ / ‖truth‖ of two centred kernels, whose sides are both even or both odd."""
    side = max(*kernel.shape, *truth.shape)
    a, b = (_framed(each.astype(np.float64), side) for each in (kernel, truth))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _centred(kernel: Kernel, scale: int) -> Kernel:
    """Recentres a kernel without negative weights.

    The spline keeps the width but leaves small negative weights; without them the mass centre has moved a little, by
    which linear interpolation, which makes no negative weights, moves it back.
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
        raise ValueError(f"kernels of sides {height}x{width} and {side} have different centres")
    return np.pad(kernel, [((side - height) // 2,) * 2, ((side - width) // 2,) * 2])


def _shift(scale: int) -> float:
    return 0.0 if scale % 2 else 0.5
