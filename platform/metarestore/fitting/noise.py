"""Estimates the noise of LR from the residual of the kernel and the colour map, excluding misfit at edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
import torch
from scipy.optimize import nnls

from metarestore.degradations import Pipeline, replay
from metarestore.fitting.equations import lit_channels
from metarestore.fitting.jpeg import JpegFit
from metarestore.fitting.pairs import Floats

_WINDOW = 5
_ROUNDING = 1 / 12
"""Variance that rounding to whole grey levels adds; pipelines also end with that rounding."""
_LEVELS = np.linspace(0, 256, 9)
_ACTIVITIES = (0.0, 0.1, 0.2, 0.35, 0.5)
"""Quantiles of local contrast: the half of an image with more detail is not used."""
_LEAST = 60
"""Minimum number of values in a bin."""
_RANGE = (4.0, 251.0)
"""Grey levels at which moderate noise is not clipped."""
_ROUNDS = 3
_CLEAR = 4.0
"""Number of standard errors for a significant increase of the variance with the level."""
_TRIALS = 8
_SEARCHED = (0.05, 60.0)
"""Search interval of the standard deviation of noise before JPEG; the trials determine it to 3 %."""


@dataclass(frozen=True)
class NoiseFit:
    """Noise of one LR image: variance = constant + per_level · grey level, in squared grey levels.

    Attributes:
        constant: Variance at black.
        per_level: Increase of the variance per grey level.
        level: Mean grey level of the image.
        correlation: Mean correlation of the noise of two channels: 0 for independent, 1 for colourless noise.
        curve: Grey level, standard deviation and number of values of each bin, flattest parts only.
    """

    constant: float
    per_level: float
    level: float
    correlation: float
    curve: tuple[tuple[float, float, int], ...]

    @property
    def sigma(self) -> float:
        """Standard deviation at the image's mean grey level."""
        return float(np.sqrt(self.constant + self.per_level * self.level))

    @property
    def growing(self) -> float:
        """Fraction of the variance at the mean grey level that increases with the level, in [0, 1]."""
        return self.per_level * self.level / max(self.sigma**2, 1e-12)


@dataclass(frozen=True)
class _Bin:
    level: float
    activity: float
    variance: float
    count: int


def fit_noise(lr: Floats, model: Floats) -> NoiseFit:
    """Fits the noise of an LR image.

    The high frequencies of the residual are binned by grey level and local contrast; their robust variances are
    modelled by noise and a misfit that increases with the squared contrast (e.g. from small shifts of edges), which is
    not part of the result.

    Args:
        lr: Real LR (h, w, 3) in grey levels, without its border.
        model: Prediction of the fitted kernel and colour map.

    Source: Foi et al., Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image Raw-Data (2008),
    eq. 3 for the variance; the noise-free image, which they estimate, is given by the pair here.
    """
    lit = lit_channels(lr)
    if not lit.any():
        return NoiseFit(0.0, 0.0, float(model.mean()), 0.0, ())
    level = float(model.mean())
    lr, model = lr[..., lit], model[..., lit]
    residual = _high_frequencies(lr - model)
    activity = _local_contrast(model)
    within = (lr > _RANGE[0]) & (lr < _RANGE[1]) & (model > _RANGE[0]) & (model < _RANGE[1])
    usable = np.asarray(np.all(within, axis=-1))
    bins = list(_bins(residual, model, activity, usable))
    if not bins:
        return NoiseFit(0.0, 0.0, level, 0.0, ())
    constant, per_level = _explained(bins)
    flattest = [one for one in bins if one.activity <= min(other.activity for other in bins) + 1.0]
    curve = tuple((one.level, float(np.sqrt(max(one.variance, 0.0))), one.count) for one in flattest)
    return NoiseFit(constant, per_level, level, _correlation(residual, activity, usable), curve)


def before_jpeg(noise: NoiseFit, model: Floats, jpeg: JpegFit) -> NoiseFit:
    """Returns the noise before compression that is measured as `noise` afterwards.

    JPEG removes some noise and adds its own errors, so white noise of several strengths is compressed and fitted in the
    same way.

    Args:
        noise: Noise fitted after compression.
        model: LR without noise (h, w, 3), in grey levels.
        jpeg: The compression.
    """
    if jpeg.quality is None or noise.sigma == 0:
        return noise
    if _measured_after(0.0, model, jpeg) >= noise.sigma:
        return replace(noise, constant=0.0, per_level=0.0)
    low, high = _SEARCHED
    for _ in range(_TRIALS):
        sigma = (low * high) ** 0.5
        low, high = (sigma, high) if _measured_after(sigma, model, jpeg) < noise.sigma else (low, sigma)
    factor = low * high / noise.sigma**2
    return replace(noise, constant=noise.constant * factor, per_level=noise.per_level * factor)


def _measured_after(sigma: float, model: Floats, jpeg: JpegFit) -> float:
    """Returns the noise that is measured after compressing `model` with white noise."""
    compression = {"op": "jpeg", "quality": jpeg.quality, "subsampling": jpeg.subsampling or 420, "codec": "libjpeg"}
    pipeline = Pipeline.model_validate([{"op": "gaussian_noise", "sigma": sigma}, compression])
    image = torch.from_numpy(np.ascontiguousarray(model.transpose(2, 0, 1))).to(torch.float32)[None] / 255
    compressed = replay(image, pipeline.draw(("fitting",), 1), [0], "opencv")
    return fit_noise(np.asarray(compressed[0].permute(1, 2, 0).numpy(), dtype=np.float64) * 255, model).sigma


def _high_frequencies(residual: Floats) -> Floats:
    """Removes the local mean, because lighting errors are smooth; the variance of white noise is preserved."""
    mean = cv2.blur(residual, (_WINDOW, _WINDOW), borderType=cv2.BORDER_REFLECT)
    # OpenCV drops the axis of a single channel.
    return np.asarray((residual - mean.reshape(residual.shape)) / np.sqrt(1 - 1 / _WINDOW**2))


def _local_contrast(image: Floats) -> Floats:
    """Returns the root mean square of the gradients nearby, in grey levels per pixel (h, w)."""
    gradients = (np.gradient(image[..., channel]) for channel in range(image.shape[-1]))
    power = np.mean([down**2 + right**2 for down, right in gradients], axis=0)
    # The running sums of a box filter give tiny negative numbers in flat areas.
    return np.sqrt(np.maximum(cv2.blur(power, (_WINDOW, _WINDOW), borderType=cv2.BORDER_REFLECT), 0.0))


def _bins(residual: Floats, model: Floats, activity: Floats, usable: np.ndarray) -> Iterator[_Bin]:
    """Yields the bins that have enough values; their variances are without rounding."""
    if not usable.any():
        return
    edges = np.quantile(activity[usable], _ACTIVITIES)
    for low, high in pairwise(edges):
        calm = usable & (activity >= low) & (activity <= high)
        values, levels, contrast = residual[calm].ravel(), model[calm].ravel(), float(np.median(activity[calm]))
        for dark, bright in pairwise(_LEVELS):
            inside = (levels >= dark) & (levels < bright)
            if (count := int(inside.sum())) >= _LEAST:
                variance = _robust_variance(values[inside]) - _ROUNDING
                yield _Bin(float(levels[inside].mean()), contrast, variance, count)


def _robust_variance(values: Floats) -> float:
    """Returns the variance of normal values, from the median distance to their median."""
    return float((1.4826 * np.median(np.abs(values - np.median(values)))) ** 2)


def _explained(bins: list[_Bin]) -> tuple[float, float]:
    """Returns the constant and the increase of the variance, non-negative; an insignificant increase is 0."""
    levels, activities = np.array([one.level for one in bins]), np.array([one.activity for one in bins])
    terms = np.stack([np.ones_like(levels), activities**2, levels], axis=1)
    factors, error = _least_squares(terms, bins)
    if factors[2] > _CLEAR * error:
        return float(factors[0]), float(factors[2])
    return float(_least_squares(terms[:, :2], bins)[0][0]), 0.0


def _least_squares(terms: Floats, bins: list[_Bin]) -> tuple[Floats, float]:
    """Returns the factors of the terms (N, T), none negative, and the standard error of the last."""
    variances, counts = np.array([one.variance for one in bins]), np.array([one.count for one in bins])
    expected = np.full(len(bins), max(float(np.median(variances)), _ROUNDING))
    for _ in range(_ROUNDS):
        # The standard error of a variance is proportional to the variance.
        weights = np.sqrt(counts) / (expected + _ROUNDING)
        weighted = terms * weights[:, None]
        factors, distance = nnls(weighted, np.maximum(variances, 0.0) * weights)
        expected = terms @ factors
    scatter = distance**2 / max(len(bins) - terms.shape[1], 1)
    return factors, float(np.sqrt(scatter * np.linalg.pinv(weighted.T @ weighted)[-1, -1]))


def _correlation(residual: Floats, activity: Floats, usable: np.ndarray) -> float:
    calm = usable & (activity <= np.quantile(activity[usable], _ACTIVITIES[1]))
    values = residual[calm]
    if len(values) < _LEAST or (values.std(axis=0) < 1e-6).any():
        return 0.0
    if values.shape[1] == 1:
        return 0.0
    table = np.corrcoef(values.T)
    return float(np.mean(table[np.triu_indices(values.shape[1], k=1)]))
