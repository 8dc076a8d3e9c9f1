"""PSNR and SSIM on luma as in published results: the MATLAB protocol for 8-bit images."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarestore.decibels import decibels

PEAK = 255.0
SSIM_WINDOW = 11  # pixels; Wang et al., sigma 1.5
_SSIM_SIGMA = 1.5

# BT.601 luma of 8-bit R, G, B is (65.481 R + 128.553 G + 24.966 B)/255 + 16 in limited range (16..235), and the same
# sum over 219 in full range. In integers, so that rounding is the same everywhere.
_LUMA = np.array([21827, 42851, 8322], np.int64)
_LIMITED, _FULL = 85000, 73000  # 255 and 219 in the same unit


def luma(image: NDArray[np.uint8], *, gray: bool = False) -> NDArray[np.float64]:
    """Returns the luma of an 8-bit image, rounded to whole grey levels of 0..255.

    Colours are converted as by MATLAB's `rgb2ycbcr` for uint8: BT.601 in limited range, 16..235, rounded to 8 bits.
    Published results include this rounding (bicubic on Set5 x2 is 33.66 dB with it, 33.69 dB without).

    Args:
        image: RGB (H, W, 3) or gray (H, W), uint8. An image of one channel is its own luma.
        gray: Whether an RGB image shows a gray photograph; its luma then keeps the full range, so that three equal
            channels give that channel.

    Returns:
        Grey levels (H, W).

    Raises:
        ValueError: `image` has another type or shape.

    Source: ITU-R BT.601-7, 2.5.1 and 2.5.3.
    """
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"image must be uint8 (H, W, 3) or (H, W), got {image.dtype} {image.shape}")
    if image.ndim == 2:
        return image.astype(np.float64)
    divisor, black = (_FULL, 0) if gray else (_LIMITED, 16)
    rounded: NDArray[np.int64] = (image.astype(np.int64) @ _LUMA + divisor // 2) // divisor
    return (rounded + black).astype(np.float64)


def psnr(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Returns the peak signal-to-noise ratio in dB of two images (H, W) in grey levels of 0..255; `CAP` if equal."""
    _require_same_shape(a, b)
    return float(batch_psnr(a, b))


def ssim(a: NDArray[np.float64], b: NDArray[np.float64], mask: NDArray[np.bool_] | None = None) -> float:
    """Returns the structural similarity, at most 1, of two images (H, W) in grey levels of 0..255.

    Means, variances and covariance are those of an 11x11 Gaussian window (sigma 1.5, weights of sum 1), taken where
    the window lies inside the image; K1 = 0.01, K2 = 0.03.

    Args:
        a: An image (H, W).
        b: Another of the same shape.
        mask: Pixels that count, (H, W): the mean is over windows without other pixels, or over those whose centre
            counts if there are none. If omitted, all count.

    Raises:
        ValueError: The shapes differ, or the images are smaller than the window.

    Source: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity (2004), eq. 13-16.
    """
    _require_same_shape(a, b)
    if a.ndim != 2 or min(a.shape) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images (H, W) of at least {SSIM_WINDOW}x{SSIM_WINDOW}, got {a.shape}")
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mean_a, mean_b = _windowed(a), _windowed(b)
    var_a = _windowed(a * a) - mean_a**2
    var_b = _windowed(b * b) - mean_b**2
    covariance = _windowed(a * b) - mean_a * mean_b
    numerator = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    denominator = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(np.mean((numerator / denominator)[_counted_windows(mask, a.shape)]))


def _counted_windows(mask: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Returns which windows inside an image count."""
    radius = SSIM_WINDOW // 2
    inner = tuple(slice(radius, side - radius) for side in shape)
    if mask is None:
        return np.ones(shape, np.bool_)[inner]
    whole = cv2.erode(np.asarray(mask, np.uint8), np.ones((SSIM_WINDOW, SSIM_WINDOW), np.uint8))[inner] > 0
    centred = mask[inner]
    counted = whole if whole.any() else centred if centred.any() else np.ones_like(centred)
    return np.asarray(counted, np.bool_)


def psnr_y(
    sr: NDArray[np.uint8],
    hr: NDArray[np.uint8],
    border: int,
    *,
    gray: bool = False,
    mask: NDArray[np.bool_] | None = None,
) -> float:
    """Returns the PSNR of luma in dB.

    Args:
        sr: Restored image, uint8 (H, W, 3) or (H, W).
        hr: Ground truth of the same shape.
        border: Number of pixels to ignore on every side; by convention, the scale.
        gray: Whether the ground truth is a gray photograph, see `luma`.
        mask: Pixels that count, (H, W); if omitted, all.

    Raises:
        ValueError: The shapes differ, or nothing is left inside the border.
    """
    a, b = _inner_lumas(sr, hr, border, gray)
    counted = counted_inside(mask, hr, border)
    return psnr(a[counted][None], b[counted][None])


def ssim_y(
    sr: NDArray[np.uint8],
    hr: NDArray[np.uint8],
    border: int,
    *,
    gray: bool = False,
    mask: NDArray[np.bool_] | None = None,
) -> float:
    """Returns the SSIM of luma; arguments and errors are those of `psnr_y`."""
    inner = None if mask is None else counted_inside(mask, hr, border)
    return ssim(*_inner_lumas(sr, hr, border, gray), inner)


def counted_inside(mask: NDArray[np.bool_] | None, hr: NDArray[np.uint8], border: int) -> NDArray[np.bool_]:
    """Returns which pixels of an image (H, W, ...) inside its border count.

    Raises:
        ValueError: None counts.
    """
    height, width = hr.shape[:2]
    counted = (np.ones((height, width), np.bool_) if mask is None else mask)[
        border : height - border, border : width - border
    ]
    if not counted.any():
        raise ValueError(f"a border of {border} pixels and the mask leave nothing of images of {height}x{width}")
    return counted


def batch_mse(
    sr: Tensor | NDArray[np.floating], hr: Tensor | NDArray[np.floating], border: int = 0
) -> NDArray[np.float64]:
    """Returns the mean squared error of each of many images of one size, in squared grey levels.

    Args:
        sr: Restored luma (..., h, w) in grey levels of 0..255.
        hr: Ground truth of the same shape.
        border: Number of pixels to ignore on every side.

    Returns:
        Errors (...); NaN if a pixel is NaN.

    Raises:
        ValueError: The shapes differ, or nothing is left inside the border.
    """
    _require_same_shape(sr, hr)
    difference = inside(_float64(sr) - _float64(hr), border)
    return np.asarray(np.mean(difference**2, axis=(-2, -1)))


def batch_psnr(
    sr: Tensor | NDArray[np.floating], hr: Tensor | NDArray[np.floating], border: int = 0
) -> NDArray[np.float64]:
    """Returns the PSNR in dB of each of many images of one size, see `decibels`; arguments are those of `batch_mse`."""
    return decibels(batch_mse(sr, hr, border), PEAK)


def _inner_lumas(
    sr: NDArray[np.uint8], hr: NDArray[np.uint8], border: int, gray: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    _require_same_shape(sr, hr)
    return inside(luma(sr, gray=gray), border), inside(luma(hr, gray=gray), border)


def inside(images: NDArray[np.float64], border: int) -> NDArray[np.float64]:
    """Crops `border` pixels from every side of images (..., h, w)."""
    height, width = images.shape[-2:]
    if border < 0 or min(height, width) <= 2 * border:
        raise ValueError(f"a border of {border} pixels leaves nothing of images of {height}x{width}")
    return images[..., border : height - border, border : width - border]


def _windowed(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the Gaussian-weighted local means at every position where the window is inside the image."""
    kernel = cv2.getGaussianKernel(SSIM_WINDOW, _SSIM_SIGMA, cv2.CV_64F)
    radius = SSIM_WINDOW // 2
    return inside(cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel).astype(np.float64, copy=False), radius)


def _float64(images: Tensor | NDArray[np.floating]) -> NDArray[np.float64]:
    values = images.detach().cpu().numpy() if isinstance(images, Tensor) else images
    return values.astype(np.float64)


def _require_same_shape(a: Tensor | NDArray[np.generic], b: Tensor | NDArray[np.generic]) -> None:
    if a.shape != b.shape:
        raise ValueError(f"the images have different shapes, {tuple(a.shape)} and {tuple(b.shape)}")
