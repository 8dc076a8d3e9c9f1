"""What measurements of an image say about its blur: a correction of the width, and the error to expect.

Both are linear maps, fitted by `experiments/studies/kernel_calibration.py` to photographs that were blurred by
known kernels; its coefficients are in `calibration.json` beside this file.
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
"""Mean variance, in LR pixels squared, below which a blur is taken for bicubic: between a bicubic kernel, which is most
like a Gaussian of 0.14, and Gaussians of sigma 1 HR pixel at scale 2 (0.25)."""

_BUMPS = ((0.24, 0.03), (0.24, 0.08), (0.14, 0.05))
_FARTHEST = 2.5  # standard deviations of a feature within which the maps are used: they were fitted to no more


@dataclass(frozen=True)
class LinearMap:
    """A linear map from named features to a number.

    Attributes:
        names: The features.
        mean: Their means in the data that the map was fitted to.
        deviation: Their standard deviations in it.
        coefficients: One more than there are features; the first is the constant.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    coefficients: tuple[float, ...]

    def __call__(self, features: Mapping[str, float]) -> float:
        """Maps features; those that lie outside of what the map was fitted to count as if they lay at its rim."""
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
        found = np.linalg.solve(terms.T @ terms + penalty, terms.T @ np.array(targets))
        return cls(names, *(tuple(round(float(v), 6) for v in column) for column in (mean, deviation, found)))


@dataclass(frozen=True)
class Calibration:
    """The two maps.

    Attributes:
        width: From features to the mean variance of the blur, in LR pixels squared.
        error: From features and the corrected variances to the logarithm of the relative error of the kernel.
    """

    width: LinearMap
    error: LinearMap

    def covariance(self, measurements: Measurements) -> Floats:
        """Returns the corrected covariance (2, 2), in LR pixels squared, with eigenvalues in bounds."""
        fit = measurements.fit
        corrected = fit.covariance + (self.width(measurements.features) - fit.width) * np.eye(2)
        values, axes = np.linalg.eigh(corrected)
        return np.asarray(axes @ np.diag(np.clip(values, NARROWEST, WIDEST)) @ axes.T)

    def expected_error(self, measurements: Measurements, covariance: Floats) -> float:
        """Returns the relative error ‖k̂ − k‖ / ‖k‖ to expect of the Gaussian of a corrected covariance."""
        return float(np.exp(self.error(error_features(measurements, covariance))))


def error_features(measurements: Measurements, covariance: Floats) -> dict[str, float]:
    """Returns what the error is predicted from.

    Beside the features these are the logarithms of both variances and where the mean variance lies: an error is large
    where a Gaussian and the bicubic kernel are easily taken for each other, which no straight line can say.
    """
    short, long = np.clip(np.linalg.eigvalsh(covariance), NARROWEST, WIDEST)
    width = float(np.trace(covariance)) / 2
    bumps = {f"near_{k}": float(np.exp(-(((width - at) / reach) ** 2) / 2)) for k, (at, reach) in enumerate(_BUMPS)}
    below = width < BICUBIC_BELOW
    places = {"log_width": float(np.log(width)), "below": float(below), "depth": below * (width - BICUBIC_BELOW)}
    return {**measurements.features, "short": float(np.log(short)), "long": float(np.log(long)), **bumps, **places}


@cache
def calibration() -> Calibration:
    """Reads the coefficients that come with the package."""
    text = resources.files("metarestore.zero_shot").joinpath("calibration.json").read_text(encoding="utf-8")
    return Calibration(**{name: _linear_map(entry) for name, entry in json.loads(text).items()})


def _linear_map(entry: Mapping[str, Sequence[float]]) -> LinearMap:
    names = tuple(str(name) for name in entry["names"])
    mean, deviation, coefficients = (tuple(entry[key]) for key in ("mean", "deviation", "coefficients"))
    return LinearMap(names, mean, deviation, coefficients)
