"""Resampling to any size as one sparse matrix per axis.

Output pixel n of `out` pixels is at position (n + 1/2)·size/out − 1/2 among `size` input pixels, so the two images have
the same centre. With antialiasing, shrinking stretches the kernel by size/out, as MATLAB's imresize does, and the
border is symmetric (mirrored, with the edge pixel repeated once). Without antialiasing, the result is that of OpenCV
and PyTorch: the kernel keeps its width, and the edge pixel is replicated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
import numpy.typing as npt

from metarestore.degradations.base import Image

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from torch import Tensor

Method = Literal["bicubic", "bilinear", "area", "nearest", "lanczos"]
Floats = npt.NDArray[np.float64]


def cubic(a: float) -> Callable[[Floats], Floats]:
    """Returns Keys' cubic convolution kernel: a = −0.5 in MATLAB, −0.75 in OpenCV and PyTorch."""

    def kernel(x: Floats) -> Floats:
        x = np.abs(x)
        inner = ((a + 2) * x - (a + 3)) * x**2 + 1
        outer = a * (((x - 5) * x + 8) * x - 4)
        return np.asarray(np.where(x <= 1, inner, np.where(x < 2, outer, 0.0)), dtype=np.float64)

    return kernel


def _triangle(x: Floats) -> Floats:
    return np.asarray(np.clip(1 - np.abs(x), 0, None), dtype=np.float64)


def _lanczos(x: Floats) -> Floats:
    return np.asarray(np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0), dtype=np.float64)


_KERNELS: dict[tuple[str, bool], tuple[Callable[[Floats], Floats], float]] = {
    ("bicubic", True): (cubic(-0.5), 2.0),
    ("bicubic", False): (cubic(-0.75), 2.0),
    ("bilinear", True): (_triangle, 1.0),
    ("bilinear", False): (_triangle, 1.0),
    ("lanczos", True): (_lanczos, 3.0),
    ("lanczos", False): (_lanczos, 3.0),
}
"""Kernel and its half-width, by method and antialiasing."""


_OPENCV = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
"""Methods for which OpenCV's resize gives the result of this module without antialiasing."""


def nearest_index(size: int, out: int) -> npt.NDArray[np.int64]:
    """Returns the index of the nearest of `size` input pixels for each of `out` output pixels; ties go to the first.

    For an even factor s this is pixel s·n + s/2 − 1, half a pixel before the centre of the block.
    """
    # In integer arithmetic, because rounding (n + 1/2)·size/out could change the result at ties.
    doubled = (2 * np.arange(out, dtype=np.int64) + 1) * size
    return (doubled + 2 * out - 1) // (2 * out) - 1


@lru_cache(maxsize=256)
def weights(size: int, out: int, method: Method, antialias: bool) -> csr_array[np.float32]:
    """Returns the matrix (out, size) that resamples one axis; its rows sum to 1.

    Args:
        size: Number of input pixels.
        out: Number of output pixels.
        method: Interpolation method; `area` weights each pixel by the fraction of it that the output pixel covers.
        antialias: Whether shrinking stretches the kernel; `area` always averages all covered pixels.

    Source: Keys, Cubic Convolution Interpolation for Digital Image Processing (1981), eq. 4 and 15, for the bicubic
    kernel; Duchon, Lanczos Filtering in One and Two Dimensions (1979), for the Lanczos kernel, here with three lobes.
    """
    from scipy.sparse import csr_array

    if method == "nearest":
        rows, columns, values = np.arange(out), nearest_index(size, out), np.ones(out)
    elif method == "area":
        rows, columns, values = _area(size, out)
    else:
        rows, columns, values = _kernel(size, out, *_KERNELS[method, antialias], antialias=antialias)
    mirror = columns % (2 * size)
    mirrored = np.where(mirror < size, mirror, 2 * size - 1 - mirror)
    columns = mirrored if antialias else np.clip(columns, 0, size - 1)
    matrix = csr_array((values, (rows, columns)), shape=(out, size))
    matrix.eliminate_zeros()
    return matrix.astype(np.float32)


def _kernel(
    size: int, out: int, kernel: Callable[[Floats], Floats], half: float, *, antialias: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    ratio = size / out
    stretch = max(ratio, 1.0) if antialias else 1.0
    centre = (np.arange(out) + 0.5) * ratio - 0.5
    first = np.ceil(centre - half * stretch).astype(np.int64)
    columns = first[:, None] + np.arange(int(np.ceil(2 * half * stretch)) + 1)
    values = kernel((columns - centre[:, None]) / stretch)
    values /= values.sum(axis=1, keepdims=True)
    return np.repeat(np.arange(out), columns.shape[1]), columns.ravel(), values.ravel()


def _area(size: int, out: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    edges = np.arange(out + 1) * (size / out)
    columns = np.floor(edges[:-1]).astype(np.int64)[:, None] + np.arange(int(np.ceil(size / out)) + 1)
    covered = np.minimum(columns + 1, edges[1:, None]) - np.maximum(columns, edges[:-1, None])
    values = np.clip(covered, 0, None)
    values /= values.sum(axis=1, keepdims=True)
    return np.repeat(np.arange(out), columns.shape[1]), columns.ravel(), values.ravel()


def resample_image(image: Image, size: tuple[int, int], method: Method, antialias: bool) -> Image:
    """Resamples one image (H, W, 3) to `size` (height, width).

    OpenCV is used where it gives the same result. The sparse product sums the taps of each row in a fixed order, so the
    result does not depend on the number of threads.
    """
    if not antialias and method in _OPENCV:
        return np.asarray(cv2.resize(image, size[::-1], interpolation=_OPENCV[method]), dtype=np.float32)
    rows, columns = (weights(old, new, method, antialias) for old, new in zip(image.shape[:2], size, strict=True))
    height, width = size
    # Resampling the rows first leaves less to transpose.
    tall = (rows @ image.reshape(len(image), -1)).reshape(height, -1, 3)
    transposed = cv2.transpose(tall)
    wide = (columns @ transposed.reshape(len(transposed), -1)).reshape(width, height, 3)
    return np.asarray(cv2.transpose(wide), dtype=np.float32)


def resample_batch(images: Tensor, size: tuple[int, int], method: Method, antialias: bool) -> Tensor:
    """Resamples images (N, C, H, W) to `size` (height, width), on their device; differentiable."""
    import torch

    rows, columns = (
        torch.from_numpy(weights(old, new, method, antialias).toarray()).to(images.device)
        for old, new in zip(images.shape[-2:], size, strict=True)
    )
    return rows @ images @ columns.T
