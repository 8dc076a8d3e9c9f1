"""Weights of the query losses after each inner step, a pure function of the outer step."""

from __future__ import annotations

from metarestore.config.learner import MultiStepSpec


def step_weights(spec: MultiStepSpec | None, inner_steps: int, step: int) -> tuple[float, ...]:
    """Returns the weight of the query loss after each inner step; they sum to 1.

    Annealing decreases the weights of all steps but the last linearly from 1/k to `floor`/k, and increases that of the
    last accordingly. MZSR is k = 5, `steps` 10000/3, floor 0.03: max(1/5 − 6e-5·g, 0.006) at outer step g, up to 0.976
    for the last.

    Args:
        spec: The schedule; None gives all weight to the last step, as in MAML.
        inner_steps: k.
        step: The outer step, from 0.

    Source: Antoniou et al., How to train your MAML (2019), eq. 4, schedule of the authors' code; Soh et al.,
    Meta-Transfer Learning for Zero-Shot Super-Resolution (2020), code, which never advances g: `weights: uniform`.
    """
    if spec is None:
        return (0.0,) * (inner_steps - 1) + (1.0,)
    if isinstance(spec.weights, tuple):
        total = sum(spec.weights)
        return tuple(weight / total for weight in spec.weights)
    first = 1.0 / inner_steps
    lost = min(first * step / spec.steps, first * (1.0 - spec.floor)) if spec.weights == "annealed" else 0.0
    return (first - lost,) * (inner_steps - 1) + (first + (inner_steps - 1) * lost,)
