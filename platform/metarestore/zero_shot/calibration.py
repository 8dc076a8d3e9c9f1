"""Predicts the width of a blur from measurements of the image, and the error of the kernel.

The width and its uncertainty are predicted by small neural networks, the error by a linear map. Both are fitted by
`experiments/studies/kernel_calibration.py` to photographs that were blurred by known kernels. The coefficients are in
`calibration.json` beside this file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from metarestore.zero_shot.measurements import Measurements
from metarestore.zero_shot.spectra import Floats

NARROWEST, WIDEST = 0.1, 4.0
"""Bounds of the variances of a blur, in LR pixels squared."""

BICUBIC_BELOW = 0.24
"""Mean variance, in LR pixels squared, below which a blur is treated as bicubic: between a bicubic kernel, which is
closest to a Gaussian of variance 0.14, and Gaussians of sigma 1 HR pixel at scale 2 (0.25)."""

LOG_DEVIATIONS = (-4.0, 2.0)
"""Bounds of the logarithm of a predicted standard deviation."""

_CERTAINTY = 1.0
"""Standard deviations by which the logarithm of the width must exceed that of `BICUBIC_BELOW`: sharpening an image that
is not blurred costs several dB, taking a narrow blur for bicubic less than one."""

_BUMPS = ((0.24, 0.03), (0.24, 0.08), (0.14, 0.05))
_FARTHEST = 2.5  # standard deviations to which features are clipped: the maps were fitted within this range


@dataclass(frozen=True)
class Scaling:
    """Standardises named features.

    Attributes:
        names: Names of the features.
        mean: Their means in the data that something was fitted to.
        deviation: Their standard deviations in that data.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, rows: Sequence[Mapping[str, float]]) -> Floats:
        """Returns standardised features (rows, names); those outside the range of the fit are clipped to it."""
        values = np.array([[row[name] for name in self.names] for row in rows])
        standard = (values - np.array(self.mean)) / np.array(self.deviation)
        return np.asarray(np.clip(standard, -_FARTHEST, _FARTHEST))

    @classmethod
    def fitted(cls, rows: Sequence[Mapping[str, float]]) -> Scaling:
        """Fits the means and standard deviations."""
        names = tuple(rows[0])
        values = np.array([[row[name] for name in names] for row in rows])
        return cls(names, *(tuple(round(float(v), 6) for v in c) for c in (values.mean(0), values.std(0) + 1e-6)))


@dataclass(frozen=True)
class LinearMap:
    """A linear map from named features to a number.

    Attributes:
        scaling: The features.
        coefficients: The constant, then one coefficient per feature.
    """

    scaling: Scaling
    coefficients: tuple[float, ...]

    def __call__(self, features: Mapping[str, float]) -> float:
        """Maps features to a number."""
        return float(self.coefficients[0] + self.scaling([features])[0] @ np.array(self.coefficients[1:]))

    @classmethod
    def fitted(cls, rows: Sequence[Mapping[str, float]], targets: Sequence[float], ridge: float = 3.0) -> LinearMap:
        """Fits a map by ridge regression on standardised features."""
        scaling = Scaling.fitted(rows)
        terms = np.concatenate([np.ones((len(rows), 1)), scaling(rows)], axis=1)
        penalty = ridge * np.diag([0.0] + [1.0] * len(scaling.names))
        coefficients = np.linalg.solve(terms.T @ terms + penalty, terms.T @ np.array(targets))
        return cls(scaling, tuple(round(float(value), 6) for value in coefficients))


Dense = tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]
"""Weights (outputs, inputs) and biases (outputs) of a layer."""


@dataclass(frozen=True)
class WidthNetworks:
    """An ensemble of networks that predicts the width of a blur and its uncertainty.

    Attributes:
        scaling: The features.
        networks: Layers of each network, with tanh between them; the last has two outputs, the logarithm of the width
            and that of its standard deviation.
    """

    scaling: Scaling
    networks: tuple[tuple[Dense, ...], ...]

    def __call__(self, features: Mapping[str, float]) -> Width:
        """Predicts the width: the mean of the networks, whose disagreement adds to their own uncertainty."""
        means, variances = np.array([self._predict(layers, features) for layers in self.networks]).T
        return Width(float(means.mean()), float(np.sqrt(variances.mean() + means.var())))

    def _predict(self, layers: Sequence[Dense], features: Mapping[str, float]) -> tuple[float, float]:
        values = self.scaling([features])[0]
        for number, (weights, biases) in enumerate(layers):
            values = np.array(weights) @ (np.tanh(values) if number else values) + np.array(biases)
        return float(values[0]), float(np.exp(2 * np.clip(values[1], *LOG_DEVIATIONS)))


@dataclass(frozen=True)
class Width:
    """A predicted width: a log-normal distribution of the mean variance of a blur, in LR pixels squared.

    Attributes:
        log: Mean of its logarithm.
        deviation: Standard deviation of its logarithm.
    """

    log: float
    deviation: float

    @property
    def is_bicubic(self) -> bool:
        """Whether the blur is treated as that of bicubic downsampling."""
        return self.log - _CERTAINTY * self.deviation < math.log(BICUBIC_BELOW)


@dataclass(frozen=True)
class Calibration:
    """The predictors of the width of a blur and of the error of its kernel.

    Attributes:
        width: From measured features to the width.
        error: From `error_features` to the logarithm of the relative error of the kernel.
    """

    width: WidthNetworks
    error: LinearMap

    def expected_error(self, measurements: Measurements, width: Width, covariance: Floats) -> float:
        """Returns the expected relative error ‖k̂ − k‖ / ‖k‖ of the estimated kernel."""
        return float(np.exp(self.error(error_features(measurements, width, covariance))))


def corrected_covariance(measurements: Measurements, width: Width) -> Floats:
    """Returns the covariance (2, 2), in LR pixels squared, that has a width and the measured shape.

    The fitted form keeps its directions and the difference of its variances; the eigenvalues are clipped to the bounds.
    """
    fit = measurements.fit
    corrected = fit.covariance + (math.exp(width.log) - fit.width) * np.eye(2)
    values, axes = np.linalg.eigh(corrected)
    return np.asarray(axes @ np.diag(np.clip(values, NARROWEST, WIDEST)) @ axes.T)


def error_features(measurements: Measurements, predicted: Width, covariance: Floats) -> dict[str, float]:
    """Returns the features from which the error is predicted.

    In addition to the measured features, these are the uncertainty of the width, the logarithms of both variances, and
    nonlinear functions of the mean variance. The error is large where a Gaussian is easily confused with the bicubic
    kernel, which a linear function of the variance cannot express.
    """
    short, long = np.clip(np.linalg.eigvalsh(covariance), NARROWEST, WIDEST)
    width = float(np.trace(covariance)) / 2
    bumps = {f"near_{k}": float(np.exp(-(((width - at) / sigma) ** 2) / 2)) for k, (at, sigma) in enumerate(_BUMPS)}
    below = predicted.is_bicubic
    position = {"log_width": float(np.log(width)), "below": float(below), "depth": below * (width - BICUBIC_BELOW)}
    doubt = {"deviation": predicted.deviation, "log_deviation": math.log(predicted.deviation)}
    variances = {"short": float(np.log(short)), "long": float(np.log(long))}
    return {**measurements.features, **doubt, **variances, **bumps, **position}


@cache
def calibration() -> Calibration:
    """Reads the coefficients that are shipped with the package."""
    text = resources.files("metarestore.zero_shot").joinpath("calibration.json").read_text(encoding="utf-8")
    return calibration_of(json.loads(text))


def calibration_of(entries: Mapping[str, Any]) -> Calibration:
    """Builds a calibration from JSON data, as `dataclasses.asdict` writes it."""
    width, error = entries["width"], entries["error"]
    networks = WidthNetworks(_scaling(width["scaling"]), _tuples(width["networks"]))
    return Calibration(networks, LinearMap(_scaling(error["scaling"]), tuple(error["coefficients"])))


def _scaling(entry: Mapping[str, Any]) -> Scaling:
    return Scaling(tuple(entry["names"]), tuple(entry["mean"]), tuple(entry["deviation"]))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
