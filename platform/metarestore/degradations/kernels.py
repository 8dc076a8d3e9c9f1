"""Shapes of blur kernels: weights (K, K) that sum to 1, around a centre that may lie between pixels.

The output pixel sits at the kernel's pixel (K − 1) // 2, down and across; the centre lies `shift` pixels, from 0 up to
below 1, right of and below it. Kernels with a shift have an even K, so that half a pixel is in their very middle.
Angles are in degrees, counter-clockwise from the horizontal.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Kernel = npt.NDArray[np.float32]
"""Weights that sum to 1: (K, K), or (K,) for the product of a line with itself."""

_Floats = npt.NDArray[np.float64]

# Beyond 5 standard deviations lies less than 1e-6 of a Gaussian: below what float32 images can show.
_TRUNCATE = 5.0
# A Gaussian this narrow is a single pixel: sigma 0 means no blur.
_SMALLEST_SIGMA = 1e-3
# Wider kernels would see nothing but mirror images of the photograph, and cost seconds.
_LARGEST_RADIUS = 256
# From a sharp edge, a cubic spline has rung down to 1e-7 after so many pixels.
_SPLINE_MARGIN = 12
# What is cut off the rim of a recentred kernel: its mass centre moves by less than 1e-3 pixels.
_EMPTY_RIM = 1e-5
# Points per pixel of a path: its weights are then accurate to 1e-4.
_PATH_DENSITY = 64


def gaussian_line(sigma: float, shift: float = 0.0, size: int | None = None) -> Kernel:
    """Returns a Gaussian (K,): the round Gaussian kernel is its product with itself.

    Args:
        sigma: Standard deviation, in pixels.
        shift: Place of the centre.
        size: Pixels, odd, after which it is cut; by default after 5 standard deviations.
    """
    sigma = max(sigma, _SMALLEST_SIGMA)
    offsets = _offsets(size // 2 if size else math.ceil(_TRUNCATE * sigma), shift)
    return _bell((offsets / sigma) ** 2)


def gaussian_kernel(sigma: float, ratio: float, angle: float, shift: float = 0.0, size: int | None = None) -> Kernel:
    """Returns an elongated Gaussian.

    Args:
        sigma: Standard deviation across the direction of `angle`, in pixels.
        ratio: Standard deviation along that direction over `sigma`.
        angle: The direction.
        shift: Place of the centre.
        size: Pixels along an edge, odd, after which it is cut; by default after 5 standard deviations.
    """
    reach = math.ceil(_TRUNCATE * max(sigma, _SMALLEST_SIGMA) * max(ratio, 1.0))
    radius = size // 2 if size else min(reach, _LARGEST_RADIUS)
    return _bell(_ellipse(radius, sigma, ratio, angle, shift))


def generalised_kernel(sigma: float, ratio: float, angle: float, beta: float, size: int, shift: float = 0.0) -> Kernel:
    """Returns a generalised Gaussian: exp(−d^(2·beta) / 2), where d is the distance in units of the two sigmas.

    Args:
        sigma: Scale across the direction of `angle`, in pixels; the standard deviation if `beta` is 1.
        ratio: Scale along that direction over `sigma`.
        angle: The direction.
        beta: Shape: 1 is a Gaussian, less has a peak and long tails, more comes to a disc.
        size: Pixels along an edge, odd; the shape is cut there.
        shift: Place of the centre.
    """
    return _bell(_ellipse(size // 2, sigma, ratio, angle, shift) ** beta)


def plateau_kernel(sigma: float, ratio: float, angle: float, beta: float, size: int, shift: float = 0.0) -> Kernel:
    """Returns a plateau: 1 / (1 + d^(2·beta)), where d is the distance in units of the two sigmas.

    Args:
        sigma: Distance from the centre, across the direction of `angle`, at which the weight is half, in pixels.
        ratio: The same distance along that direction, over `sigma`.
        angle: The direction.
        beta: Steepness of the slope around the plateau.
        size: Pixels along an edge, odd; the shape is cut there.
        shift: Place of the centre.
    """
    return _normalised(1 / (1 + _ellipse(size // 2, sigma, ratio, angle, shift) ** beta))


def motion_kernel(length: float, angle: float, curvature: float, shift: float = 0.0) -> Kernel:
    """Returns an arc that is traversed at constant speed, its mass centre at the kernel's centre.

    Each point of the arc is shared by the four pixels around it as in bilinear interpolation, which keeps the mass
    centre exact. A pixel's weight is thus how long the camera's path was near it.

    Args:
        length: Length of the arc, in pixels.
        angle: Direction half-way along it.
        curvature: Half circles by which the direction turns from one end to the other, counter-clockwise.
        shift: Place of the centre.
    """
    count = max(1, math.ceil(_PATH_DENSITY * length))
    time = (np.arange(count) + 0.5) / count - 0.5
    turn = math.pi * curvature * time / 2
    # The way from the middle of an arc is its chord: np.sinc(t / π) is sin(t) / t.
    chord, heading = length * time * np.sinc(turn / math.pi), math.radians(angle) + turn
    y, x = -chord * np.sin(heading), chord * np.cos(heading)  # rows count downwards
    return _splatted(y - y.mean(), x - x.mean(), shift)


def disc_kernel(radius: float, edge: float = 1.0, shift: float = 0.0) -> Kernel:
    """Returns a disc with a soft edge.

    Below a radius of 2 or an edge of 1, the pixel grid is coarse: the size is then accurate to about a tenth.

    Args:
        radius: Distance from the centre at which the weight is half, in pixels.
        edge: Width over which the weight falls linearly from full to 0, in pixels.
        shift: Place of the centre.
    """
    edge = max(edge, _SMALLEST_SIGMA)
    # The nearest pixel must not be left out, however small the disc.
    nearest = math.hypot(min(shift, 1 - shift), min(shift, 1 - shift))
    radius = max(radius, nearest - edge / 2 + _SMALLEST_SIGMA)
    y, x = _grid(math.ceil(radius + edge / 2), shift)
    return _normalised(np.clip((radius - np.hypot(x, y)) / edge + 0.5, 0.0, 1.0))


def sinc_kernel(cutoff: float, size: int, shift: float = 0.0) -> Kernel:
    """Returns the ideal low pass of two dimensions, cut to a square: it leaves ringing along edges.

    Args:
        cutoff: Greatest frequency that passes, in radians per pixel, above 0 and up to π.
        size: Pixels along an edge, odd.
        shift: Place of the centre.
    """
    from scipy.special import j1

    distance = np.hypot(*_grid(size // 2, shift))
    safe = np.where(distance == 0, 1.0, distance)
    ring = cutoff * j1(cutoff * safe) / (2 * math.pi * safe)
    return _normalised(np.where(distance == 0, cutoff**2 / (4 * math.pi), ring))


def mass_centre(kernel: Kernel) -> tuple[float, float]:
    """Returns the row and the column of a kernel's centre of mass, from its first pixel."""
    exact = kernel.astype(np.float64) / kernel.sum(dtype=np.float64)
    row, column = (exact.sum(axis=1 - axis) @ np.arange(exact.shape[axis]) for axis in (0, 1))
    return float(row), float(column)


def recentred(kernel: Kernel, shift: float = 0.0) -> Kernel:
    """Returns a kernel (h, w), whose mass centre may be anywhere, as one whose mass centre is its centre.

    A cubic spline goes through the weights, on a ground of zeros. It keeps the variance, but rings around sharp edges.

    Args:
        kernel: Weights with a sum above 0.
        shift: Place of the centre.
    """
    from scipy import ndimage

    centre = mass_centre(kernel)
    reach = max(max(at, length - 1 - at) for at, length in zip(centre, kernel.shape, strict=True))
    radius = math.ceil(reach) + _SPLINE_MARGIN
    ground = np.zeros((2 * radius + 1 + (shift > 0),) * 2)
    places = [radius + shift - at for at in centre]
    top, left = (round(place) for place in places)
    ground[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    moved = ndimage.shift(ground, (places[0] - top, places[1] - left), order=3, mode="constant")
    return _normalised(_without_rim(moved / moved.sum()))


def _without_rim(weights: _Floats) -> _Floats:
    """Takes away the outermost rings of a square, as long as next to nothing is in them."""
    total, ring = np.abs(weights).sum(), 0
    while total - np.abs(weights[ring + 1 : -ring - 1, ring + 1 : -ring - 1]).sum() < _EMPTY_RIM:
        ring += 1
    return weights[ring : len(weights) - ring, ring : len(weights) - ring]


def _offsets(radius: int, shift: float) -> _Floats:
    """Returns the way from the centre to each pixel of a line (K,)."""
    radius = max(1, radius)
    return np.arange(-radius, radius + 1 + (shift > 0), dtype=np.float64) - shift


def _grid(radius: int, shift: float) -> tuple[_Floats, _Floats]:
    """Returns the way down (K, 1) and right (1, K) from the centre to each pixel of a kernel."""
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
    """Returns exp(−squared / 2), normalised; if all of it would vanish in rounding, what vanishes last."""
    return _normalised(np.exp(-0.5 * (squared - squared.min())))


def _splatted(y: _Floats, x: _Floats, shift: float) -> Kernel:
    """Returns the kernel of equally weighted points around the centre, each shared by the four pixels near it."""
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
