"""Selects the pairs of arms of a study to compare, by the differences of their configurations."""

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
"""Keys that have no effect if all distributions have the same weight."""


def learns_from_target(arm: ArmResult) -> bool:
    """Returns whether an arm was trained on the target's few shots only."""
    source: object = arm.configuration.get("training", {}).get("source")
    return source == "target"


def control_pairs(arms: Sequence[ArmResult]) -> Iterator[tuple[ArmResult, ArmResult]]:
    """Yields each arm that estimates relations with every control that differs from it only in the estimator.

    Controls are the arms whose estimator is uniform, random, inverted or best_single; the last two are controls of
    the estimator that they wrap. A uniform arm may also differ in keys that only affect unequal weights.
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
