"""Estimates the blur kernel of a photograph from the photograph alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from metarestore.degradations.kernels import Kernel
from metarestore.zero_shot.calibration import calibration, corrected_covariance
from metarestore.zero_shot.measurements import SMALLEST, Measurements, measure
from metarestore.zero_shot.patches import refined_kernel
from metarestore.zero_shot.shapes import bicubic_kernel, gaussian_of
from metarestore.zero_shot.spectra import Floats

LEAST_CONFIDENCE = 0.4
"""Confidence below which the bicubic kernel is used."""

_LEAST_SIGNAL = 0.1  # minimum fraction of the frequencies that are not dominated by noise
_LEAST_CONTRAST = 2.0  # standard deviation of an image, in grey levels
_LUMA = (0.299, 0.587, 0.114)

Source = Literal["spectra", "patches", "bicubic", "given"]


@dataclass(frozen=True, eq=False)
class KernelEstimate:
    """The estimated blur of an image.

    Attributes:
        kernel: Weights (K, K), non-negative, of sum 1, centred; K is even if and only if the scale is.
        confidence: 1 minus the expected relative error ‖k̂ − k‖ / ‖k‖, from 0 to 1; 0 if nothing can be estimated.
        source: Method of the estimate; `bicubic` if the blur cannot be distinguished from bicubic downsampling or the
            confidence is below `LEAST_CONFIDENCE`; `given` if the kernel was not estimated.
        reason: Why the bicubic kernel is used; empty otherwise.
        diagnostics: Measurements of the image, by name.
    """

    kernel: Kernel
    confidence: float
    source: Source
    reason: str
    diagnostics: Mapping[str, float]


def estimate_kernel(lr: Tensor, scale: int, method: Literal["spectra", "patches"] = "spectra") -> KernelEstimate:
    """Estimates the kernel with which an image was blurred before it was downsampled.

    Patches of an image and of its half-size version have the same statistics, unless the larger one is blurred. A
    Gaussian is fitted to the difference between the spectra of overlapping windows at both sizes. Its width is then
    corrected, and it is given a confidence; both are calibrated on photographs with known kernels. The method `patches`
    also refines the kernel by patches that recur across scales; its results were worse
    (experiments/results/kernel_estimation.md).

    Args:
        lr: The image (C, h, w), RGB or single-channel, in [0, 1]; computed on its device.
        scale: Factor s, 2, 3 or 4.
        method: Method of the estimate.

    Returns:
        The estimate; deterministic.

    Raises:
        ValueError: The image has another shape, or the scale is not 2, 3 or 4.
    """
    if scale not in (2, 3, 4):
        raise ValueError(f"scale must be 2, 3 or 4, got {scale}")
    luma = grey_levels(lr)
    if min(luma.shape) < SMALLEST:
        return _default(scale, f"the image is smaller than {SMALLEST} pixels", {})
    if float(luma.std()) < _LEAST_CONTRAST:
        return _default(scale, "the image has no contrast", {})
    measurements = measure(luma)
    if measurements.fit.signal < _LEAST_SIGNAL:
        return _default(scale, "noise hides the image", measurements.features)
    return _estimated(luma, scale, measurements, method)


def grey_levels(lr: Tensor) -> Tensor:
    """Returns the luma (h, w) of an image (C, h, w) in [0, 1], in grey levels of 0..255.

    Raises:
        ValueError: The image has another shape.
    """
    if lr.ndim != 3 or lr.shape[0] not in (1, 3):
        raise ValueError(f"the image must be (3, h, w) or (1, h, w), got {tuple(lr.shape)}")
    if lr.shape[0] == 1:
        return lr[0].to(torch.float32) * 255
    weights = torch.tensor(_LUMA, dtype=torch.float32, device=lr.device)
    return (lr.to(torch.float32) * weights[:, None, None]).sum(dim=0) * 255


def _estimated(
    luma: Tensor, scale: int, measurements: Measurements, method: Literal["spectra", "patches"]
) -> KernelEstimate:
    width = calibration().width(measurements.features)
    covariance = corrected_covariance(measurements, width)
    expected = calibration().expected_error(measurements, width, covariance)
    confidence = float(np.clip(1 - expected, 0, 1))
    diagnostics = {
        **measurements.features,
        "width_deviation": width.deviation,
        **_covariance_entries(covariance * scale**2),
    }
    if confidence < LEAST_CONFIDENCE:
        return _default(scale, f"the confidence is below {LEAST_CONFIDENCE}", diagnostics, confidence)
    if width.is_bicubic:
        return _default(scale, "the blur is like that of bicubic downsampling", diagnostics, confidence)
    if method == "patches":
        kernel = refined_kernel(luma, covariance * scale**2, scale)
        return KernelEstimate(kernel, confidence, "patches", "", diagnostics)
    return KernelEstimate(gaussian_of(covariance * scale**2, scale), confidence, "spectra", "", diagnostics)


def _covariance_entries(covariance: Floats) -> dict[str, float]:
    """Returns the entries of a covariance in HR pixels squared, by name."""
    return {"rows": float(covariance[0, 0]), "columns": float(covariance[1, 1]), "mixed": float(covariance[0, 1])}


def _default(scale: int, reason: str, diagnostics: Mapping[str, float], confidence: float = 0.0) -> KernelEstimate:
    return KernelEstimate(bicubic_kernel(scale), confidence, "bicubic", reason, diagnostics)
