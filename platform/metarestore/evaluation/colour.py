"""Metrics in addition to PSNR-Y: colour, and luma after a match of exposure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarestore.decibels import CAP, decibels
from metarestore.evaluation.metrics import PEAK
from metarestore.evaluation.statistics import cluster_means

Floats = NDArray[np.float64]

COLOUR_SHIFT = 4.0
"""Grey levels by which the mean colour error may exceed that of bicubic upscaling before there is a warning.

LR and HR of real pairs themselves differ by up to this value: by at most 4.1 levels in 110 of 111 pairs of eight
cameras (RealSR, DRealSR, City100), with a median of 1.1. A network trained on a shot with a different white balance has
an error of 8.7 levels.
"""


@dataclass(frozen=True)
class ColourMetrics:
    """Metrics of P photographs, each pooled over the photograph's crops.

    Attributes:
        psnr_rgb: PSNR of 8-bit RGB in dB, (P,).
        colour_error: Mean absolute difference of the three channels' means, in grey levels of 0..255, (P,).
        psnr_y_matched: PSNR-Y in dB after an affine map `a·y + b` of the restored luma, fitted to the HR luma by least
            squares for each photograph, (P,): it excludes exposure and contrast, which LR does not determine.
    """

    psnr_rgb: Floats
    colour_error: Floats
    psnr_y_matched: Floats

    def to_json(self) -> dict[str, Any]:
        """Returns one list for each metric, by its name."""
        return {key: values.tolist() for key, values in vars(self).items()}


def colour_metrics(rgb: Floats, rgb_hr: Floats, y: Floats, y_hr: Floats, photographs: Sequence[str]) -> ColourMetrics:
    """Compares N crops with the ground truth; borders must already be removed.

    Args:
        rgb: Restored crops (N, 3, h, w) in grey levels of 0..255.
        rgb_hr: Ground truth of the same shape.
        y: Restored luma (N, h, w) in grey levels of 0..255.
        y_hr: Ground truth of the same shape.
        photographs: The photograph of each crop.
    """
    errors = cluster_means(np.mean((rgb - rgb_hr) ** 2, axis=(1, 2, 3)), photographs)
    means = cluster_means((rgb - rgb_hr).mean(axis=(-2, -1)).T, photographs)
    return ColourMetrics(
        psnr_rgb=decibels(errors, PEAK),
        colour_error=np.nan_to_num(np.abs(means).mean(axis=0), nan=PEAK),
        psnr_y_matched=decibels(_matched_errors(y, y_hr, photographs), PEAK),
    )


def _matched_errors(y: Floats, y_hr: Floats, photographs: Sequence[str]) -> Floats:
    """Returns the mean squared error of each photograph after its best affine map, (P,)."""
    axes = (-2, -1)
    moments = [y, y_hr, y * y, y_hr * y_hr, y * y_hr]
    own, truth, own2, truth2, both = (cluster_means(one.mean(axis=axes), photographs) for one in moments)
    variance, covariance = own2 - own**2, both - own * truth
    # A constant restoration has no contrast to match; only its brightness is matched.
    explained = np.divide(covariance**2, variance, out=np.zeros_like(variance), where=variance > 1e-9)
    explained[np.isnan(variance)] = np.nan
    return np.maximum(truth2 - truth**2 - explained, 0)


def colour_shifts(
    name: str, photographs: Sequence[str], errors: Sequence[float], bicubic: Sequence[float] | None
) -> str | None:
    """Returns a warning about photographs whose colour an arm shifts by more than `COLOUR_SHIFT`, or None.

    Args:
        name: Name of the arm.
        photographs: The photographs.
        errors: Mean colour error of each.
        bicubic: The same for bicubic upscaling, if measured: the difference between LR and HR themselves.
    """
    given = [0.0] * len(errors) if bicubic is None else bicubic
    rows = [row for row in zip(photographs, errors, given, strict=True) if row[1] > row[2] + COLOUR_SHIFT]
    if not rows:
        return None
    listing = ", ".join(f"{photograph} ({error:.1f}, bicubic {own:.1f})" for photograph, error, own in rows)
    return (
        f"{name} shifts the colour by more than {COLOUR_SHIFT:g} grey levels (mean over the channels) on {len(rows)} "
        f"of {len(errors)} photographs: {listing}; look at its pictures and at the colour of the shots"
    )


def exact_restorations(exact: Mapping[str, Sequence[str]]) -> str | None:
    """Returns a note about infinite PSNR-Y values, which are capped, or None if there are none.

    Args:
        exact: The photographs whose PSNR-Y is `CAP`, by the name of the arm.
    """
    named = {arm: ", ".join(photographs) for arm, photographs in exact.items() if photographs}
    if not named:
        return None
    arms = "; ".join(f"{arm}: {photographs}" for arm, photographs in named.items())
    return f"restored without error, counted as {CAP:g} dB in all means and differences: {arms}"
