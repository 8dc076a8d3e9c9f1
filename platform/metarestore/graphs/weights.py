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


def balanced(gradients: NDArray[np.float32], norms: ArrayLike) -> NDArray[np.float32]:
    """Divides task gradients (T, P) by reference norms (T,), keeping their mean scale.

    Raw norms differ by more than twenty times between degradations, so that a plain sum is ruled by noise removal.
    """
    reference = np.maximum(np.asarray(norms, np.float64), 1e-12)
    scaled: NDArray[np.float32] = gradients * (reference.mean() / reference).astype(np.float32)[:, None]
    return scaled


def combined(gradients: NDArray[np.float32], weights: ArrayLike) -> NDArray[np.float32]:
    """Computes the outer gradient Σ wᵢ gᵢ / Σ wᵢ of task gradients (T, P), summed in the order of the tasks.

    The order is fixed, so the result does not depend on who computed which gradient, or when. If all weights are 0 so
    is the result.
    """
    array = np.asarray(weights, np.float64)
    # Shares of the largest weight, so that weights too small for float32 still make a mean and not 0/0.
    relative = array / array.max() if array.max() > 0 else array
    shares = (relative / max(relative.sum(), 1.0)).astype(np.float32)
    total: NDArray[np.float32] = np.zeros(gradients.shape[1], np.float32)
    for share, gradient in zip(shares, gradients, strict=True):
        total += share * gradient
    return total
