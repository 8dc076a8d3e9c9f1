"""Pure functions that compute gradient weights from relations, and balancing factors from gradient norms.

Weights are never trained through Σ wᵢ Lᵢ, which drifts to the easiest task; nothing here is differentiable.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from metarestore.config.graph import WeightsSpec
from metarestore.graphs.relations import Relations

Floats = NDArray[np.float64]


def standardised(values: ArrayLike) -> Floats:
    """Shifts and scales values (N,) to mean 0 and standard deviation 1; equal values become zeros."""
    array = np.asarray(values, np.float64)
    spread = array.std()
    return np.zeros_like(array) if spread < 1e-12 else (array - array.mean()) / spread


def softmax_weights(relations: ArrayLike, temperature: float) -> Floats:
    """Converts relations (N,) to gradient weights `N·softmax(z/τ)` of the standardised relations z.

    Standardising makes τ independent of the estimator and the spread of its values.

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


def relu_weights(relations: ArrayLike) -> Floats:
    """Returns weights (N,) proportional to the positive relations, with mean 1; all 1 if no relation is positive."""
    positive = np.maximum(np.asarray(relations, np.float64), 0.0)
    total = positive.sum()
    # A sum that is too small to divide by is treated like 0.
    return np.ones_like(positive) if total < 1e-12 else np.asarray(len(positive) * positive / total)


def temperature_for(relations: ArrayLike, effective: float) -> float:
    """Returns the τ in [0.01, 100] for which `softmax_weights` has the effective number of distributions `effective`.

    The effective number increases with τ from 1 (more if several distributions share the largest relation) to N; values
    outside that interval give the nearest end.
    """
    low, high = 1e-2, 1e2

    def excess(logarithm: float) -> float:
        return effective_tasks(softmax_weights(relations, float(np.exp(logarithm)))) - effective

    if excess(np.log(low)) >= 0:
        return low
    if excess(np.log(high)) <= 0:
        return high
    return float(np.exp(brentq(excess, np.log(low), np.log(high), xtol=1e-6)))


def signal_share(values: ArrayLike, standard_errors: ArrayLike) -> float:
    """Returns the fraction of the variance of relations (N,) not explained by their errors (N,): 1 − Σσ²/Σ(r−r̄)².

    Undefined errors count as 0.

    Source: the shrinkage of Morris, Parametric Empirical Bayes Inference (1983), with one factor for all values.
    """
    array = np.asarray(values, np.float64)
    spread = float(np.square(array - array.mean()).sum())
    noise = float(np.square(np.nan_to_num(np.asarray(standard_errors, np.float64))).sum())
    return 0.0 if spread <= noise else 1.0 - noise / spread


def relation_weights(relations: Relations, spec: WeightsSpec, step: int = 0, steps: int = 1) -> Floats:
    """Converts relations to the gradient weights of an outer step.

    Args:
        relations: The relations of N distributions.
        spec: Options of the conversion.
        step: The outer step, from 0.
        steps: Outer steps of the training.

    Returns:
        Weights (N,), non-negative, with mean 1; 0 for distributions that are not allowed or not among the `top`.
    """
    step = min(step, max(steps - 1, 0))  # the weights of the last step are kept
    kept = _kept(relations, spec.top)
    weights = np.zeros(len(kept))
    chosen = _rule(relations.values[kept], relations.standard_errors[kept], spec, step / max(steps - 1, 1))
    weights[kept] = chosen * len(kept) / kept.sum()
    if step < spec.warmup_steps:
        allowed = _kept(relations, None)
        uniform = allowed * (len(allowed) / allowed.sum())
        share = step / spec.warmup_steps
        weights = share * weights + (1 - share) * uniform
    return weights


def _kept(relations: Relations, top: int | None) -> NDArray[np.bool_]:
    """Returns the mask (N,) of the distributions that may have a weight."""
    kept = np.ones(len(relations.values), bool) if relations.allowed is None else relations.allowed.copy()
    if top is not None:
        order = np.argsort(-np.where(kept, relations.values, -np.inf), kind="stable")
        kept[order[top:]] = False
    return kept


def _rule(values: Floats, errors: Floats, spec: WeightsSpec, progress: float) -> Floats:
    """Applies the rule to the relations of the K distributions with weights; `progress` goes from 0 to 1."""
    share = signal_share(values, errors) if spec.shrink else 1.0
    if spec.rule == "relu":
        return np.asarray(share * relu_weights(values) + (1 - share))
    if share == 0:
        return np.ones_like(values)
    if spec.effective is not None:
        temperature = temperature_for(values, spec.effective)
    elif spec.final_temperature is not None:
        temperature = spec.temperature ** (1 - progress) * spec.final_temperature**progress
    else:
        temperature = spec.temperature
    return softmax_weights(values, temperature / share)


def effective_tasks(weights: ArrayLike) -> float:
    """Returns the effective number of tasks 1/Σp² with p = w/Σw: N for equal weights, 1 if only one is positive."""
    array = np.asarray(weights, np.float64)
    shares = array / array.sum()
    return float(1.0 / np.square(shares).sum())


def balancing(norms: ArrayLike) -> Floats:
    """Returns the factors (T,) that divide task gradients by reference norms (T,), preserving their mean scale.

    Raw norms differ by more than a factor of 20 between degradations, so a plain sum is dominated by noise removal.
    """
    reference = np.maximum(np.asarray(norms, np.float64), 1e-12)
    return np.asarray(reference.mean() / reference)


def relative_to_largest(weights: ArrayLike) -> Floats:
    """Divides weights (N,) by the largest one: factors in 0..1 of the inner learning rate."""
    array = np.asarray(weights, np.float64)
    return np.asarray(array / array.max())
