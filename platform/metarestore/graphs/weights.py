"""From relations to gradient weights, and from task gradients to the outer gradient: pure functions.

Weights are never trained through Σ wᵢ Lᵢ, which drifts to the easiest task; nothing here is differentiable.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def standardised(values: ArrayLike) -> Floats:
    """Shifts and scales values (N,) to mean 0 and standard deviation 1; equal values become zeros."""
    array = np.asarray(values, np.float64)
    spread = array.std()
    return np.zeros_like(array) if spread < 1e-12 else (array - array.mean()) / spread


def softmax_weights(relations: ArrayLike, temperature: float) -> Floats:
    """Turns relations (N,) into gradient weights `N·softmax(z/τ)` of the standardised relations z.

    Standardising makes τ mean the same for every estimator, whatever the spread of its values.

    Returns:
        Weights (N,), positive, with mean 1.

    Raises:
        ValueError: The temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"the temperature must be above 0, got {temperature}")
    logits = standardised(relations) / temperature
    exponentials = np.exp(logits - logits.max())
    return np.asarray(len(exponentials) * exponentials / exponentials.sum())


def effective_tasks(weights: ArrayLike) -> float:
    """Returns the effective number of tasks 1/Σp² with p = w/Σw: N for equal weights, 1 if one has all."""
    array = np.asarray(weights, np.float64)
    shares = array / array.sum()
    return float(1.0 / np.square(shares).sum())


def balancing(norms: ArrayLike) -> Floats:
    """Returns the factors (T,) that divide task gradients by reference norms (T,), keeping their mean scale.

    Raw norms differ by more than twenty times between degradations, so that a plain sum is ruled by noise removal.
    """
    reference = np.maximum(np.asarray(norms, np.float64), 1e-12)
    return np.asarray(reference.mean() / reference)


def mean_shares(weights: ArrayLike) -> Floats:
    """Returns the factors wᵢ/Σw (T,) of a weighted mean; zeros if all weights are 0."""
    array = np.asarray(weights, np.float64)
    # Relative to the largest first: weights near the smallest number there is still make a mean, and not 0/0.
    relative = array / array.max() if array.max() > 0 else array
    return np.asarray(relative / max(relative.sum(), 1.0))
