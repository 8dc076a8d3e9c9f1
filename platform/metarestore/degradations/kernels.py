"""Shapes of blur kernels: weights (K, K) that sum to 1, around a centre that may lie between pixels.

The output pixel corresponds to the kernel's pixel (K − 1) // 2 on both axes; the centre lies `shift` pixels, in [0, 1),
right of and below it. Kernels with a shift have an even K, so that a shift of half a pixel is exactly in their middle.
Angles are in degrees, counter-clockwise from the horizontal.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Kernel = npt.NDArray[np.float32]
"""Weights that sum to 1: (K, K), or (K,) for the outer product of a vector with itself."""

_Floats = npt.NDArray[np.float64]

# Less than 1e-6 of a Gaussian lies beyond 5 standard deviations: below the resolution of float32 images.
_TRUNCATE = 5.0
# A Gaussian this narrow is a single pixel: sigma 0 means no blur.
_SMALLEST_SIGMA = 1e-3
# Wider kernels would mostly cover mirrored copies of the photograph, and take seconds.
_LARGEST_RADIUS = 256
# At this distance from a sharp edge, in pixels, the ringing of a cubic spline has decayed to 1e-7.
_SPLINE_MARGIN = 12
# Weight that may be cut from the border of a recentred kernel: its centre of mass moves by less than 1e-3 pixels.
_EMPTY_RIM = 1e-5
# Points per pixel of a path: its weights are then accurate to 1e-4.
_PATH_DENSITY = 64


def gaussian_line(sigma: float, shift: float = 0.0, size: int | None = None) -> Kernel:
    """Returns a one-dimensional Gaussian (K,), whose outer product with itself is the isotropic Gaussian kernel.

    Args:
        sigma: Standard deviation, in pixels.
        shift: Offset of the centre, in pixels.
        size: Number of pixels, odd, to which it is truncated; by default it is truncated at 5 standard deviations.
    """
    sigma = max(sigma, _SMALLEST_SIGMA)
    offsets = _offsets(size // 2 if size else math.ceil(_TRUNCATE * sigma), shift)
    return _bell((offsets / sigma) ** 2)


def gaussian_kernel(sigma: float, ratio: float, angle: float, shift: float = 0.0, size: int | None = None) -> Kernel:
    """Returns an anisotropic Gaussian.

    Args:
        sigma: Standard deviation perpendicular to `angle`, in pixels.
        ratio: Standard deviation along `angle` divided by `sigma`.
        angle: Direction of the long axis.
        shift: Offset of the centre, in pixels.
        size: Side in pixels, odd, to which it is truncated; by default it is truncated at 5 standard deviations.
    """
    extent = math.ceil(_TRUNCATE * max(sigma, _SMALLEST_SIGMA) * max(ratio, 1.0))
    radius = size // 2 if size else min(extent, _LARGEST_RADIUS)
    return _bell(_ellipse(radius, sigma, ratio, angle, shift))


def generalised_kernel(sigma: float, ratio: float, angle: float, beta: float, size: int, shift: float = 0.0) -> Kernel:
    """Returns a generalised Gaussian: exp(−d^(2·beta) / 2), where d is the distance in units of the two sigmas.

    Args:
        sigma: Scale perpendicular to `angle`, in pixels; the standard deviation if `beta` is 1.
        ratio: Scale along `angle` divided by `sigma`.
        angle: Direction of the long axis.
        beta: Shape: 1 is a Gaussian; smaller values have a sharp peak and long tails, larger values approach a disc.
        size: Side in pixels, odd, to which it is truncated.
        shift: Offset of the centre, in pixels.
    """
    return _bell(_ellipse(size // 2, sigma, ratio, angle, shift) ** beta)


def plateau_kernel(sigma: float, ratio: float, angle: float, beta: float, size: int, shift: float = 0.0) -> Kernel:
    """Returns a plateau-shaped kernel: 1 / (1 + d^(2·beta)), where d is the distance in units of the two sigmas.

    Args:
        sigma: Distance from the centre, perpendicular to `angle`, at which the weight is halved, in pixels.
        ratio: The same distance along `angle`, divided by `sigma`.
        angle: Direction of the long axis.
        beta: Steepness of the edge of the plateau.
        size: Side in pixels, odd, to which it is truncated.
        shift: Offset of the centre, in pixels.
    """
    return _normalised(1 / (1 + _ellipse(size // 2, sigma, ratio, angle, shift) ** beta))


def motion_kernel(length: float, angle: float, curvature: float, shift: float = 0.0) -> Kernel:
    """Returns a circular arc that is traversed at constant speed, with its centre of mass at the kernel's centre.

    Each point of the arc is distributed over its four neighbouring pixels as in bilinear interpolation, which preserves
    the centre of mass. A pixel's weight is thus the time that the camera's path spends near it.

    Args:
        length: Length of the arc, in pixels.
        angle: Direction at the middle of the arc.
        curvature: Change of direction from one end to the other, in half circles, counter-clockwise.
        shift: Offset of the centre, in pixels.
    """
    count = max(1, math.ceil(_PATH_DENSITY * length))
    time = (np.arange(count) + 0.5) / count - 0.5
    turn = math.pi * curvature * time / 2
    # The displacement from the middle of an arc is its chord: np.sinc(t / π) is sin(t) / t.
    chord, heading = length * time * np.sinc(turn / math.pi), math.radians(angle) + turn
    y, x = -chord * np.sin(heading), chord * np.cos(heading)  # rows count downwards
    return _splatted(y - y.mean(), x - x.mean(), shift)


def disc_kernel(radius: float, edge: float = 1.0, shift: float = 0.0) -> Kernel:
    """Returns a disc with a soft edge.

    For a radius below 2 or an edge below 1, the size is accurate to about 10% only, because the pixel grid is coarse.

    Args:
        radius: Distance from the centre at which the weight is halved, in pixels.
        edge: Width over which the weight falls linearly from its maximum to 0, in pixels.
        shift: Offset of the centre, in pixels.
    """
    edge = max(edge, _SMALLEST_SIGMA)
    # Even the smallest disc must cover the nearest pixel.
    nearest = math.hypot(min(shift, 1 - shift), min(shift, 1 - shift))
    radius = max(radius, nearest - edge / 2 + _SMALLEST_SIGMA)
    y, x = _grid(math.ceil(radius + edge / 2), shift)
    return _normalised(np.clip((radius - np.hypot(x, y)) / edge + 0.5, 0.0, 1.0))


def sinc_kernel(cutoff: float, size: int, shift: float = 0.0) -> Kernel:
    """Returns the ideal two-dimensional low-pass filter, truncated to a square; it causes ringing along edges.

    Args:
        cutoff: Highest frequency that passes, in radians per pixel, in (0, π].
        size: Side in pixels, odd.
        shift: Offset of the centre, in pixels.
    """
    from scipy.special import j1

    distance = np.hypot(*_grid(size // 2, shift))
    safe = np.where(distance == 0, 1.0, distance)
    ring = cutoff * j1(cutoff * safe) / (2 * math.pi * safe)
    return _normalised(np.where(distance == 0, cutoff**2 / (4 * math.pi), ring))


def mass_centre(kernel: Kernel) -> tuple[float, float]:
    """Returns the row and the column of a kernel's centre of mass, relative to its first pixel."""
    exact = kernel.astype(np.float64) / kernel.sum(dtype=np.float64)
    row, column = (exact.sum(axis=1 - axis) @ np.arange(exact.shape[axis]) for axis in (0, 1))
    return float(row), float(column)


def recentred(kernel: Kernel, shift: float = 0.0) -> Kernel:
    """Shifts a kernel (h, w), so that its centre of mass is at the kernel's centre.

    The zero-padded weights are interpolated by a cubic spline, which preserves the variance, but rings at sharp edges.

    Args:
        kernel: Weights with a sum above 0.
        shift: Offset of the centre, in pixels.
    """
    from scipy import ndimage

    centre = mass_centre(kernel)
    extent = max(max(at, length - 1 - at) for at, length in zip(centre, kernel.shape, strict=True))
    radius = math.ceil(extent) + _SPLINE_MARGIN
    canvas = np.zeros((2 * radius + 1 + (shift > 0),) * 2)
    offsets = [radius + shift - at for at in centre]
    top, left = (round(offset) for offset in offsets)
    canvas[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    moved = ndimage.shift(canvas, (offsets[0] - top, offsets[1] - left), order=3, mode="constant")
    return _normalised(_without_rim(moved / moved.sum()))


def _without_rim(weights: _Floats) -> _Floats:
    """Removes the outermost rings of a square while their weight is negligible."""
    total, ring = np.abs(weights).sum(), 0
    while total - np.abs(weights[ring + 1 : -ring - 1, ring + 1 : -ring - 1]).sum() < _EMPTY_RIM:
        ring += 1
    return weights[ring : len(weights) - ring, ring : len(weights) - ring]


def _offsets(radius: int, shift: float) -> _Floats:
    """Returns the offset of each pixel of a row from the centre (K,)."""
    radius = max(1, radius)
    return np.arange(-radius, radius + 1 + (shift > 0), dtype=np.float64) - shift


def _grid(radius: int, shift: float) -> tuple[_Floats, _Floats]:
    """Returns the vertical (K, 1) and horizontal (1, K) offsets of each pixel of a kernel from the centre."""
    offsets = _offsets(radius, shift)
    return offsets[:, None], offsets[None, :]


def _ellipse(radius: int, sigma: float, ratio: float, angle: float, shift: float) -> _Floats:
    """Returns the squared distance of each pixel (K, K) from the centre, in units of the two sigmas."""
    short = max(sigma, _SMALLEST_SIGMA)
    y, x = _grid(radius, shift)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, across = cosine * x - sine * y, sine * x + cosine * y  # rows count downwards
    return np.asarray((along / (short * ratio)) ** 2 + (across / short) ** 2)


def _bell(squared: _Floats) -> Kernel:
    """Returns exp(−squared / 2), normalised; the subtraction keeps the largest weight from underflowing."""
    return _normalised(np.exp(-0.5 * (squared - squared.min())))


def _splatted(y: _Floats, x: _Floats, shift: float) -> Kernel:
    """Returns the kernel of equally weighted points, each distributed bilinearly over its four neighbouring pixels."""
    radius = math.floor(max(np.abs(y).max(), np.abs(x).max())) + 1
    width = 2 * radius + 1 + (shift > 0)
    y, x = y + shift + radius, x + shift + radius
    top, left = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    down, right = y - top, x - left
    weights = np.zeros(width * width)
    for row, by_row in ((top, 1 - down), (top + 1, down)):
        for column, by_column in ((left, 1 - right), (left + 1, right)):
            weights += np.bincount(row * width + column, by_row * by_column, len(weights))
    return _normalised(weights.reshape(width, width))


def _normalised(weights: _Floats) -> Kernel:
    return np.asarray(weights / weights.sum(), dtype=np.float32)
