"""Degradation responses as spectra, and relations as distances between their means.

A degradation's response is the log ratio, over spatial frequencies, of the spectrum of its LR image to that of the
bicubically downsampled one. Only the magnitude is compared, because real pairs are often misaligned by a fraction of a
pixel. Noise and detail are not distinguished, so operations whose effects cancel are invisible; in return the distances
are informative even if no distribution matches the target exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.degradations.resample import bicubic_downsample
from metarestore.graphs.compare import Comparison
from metarestore.graphs.reliability import bootstrap_error, jackknife_error, rank_correlation
from metarestore.models.colour import rgb_to_y

Floats = NDArray[np.float64]

_BINS = 16
"""Radial frequency bands between 0 and the Nyquist frequency."""

_FLOOR = 1e-7
"""Power added to both spectra: about that of rounding to 8 bits, so that empty bands have ratio 1."""


def log_spectrum(images: Tensor) -> Floats:
    """Computes the radially averaged log power spectrum of the luma of images.

    Args:
        images: (N, 3, h, w) in [0, 1].

    Returns:
        Natural log of the mean power in each band, (N, bands); a Hann window suppresses the borders.
    """
    luma = rgb_to_y(images.to(torch.float64))[:, 0].numpy()
    height, width = luma.shape[-2:]
    window = np.hanning(height)[:, None] * np.hanning(width)[None, :]
    centred = (luma - luma.mean(axis=(-2, -1), keepdims=True)) * window
    power = np.abs(np.fft.rfft2(centred)) ** 2 / np.square(window).sum()
    bands, counts = _bands(height, width)
    sums = np.stack([np.bincount(bands.ravel(), p.ravel(), _BINS + 1)[:_BINS] for p in power])
    return np.asarray(np.log(sums / counts + _FLOOR))


@lru_cache(maxsize=8)
def _bands(height: int, width: int) -> tuple[NDArray[np.int64], Floats]:
    """Assigns each frequency of `rfft2` to a radial band; the corners beyond Nyquist go to a last, unused one."""
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]) / 0.5
    bands = np.minimum((radius * _BINS).astype(np.int64), _BINS)
    bands[0, 0] = _BINS
    counts = np.bincount(bands.ravel(), minlength=_BINS + 1)[:_BINS]
    return bands, np.maximum(counts, 1).astype(np.float64)


def response(lr: Tensor, hr: Tensor, scale: int) -> Floats:
    """Computes the degradation response of pairs: LR (N, 3, h, w) and HR (N, 3, s·h, s·w) to (N, bands)."""
    return log_spectrum(lr) - log_spectrum(bicubic_downsample(hr, scale).clamp(0, 1))


def spectral_relations(target: Floats, auxiliary: Floats) -> Floats:
    """Converts distances between responses to relations.

    Args:
        target: Responses of the target, (K, bands).
        auxiliary: Responses of the draws of N distributions on the same HR images, (N, draws, K, bands).

    Returns:
        r = (D − d)/(D + d), (N,): 1 at distance 0, 0 at the typical distance D between two auxiliary draws, towards −1
        for larger distances. The distance d to a distribution is the mean over its nearest quarter of draws, so that a
        wide distribution is close to any target that it covers.
    """
    distances = _distances(target.mean(axis=0)[None], auxiliary.mean(axis=2))[0]
    return _to_relation(_nearest(distances), _typical_distance(auxiliary.mean(axis=2)))


def relation_matrix(target: Floats, auxiliary: Floats) -> Floats:
    """Returns the relations among N distributions and the target (last): (N+1, N+1), symmetric, unit diagonal."""
    draws = auxiliary.mean(axis=2)
    count = len(draws)
    matrix = np.ones((count + 1, count + 1))
    scale = _typical_distance(draws)
    for i in range(count):
        # From each draw of i to the nearest draws of every j.
        matrix[i, :count] = _to_relation(_nearest(_distances(draws[i], draws)).mean(axis=0), scale)
    matrix[:count, :count] = (matrix[:count, :count] + matrix[:count, :count].T) / 2
    np.fill_diagonal(matrix, 1.0)
    matrix[count, :count] = matrix[:count, count] = spectral_relations(target, auxiliary)
    return matrix


def _distances(points: Floats, draws: Floats) -> Floats:
    """Root mean square differences between (A, bands) and (N, draws, bands): (A, N, draws)."""
    return np.asarray(np.sqrt(np.square(points[:, None, None] - draws[None]).mean(axis=-1)))


def _nearest(distances: Floats) -> Floats:
    """Averages the nearest quarter of (..., draws)."""
    keep = max(1, distances.shape[-1] // 4)
    return np.asarray(np.sort(distances, axis=-1)[..., :keep].mean(axis=-1))


def _typical_distance(draws: Floats) -> float:
    """Returns the mean distance between draws of different distributions."""
    count = len(draws)
    total = [_distances(draws[i], draws[i + 1 :]).mean(axis=(0, 2)) for i in range(count - 1)]
    return float(np.concatenate(total).mean()) if total else 1.0


def _to_relation(distance: Floats, scale: float) -> Floats:
    return np.asarray((scale - distance) / (scale + distance + 1e-12))


def _standard_errors(target: Floats, auxiliary: Floats, seed: int) -> Floats:
    """Combines the jackknife error over shots (if there are several) and the bootstrap error over draws."""
    over_draws = bootstrap_error(
        lambda drawn: spectral_relations(target, auxiliary[:, drawn]), auxiliary.shape[1], seed
    )
    if len(target) < 2:
        return over_draws
    without = [
        spectral_relations(np.delete(target, k, axis=0), np.delete(auxiliary, k, axis=2)) for k in range(len(target))
    ]
    return np.asarray(np.hypot(jackknife_error(without, len(auxiliary)), over_draws))


def _split_half(target: Floats, auxiliary: Floats) -> float:
    """Returns the rank correlation between the relations of even and of odd shots."""
    if len(target) < 2:
        return float("nan")
    halves: Sequence[Floats] = [spectral_relations(target[k::2], auxiliary[:, :, k::2]) for k in (0, 1)]
    return rank_correlation(halves[0], halves[1])


def compare_spectra(target: Floats, auxiliary: Floats, seed: int) -> Comparison:
    """Compares a target with N distributions by their mean responses.

    Args:
        target: Responses of its shots, (K, bands).
        auxiliary: Responses of the draws of each distribution on the same HR shots, (N, draws, K, bands).
        seed: Seed of the bootstrap.
    """
    return Comparison(
        spectral_relations(target, auxiliary),
        _standard_errors(target, auxiliary, seed),
        _split_half(target, auxiliary),
        relation_matrix(target, auxiliary),
    )
