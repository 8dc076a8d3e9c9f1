"""Which arms of a study are compared: found by what differs in their configuration, whatever they are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metarestore.config.estimators import CONTROLS
from metarestore.evaluation.results import ArmResult

_INERT = (
    "graph.prior",
    "graph.edges",
    "graph.refresh",
    *(
        f"graph.weights.{key}"
        for key in ("rule", "temperature", "final_temperature", "effective", "top", "shrink", "warmup_steps")
    ),
)
"""Keys that change nothing where all distributions weigh the same."""


def learns_from_target(arm: ArmResult) -> bool:
    """Tells whether an arm learned from the target's few shots alone."""
    source: object = arm.configuration.get("training", {}).get("source")
    return source == "target"


def control_pairs(arms: Sequence[ArmResult]) -> Iterator[tuple[ArmResult, ArmResult]]:
    """Yields every arm that estimates relations with each control that differs from it in the estimator alone.

    Controls are the arms whose estimator is uniform, random, inverted or best_single; the last two count for the
    estimator that they invert or cut down. Beside a uniform arm, keys that only shape unequal weights may differ, too.
    """
    related = [arm for arm in arms if arm.configuration and not learns_from_target(arm)]
    for arm in related:
        if _kind(arm) not in CONTROLS:
            yield from ((arm, other) for other in related if _is_control_of(other, arm))


def differing_keys(first: Any, second: Any, path: str = "") -> set[str]:
    """Returns the key paths at which nested data differ."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        inner = (f"{path}.{key}" if path else str(key) for key in [*first, *(k for k in second if k not in first)])
        keys = [*first, *(key for key in second if key not in first)]
        parts = zip(keys, inner, strict=True)
        return set().union(*(differing_keys(first.get(key), second.get(key), at) for key, at in parts))
    return set() if first == second else {path}


def _is_control_of(control: ArmResult, arm: ArmResult) -> bool:
    kind = _kind(control)
    if kind not in CONTROLS or _estimator(control).get("of", _estimator(arm)) != _estimator(arm):
        return False
    free = ("graph.estimator", *(_INERT if kind == "uniform" else ()))
    differing = differing_keys(arm.configuration, control.configuration)
    return all(any(key == one or key.startswith(f"{one}.") for one in free) for key in differing)


def _estimator(arm: ArmResult) -> Mapping[str, Any]:
    estimator: Mapping[str, Any] = arm.configuration.get("graph", {}).get("estimator", {})
    return estimator


def _kind(arm: ArmResult) -> str:
    return str(_estimator(arm).get("kind", ""))
