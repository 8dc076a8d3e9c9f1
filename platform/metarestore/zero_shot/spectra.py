"""Estimates the width of a blur in each direction from the self-similarity of photographs across scales.

The power spectra of sharp photographs follow a power law, so the spectra of a photograph and of its half-size version
have the same shape. A blur breaks this symmetry. Let S(w) be the spectrum of LR, and K that of the kernel in LR pixels.
Then log S(w) − log S(w/2) = constant + log |K(w)|² − log |K(w/2)|². For a Gaussian of covariance C, this is a quadratic
form, constant − (1 − 1/4) wᵀ C w, which is fitted by least squares.

Source: Field, Relations between the statistics of natural images and the response properties of cortical cells (1987);
Michaeli and Irani, Nonparametric Blind Super-Resolution (2013), for the recurrence of patches across scales.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

Floats = npt.NDArray[np.float64]

SIDE = 32
"""Side in pixels of the windows whose spectra are averaged."""
BAND = (0.5, 2.2)
"""Lowest and highest frequency of the fit, in radians per LR pixel; above, aliasing flattens the spectra."""

_MOST_WINDOWS = 4096
_SMOOTHING = 1.0  # standard deviation of the smoothing of a log spectrum, in frequency bins
_NOISE_MARGIN = 4.0  # minimum ratio of a frequency's power to that of the noise
_ROUNDING = 1 / 12  # variance of rounding to whole grey levels
_LEAST_SHARE = 0.05  # minimum fraction of a spectrum that remains after the noise is subtracted
_BLOCK = 8
_LAPLACIANS = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])


@dataclass(frozen=True, eq=False)
class WidthFit:
    """A Gaussian blur that explains the spectrum of an image.

    Attributes:
        covariance: (2, 2), in LR pixels squared, rows first; symmetric, but an eigenvalue may be negative.
        residual: Root mean square error of the fit of log S(w) − log S(w/2).
        signal: Mean weight of the fitted frequencies, 0..1: 1 without noise.
    """

    covariance: Floats
    residual: float
    signal: float

    @property
    def width(self) -> float:
        """Mean variance over all directions, in LR pixels squared."""
        return float(np.trace(self.covariance)) / 2


def mean_power(luma: Tensor, side: int = SIDE) -> Floats:
    """Returns the mean of `window_powers`, (side, side)."""
    return as_floats(window_powers(luma, side).mean(0))


def window_powers(luma: Tensor, side: int = SIDE) -> Tensor:
    """Returns the power spectra (N, side, side) of overlapping windows, with frequency 0 at [side // 2, side // 2].

    White noise of variance v has power v at every frequency.

    Args:
        luma: Grey levels (h, w), at least `side` high and wide; computed on their device.
        side: Side of a window, even.
    """
    line = torch.hann_window(side + 2, periodic=False, dtype=luma.dtype, device=luma.device)[1:-1]
    line = line / line.square().mean().sqrt()
    step = side // 4
    while math.prod(1 + (length - side) // step for length in luma.shape) > _MOST_WINDOWS:
        step *= 2
    windows = luma.unfold(0, side, step).unfold(1, side, step).reshape(-1, side, side)
    windows = (windows - windows.mean((1, 2), keepdim=True)) * (line[:, None] * line)
    power: Tensor = torch.fft.fftshift(torch.fft.fft2(windows).abs().square() / side**2, dim=(1, 2))
    return power


def as_floats(tensor: Tensor) -> Floats:
    """Copies a tensor to the CPU, as float64."""
    return tensor.cpu().numpy().astype(np.float64)


def radii(side: int = SIDE) -> Floats:
    """Returns the frequency, in radians per pixel, of each entry of a spectrum (side, side)."""
    line = (np.arange(side) - side // 2) * 2 * np.pi / side
    return np.asarray(np.hypot(line[:, None], line))


def noise_floor(noise: float) -> float:
    """Returns the power of noise of a standard deviation in grey levels, and of rounding, at every frequency."""
    return noise**2 + _ROUNDING


def noise_level(luma: Floats) -> float:
    """Estimates the standard deviation of white noise in an image (h, w) from the smoothest tenth of its blocks.

    Source: Immerkær, Fast noise variance estimation (1996).
    """
    response = cv2.filter2D(luma, cv2.CV_64F, _LAPLACIANS)[1:-1, 1:-1]
    rows, columns = (length // _BLOCK for length in response.shape)
    blocks = response[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
    return float(np.quantile(blocks.std(axis=(1, 3)), 0.1)) / 6


def fit_width(power: Floats, noise: float, band: tuple[float, float] = BAND) -> WidthFit:
    """Fits a Gaussian blur to a spectrum by weighted least squares; frequencies dominated by noise are ignored.

    Args:
        power: Mean power spectrum (n, n) as `mean_power` returns it.
        noise: Standard deviation of the noise, in grey levels.
        band: Lowest and highest frequency, in radians per LR pixel.
    """
    side, floor = len(power), noise_floor(noise)
    smooth = np.exp(ndimage.gaussian_filter(np.log(power + 1e-9), _SMOOTHING))
    signal = np.maximum(smooth - floor, _LEAST_SHARE * smooth)
    weight = (signal / smooth) ** 2 * (smooth > _NOISE_MARGIN * floor)
    half = (np.arange(side) - side // 2) / 2 + side // 2
    log = np.log(signal)
    ratio = log - ndimage.map_coordinates(log, np.meshgrid(half, half, indexing="ij"), order=1)
    line = (np.arange(side) - side // 2) * 2 * np.pi / side
    radius = radii(side)
    inside = (radius > band[0]) & (radius < band[1])
    down, right = (np.broadcast_to(axis, radius.shape)[inside] for axis in (line[:, None], line))
    terms = np.stack([np.ones(len(down)), down**2, 2 * down * right, right**2], axis=1)
    weight, ratio = weight[inside] + 1e-6, ratio[inside]
    form = np.linalg.solve((terms * weight[:, None]).T @ terms, (terms * weight[:, None]).T @ ratio)
    residual = float(np.sqrt((weight * (ratio - terms @ form) ** 2).sum() / weight.sum()))
    covariance = -form[[1, 2, 2, 3]].reshape(2, 2) / (1 - 1 / 4)
    return WidthFit(covariance, residual, float(weight.mean()))
