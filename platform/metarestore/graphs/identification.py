"""Features of the effect of a degradation on given HR images: paired system identification.

An LR image is decomposed into the bicubically downsampled HR image after a linear filter, and a residual. The filter
captures blur and sharpening, the residual noise and compression. A shift of the pair is absorbed by the phase of the
filter and does not affect its gain, so real pairs with sub-pixel misalignment are comparable with synthetic ones.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.degradations.resample import bicubic_downsample
from metarestore.models.colour import rgb_to_ycbcr

Floats = NDArray[np.float64]

_LUMA_RADIUS, _CHROMA_RADIUS = 3, 2
"""Radii of the filters in LR pixels: 49 and 25 coefficients, estimated from the 676 pixels of a 32×32 shot."""

_ROUNDING = 1 / 255**2 / 12
"""Variance of rounding to 8 bits: weaker effects are invisible in a file."""

_RIDGE = 200 * _ROUNDING
"""Ridge penalty towards the identity filter, in squared image units; it dominates where images have no detail."""

_GAIN_FLOOR = 0.03
"""Smallest distinguishable gain, added to all gains."""

_LUMA_BANDS, _CHROMA_BANDS, _REST_BANDS = 6, 3, 4
_ANGLES = 12
"""Number of directions over 180 degrees in which the gain is computed."""

FEATURES = 2 * _LUMA_BANDS + _CHROMA_BANDS + 2 * _REST_BANDS + 2
"""Length of a feature vector."""


def identify(lr: Tensor, hr: Tensor, scale: int) -> Floats:
    """Measures the effect of degradations on HR images.

    Args:
        lr: D degraded versions of each of K images, (D, K, 3, h, w), RGB in [0, 1]; they are rounded to 8 bits first,
            as in files.
        hr: The clean images, (K, 3, s·h, s·w).
        scale: s.

    Returns:
        (D, K, FEATURES), natural logarithms: the gain of the luma filter in 6 radial bands up to the Nyquist frequency
        (0: identity), its anisotropy in each band (0: isotropic), the gain of the chroma filter in 3 bands, the power
        of the residual in 4 bands for luma and for chroma, and the exponents with which the power of the luma residual
        grows with brightness (photon noise: 1; other noise: 0) and with local contrast (compression).
    """
    clean = _ycbcr(bicubic_downsample(hr, scale).clamp(0, 1))
    return np.stack([_of_shot(_ycbcr(_rounded(lr[:, k])), shot) for k, shot in enumerate(clean)], axis=1)


def _rounded(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255).round() / 255


def _ycbcr(images: Tensor) -> Floats:
    return np.asarray(rgb_to_ycbcr(images.to(torch.float64)).numpy())


def _of_shot(lr: Floats, clean: Floats) -> Floats:
    """Measures degraded versions (D, 3, h, w), YCbCr, of one clean LR image (3, h, w): (D, FEATURES)."""
    luma, luma_rest = fit_filter(lr[:, :1], clean[:1], _LUMA_RADIUS)
    chroma, chroma_rest = fit_filter(lr[:, 1:], clean[1:], _CHROMA_RADIUS)
    gain, direction = gains(luma, _LUMA_BANDS)
    parts = [
        gain,
        direction,
        gains(chroma, _CHROMA_BANDS)[0],
        _log_spectrum(luma_rest),
        _log_spectrum(chroma_rest),
        _exponents(luma_rest[:, 0], clean[0]),
    ]
    return np.concatenate(parts, axis=1)


def _windows(plane: Floats, radius: int) -> Floats:
    """Returns the neighbourhoods (..., h − 2r, w − 2r, (2r + 1)²) of the inner pixels of (..., h, w)."""
    side = 2 * radius + 1
    view = np.lib.stride_tricks.sliding_window_view(plane, (side, side), axis=(-2, -1))
    return np.asarray(view.reshape(*view.shape[:-2], side * side))


def fit_filter(lr: Floats, clean: Floats, radius: int) -> tuple[Floats, Floats]:
    """Fits by least squares the linear filter from a clean image to each degraded one; channels share the filter.

    Args:
        lr: Degraded versions, (D, C, h, w).
        clean: (C, h, w).
        radius: Radius of the filter; it is reduced for images too small for it.

    Returns:
        The filters (D, 2r+1, 2r+1) and the zero-mean residuals (D, C, h − 2r, w − 2r).
    """
    count, channels, height, width = lr.shape
    radius = max(0, min(radius, (min(height, width) - 1) // 4))
    inner = slice(radius, height - radius), slice(radius, width - radius)
    inputs = _windows(clean, radius).reshape(channels, -1, (2 * radius + 1) ** 2)
    inputs = inputs - inputs.mean(axis=1, keepdims=True)
    outputs = lr[:, :, *inner].reshape(count, channels, -1)
    outputs = outputs - outputs.mean(axis=-1, keepdims=True)
    same = np.zeros(inputs.shape[-1])
    same[len(same) // 2] = 1
    # The difference from the identity is fitted, so that the ridge shrinks the filter towards the identity.
    flat = inputs.reshape(-1, len(same))
    change = (outputs - inputs @ same).reshape(count, -1)
    ridge = _RIDGE * np.eye(len(same))
    filters = same + np.linalg.solve(flat.T @ flat + ridge, flat.T @ change.T).T
    rest = outputs.reshape(count, -1) - filters @ flat.T
    side = 2 * radius + 1
    return filters.reshape(count, side, side), rest.reshape(count, channels, *lr[0, 0, *inner].shape)


def gains(filters: Floats, bands: int) -> tuple[Floats, Floats]:
    """Measures the gain of filters over frequency and direction.

    Args:
        filters: (D, side, side).
        bands: Frequencies, from Nyquist/bands to Nyquist, cycles per pixel along any direction.

    Returns:
        The log gain, mean over directions, (D, bands), and the amplitude of its second harmonic over the direction,
        (D, bands), which is invariant to rotation of the filter.
    """
    waves, harmonic = _waves(filters.shape[-1], bands)
    responses = np.abs(np.einsum("baij,dij->dba", waves, filters))
    log = np.log((responses + _GAIN_FLOOR) / (1 + _GAIN_FLOOR))
    return np.asarray(log.mean(axis=-1)), np.asarray(np.abs((log * harmonic).mean(axis=-1)))


@lru_cache(maxsize=8)
def _waves(side: int, bands: int) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Returns plane waves (bands, angles, side, side) and the second harmonic of the angle (angles,)."""
    offset = np.arange(side) - side // 2
    angle = np.arange(_ANGLES) * np.pi / _ANGLES
    frequency = 0.5 * np.arange(1, bands + 1)[:, None] / bands
    along = np.multiply.outer(frequency * np.sin(angle), offset)[..., None]
    across = np.multiply.outer(frequency * np.cos(angle), offset)[..., None, :]
    return np.exp(-2j * np.pi * (along + across)), np.exp(2j * angle)


def _log_spectrum(rest: Floats) -> Floats:
    """Returns the log power of (D, C, h, w) in radial bands, mean over channels, (D, bands)."""
    height, width = rest.shape[-2:]
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1]
    power = np.square(np.abs(np.fft.fft2(rest * window))) / np.square(window).sum()
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)) / 0.5
    band = np.minimum((radius * _REST_BANDS).astype(np.int64), _REST_BANDS - 1)
    member = (band.ravel()[:, None] == np.arange(_REST_BANDS)).astype(np.float64)
    mean = power.reshape(*power.shape[:2], -1) @ (member / np.maximum(member.sum(axis=0), 1))
    return np.asarray(np.log(mean + _ROUNDING).mean(axis=1))


def _exponents(rest: Floats, clean: Floats) -> Floats:
    """Regresses the log power of the residual (D, h', w') on log brightness and log contrast of (h, w): (D, 2)."""
    height, width = rest.shape[-2:]
    border = (clean.shape[0] - height) // 2
    contrast = _windows(np.pad(clean, 1, mode="edge"), 1).std(axis=-1)
    # Luma starts at 16/255; the offset of the contrast is about the smallest visible step.
    inputs = np.stack([np.log(clean), np.log(contrast + 0.002)])[:, border : border + height, border : border + width]
    inputs = inputs.reshape(2, -1)
    inputs = inputs - inputs.mean(axis=1, keepdims=True)
    power = np.log(np.square(rest) + _ROUNDING).reshape(len(rest), -1)
    # The ridge keeps the exponents small where a shot has one brightness or one contrast.
    ridge = 0.02 * inputs.shape[1] * np.eye(2)
    centred = power - power.mean(axis=1, keepdims=True)
    return np.asarray(np.linalg.solve(inputs @ inputs.T + ridge, inputs @ centred.T).T)
