"""Correlation with a kernel and symmetric padding (the edge pixel is repeated): out[p] = Σ_d k[d] · in[p + d].

This is the convention of the super-resolution literature, SciPy's `correlate` and OpenCV's `filter2D`; the image of a
bright point is the kernel rotated by 180 degrees. d = 0 is the kernel's pixel (K − 1) // 2 on each axis, so the centre
of a kernel of even size is half a pixel further right and down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from metarestore.degradations.base import Image
from metarestore.degradations.kernels import Kernel
from metarestore.degradations.resample import pad_symmetric

if TYPE_CHECKING:
    from torch import Tensor

# The smallest weights are dropped as long as together they cannot change a pixel in [0, 1] by more than this.
_NEGLIGIBLE = 5e-7
# Measured on one thread at 64x64 to 512x512: with this many taps, OpenCV takes as long as SciPy's FFT for any kernel.
_MAX_TAPS = 150
# From 130 weights on, zeros included, filter2D uses its own Fourier transform, which is slower than SciPy's.
_TILE_AREA = 129
_TILE_HEIGHT = 11


@dataclass(frozen=True, eq=False)
class Filter:
    """A kernel that is prepared to be applied to many images.

    Attributes:
        kernel: Weights (h, w) without empty margins.
        anchor: Row and column of d = 0 within `kernel`.
        lines: Vectors (h,) and (w,) whose outer product is the kernel; None if it is not separable.
    """

    kernel: Kernel
    anchor: tuple[int, int]
    lines: tuple[Kernel, Kernel] | None

    @property
    def margins(self) -> tuple[int, int, int, int]:
        """Extent of the kernel above, below, left and right of d = 0, in pixels."""
        (height, width), (row, column) = self.kernel.shape, self.anchor
        return row, height - 1 - row, column, width - 1 - column


def prepare(kernel: Kernel) -> Filter:
    """Prepares a kernel for filtering: drops negligible weights, and checks whether it is separable.

    Args:
        kernel: Weights (h, w), or (K,) for the outer product of a vector with itself.
    """
    if kernel.ndim == 1:
        middle = (len(kernel) - 1) // 2
        return Filter(np.outer(kernel, kernel), (middle, middle), (kernel, kernel))
    kernel = _without_negligible(kernel)
    anchor = ((kernel.shape[0] - 1) // 2, (kernel.shape[1] - 1) // 2)
    rows, columns = (
        (min(int(used.min()), middle), max(int(used.max()), middle) + 1)
        for used, middle in zip(np.nonzero(kernel), anchor, strict=True)
    )
    trimmed = np.ascontiguousarray(kernel[slice(*rows), slice(*columns)])
    return Filter(trimmed, (anchor[0] - rows[0], anchor[1] - columns[0]), _factors(trimmed))


def filter_image(image: Image, ready: Filter) -> Image:
    """Filters one image (H, W, 3); the result depends on nothing else, bit for bit."""
    border, anchor = cv2.BORDER_REFLECT, (ready.anchor[1], ready.anchor[0])
    if ready.lines:
        column, row = ready.lines
        return _image(cv2.sepFilter2D(image, -1, row, column, anchor=anchor, borderType=border))
    if ready.kernel.size <= _TILE_AREA:
        return _image(cv2.filter2D(image, -1, ready.kernel, anchor=anchor, borderType=border))
    padded = _image(cv2.copyMakeBorder(image, *ready.margins, borderType=border))
    by_taps = np.count_nonzero(ready.kernel) <= _MAX_TAPS
    return (_by_taps if by_taps else _by_spectrum)(padded, (image.shape[0], image.shape[1]), ready)


def filter_batch(images: Tensor, ready: Filter) -> Tensor:
    """Filters images (N, C, H, W) on their device; differentiable."""
    height, width = images.shape[-2:]
    up, down, left, right = ready.margins
    border = max(ready.margins)
    padded = pad_symmetric(images, border)[
        ..., border - up : border + height + down, border - left : border + width + right
    ]
    if ready.lines:
        column, row = ready.lines
        return _depthwise(_depthwise(padded, column[:, None]), row[None, :])
    return _depthwise(padded, ready.kernel)


def _without_negligible(kernel: Kernel) -> Kernel:
    """Sets the smallest weights to 0 while their sum is negligible, and rescales the rest to keep the sum."""
    smallest = np.sort(np.abs(kernel), axis=None).astype(np.float64)
    dropped = int(np.searchsorted(np.cumsum(smallest), _NEGLIGIBLE))
    kept = np.where(np.abs(kernel) < smallest[dropped], 0, kernel)
    return np.asarray(kept * (kernel.sum(dtype=np.float64) / kept.sum(dtype=np.float64)), dtype=np.float32)


def _factors(kernel: Kernel) -> tuple[Kernel, Kernel] | None:
    """Returns a column and a row whose outer product is the kernel (its marginal sums), or None if there are none."""
    exact = kernel.astype(np.float64)
    column, row = exact.sum(axis=1), exact.sum(axis=0)
    product = np.outer(column, row) / exact.sum()
    if np.abs(exact - product).sum() > 4 * _NEGLIGIBLE:
        return None
    return (column / exact.sum()).astype(np.float32), row.astype(np.float32)


def _by_taps(padded: Image, size: tuple[int, int], ready: Filter) -> Image:
    """Sums the results of the non-empty tiles of the kernel; OpenCV skips the zeros in each."""
    kernel = ready.kernel
    high = min(len(kernel), _TILE_HEIGHT)
    wide = _TILE_AREA // high
    results = []
    for top in range(0, kernel.shape[0], high):
        for left in range(0, kernel.shape[1], wide):
            part = kernel[top : top + high, left : left + wide]
            if part.any():
                window = padded[top : top + size[0] + part.shape[0] - 1, left : left + size[1] + part.shape[1] - 1]
                filtered = cv2.filter2D(window, -1, part, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
                results.append(_image(filtered[: size[0], : size[1]]))
    return reduce(np.add, results)


def _by_spectrum(padded: Image, size: tuple[int, int], ready: Filter) -> Image:
    """Filters in the frequency domain."""
    from scipy import fft

    whole = (fft.next_fast_len(padded.shape[0], real=True), fft.next_fast_len(padded.shape[1], real=True))
    spectrum = fft.rfft2(padded.transpose(2, 0, 1), s=whole) * _spectrum(ready, whole)
    filtered = fft.irfft2(spectrum, s=whole, overwrite_x=True)[:, : size[0], : size[1]]
    return _image(filtered.transpose(1, 2, 0))


@lru_cache(maxsize=4)
def _spectrum(ready: Filter, size: tuple[int, int]) -> npt.NDArray[np.complex64]:
    """Returns the conjugate spectrum of a kernel: correlation is convolution with the rotated kernel."""
    from scipy import fft

    return np.conj(fft.rfft2(ready.kernel.astype(np.float64), s=size)).astype(np.complex64)


def _image(array: npt.ArrayLike) -> Image:
    return np.asarray(array, dtype=np.float32)


def _depthwise(images: Tensor, kernel: Kernel) -> Tensor:
    # PyTorch computes contiguous depthwise convolutions in full float32 on GPUs; cuDNN would round the inputs to 10
    # bits.
    channels = images.shape[1]
    import torch
    from torch.nn import functional as F

    weight = torch.from_numpy(np.ascontiguousarray(kernel)).to(images.device, images.dtype)
    return F.conv2d(images.contiguous(), weight.expand(channels, 1, -1, -1).contiguous(), groups=channels)
