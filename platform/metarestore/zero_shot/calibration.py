"""Corrects the estimated width of a blur by measurements of the image, and predicts the error of the kernel.

Both are linear maps, fitted by `experiments/studies/kernel_calibration.py` to photographs that were blurred by
known kernels. The coefficients are in `calibration.json` beside this file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from metarestore.zero_shot.measurements import Measurements
from metarestore.zero_shot.spectra import Floats

NARROWEST, WIDEST = 0.1, 4.0
"""Bounds of the variances of a blur, in LR pixels squared."""

BICUBIC_BELOW = 0.24
"""Mean variance, in LR pixels squared, below which a blur is treated as bicubic: between a bicubic kernel, which is
closest to a Gaussian of variance 0.14, and Gaussians of sigma 1 HR pixel at scale 2 (0.25)."""

_BUMPS = ((0.24, 0.03), (0.24, 0.08), (0.14, 0.05))
_FARTHEST = 2.5  # standard deviations to which features are clipped: the maps were fitted within this range


@dataclass(frozen=True)
class LinearMap:
    """A linear map from named features to a number.

    Attributes:
        names: Names of the features.
        mean: Means of the features in the data that the map was fitted to.
        deviation: Standard deviations of the features in that data.
        coefficients: The constant, then one coefficient per feature.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    coefficients: tuple[float, ...]

    def __call__(self, features: Mapping[str, float]) -> float:
        """Maps features to a number; features outside the range of the fit are clipped to it."""
        values = np.array([features[name] for name in self.names])
        standard = np.clip((values - np.array(self.mean)) / np.array(self.deviation), -_FARTHEST, _FARTHEST)
        return float(self.coefficients[0] + standard @ np.array(self.coefficients[1:]))

    @classmethod
    def fitted(cls, rows: Sequence[Mapping[str, float]], targets: Sequence[float], ridge: float = 3.0) -> LinearMap:
        """Fits a map by ridge regression on standardised features."""
        names = tuple(rows[0])
        values = np.array([[row[name] for name in names] for row in rows])
        mean, deviation = values.mean(axis=0), values.std(axis=0) + 1e-9
        standard = np.clip((values - mean) / deviation, -_FARTHEST, _FARTHEST)
        terms = np.concatenate([np.ones((len(rows), 1)), standard], axis=1)
        penalty = ridge * np.diag([0.0] + [1.0] * len(names))
        coefficients = np.linalg.solve(terms.T @ terms + penalty, terms.T @ np.array(targets))
        return cls(names, *(tuple(round(float(v), 6) for v in column) for column in (mean, deviation, coefficients)))


@dataclass(frozen=True)
class Calibration:
    """The maps for the width of a blur and for the error of its kernel.

    Attributes:
        width: From features to the mean variance of the blur, in LR pixels squared.
        error: From features and the corrected variances to the logarithm of the relative error of the kernel.
    """

    width: LinearMap
    error: LinearMap

    def covariance(self, measurements: Measurements) -> Floats:
        """Returns the corrected covariance (2, 2), in LR pixels squared, with eigenvalues clipped to the bounds."""
        fit = measurements.fit
        corrected = fit.covariance + (self.width(measurements.features) - fit.width) * np.eye(2)
        values, axes = np.linalg.eigh(corrected)
        return np.asarray(axes @ np.diag(np.clip(values, NARROWEST, WIDEST)) @ axes.T)

    def expected_error(self, measurements: Measurements, covariance: Floats) -> float:
        """Returns the expected relative error ‖k̂ − k‖ / ‖k‖ of the Gaussian with a corrected covariance."""
        return float(np.exp(self.error(error_features(measurements, covariance))))


def error_features(measurements: Measurements, covariance: Floats) -> dict[str, float]:
    """Returns the features from which the error is predicted.

    In addition to the measured features, these are the logarithms of both variances and nonlinear functions of the mean
    variance. The error is large where a Gaussian is easily confused with the bicubic kernel, which a linear function of
    the variance cannot express.
    """
    short, long = np.clip(np.linalg.eigvalsh(covariance), NARROWEST, WIDEST)
    width = float(np.trace(covariance)) / 2
    bumps = {f"near_{k}": float(np.exp(-(((width - at) / sigma) ** 2) / 2)) for k, (at, sigma) in enumerate(_BUMPS)}
    below = width < BICUBIC_BELOW
    position = {"log_width": float(np.log(width)), "below": float(below), "depth": below * (width - BICUBIC_BELOW)}
    return {**measurements.features, "short": float(np.log(short)), "long": float(np.log(long)), **bumps, **position}


@cache
def calibration() -> Calibration:
    """Reads the coefficients that are shipped with the package."""
    text = resources.files("metarestore.zero_shot").joinpath("calibration.json").read_text(encoding="utf-8")
    return Calibration(**{name: _linear_map(entry) for name, entry in json.loads(text).items()})


def _linear_map(entry: Mapping[str, Sequence[float]]) -> LinearMap:
    names = tuple(str(name) for name in entry["names"])
    mean, deviation, coefficients = (tuple(entry[key]) for key in ("mean", "deviation", "coefficients"))
    return LinearMap(names, mean, deviation, coefficients)
