"""Describes a relation graph in plain language. Every statement follows from thresholds defined in this module."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from metarestore.config.estimators import CONTROLS
from metarestore.graphs.difference import SIGNIFICANT, separation
from metarestore.graphs.relations import Relations
from metarestore.graphs.weights import effective_tasks, signal_share
from metarestore.reports.graph.table import nearest_first
from metarestore.reports.style import signed

HIGH, MODERATE = 0.8, 0.5
"""Minimum reliability for an order of the distributions that is called reliable, or moderately reliable."""
_ORDERED = 3
"""Minimum number of distributions for a meaningful order."""
SIGNAL = 0.5
"""Fraction of the relations' variance not explained by their errors below which differences are called mostly noise."""
EQUAL_SHARE = 1.0
"""Weight of each distribution if all are equal."""


def explain(relations: Relations, weights: Mapping[str, float]) -> list[str]:
    """Describes what a target resembles, how reliable the estimate is, its effect on training, and how to improve it.

    Args:
        relations: The relations of one target.
        weights: Its gradient weights, mean 1.

    Returns:
        One paragraph for each of these, without empty ones.
    """
    if relations.estimator in {"uniform", "random"}:
        return [
            f"These relations come from the control '{relations.estimator}' and contain no information about "
            f"{relations.target}. Use an estimator instead, e.g. estimator: {{kind: response}}.",
            _learned(weights),
        ]
    paragraphs = [_resemblance(relations), _certainty(relations), _learned(weights), _statements(relations)]
    return [paragraph for paragraph in (*paragraphs, _advice(relations)) if paragraph]


def _resemblance(relations: Relations) -> str:
    order = [i for i in nearest_first(relations) if math.isfinite(relations.values[i])]
    if not order:
        return f"Nothing is related to {relations.target}."
    control = relations.estimator in CONTROLS
    opening = f"Control '{relations.estimator}': " if control else ""
    first = order[0]
    nearest = f"{opening}{relations.target} resembles {_named(relations, first)} most"
    separations = separation(
        relations.values[first], relations.standard_errors[first], relations.values, relations.standard_errors
    )
    alike = [i for i in order[1:] if abs(separations[i]) <= SIGNIFICANT]
    unknown = [i for i in order[1:] if not math.isfinite(separations[i]) and not math.isinf(separations[i])]
    sentences = [nearest + "."]
    if alike:
        sentences.append(
            f"Not significantly different (within {SIGNIFICANT:g} standard errors): {_listed(relations, alike)}."
        )
    following = next((i for i in order[1:] if i not in alike and i not in unknown), None)
    if following is not None:
        far = f", {separations[following]:.1f} standard errors away" if math.isfinite(separations[following]) else ""
        sentences.append(f"The next is {_named(relations, following)}{far}.")
    if len(order) > 2 and order[-1] != following:
        sentences.append(f"It resembles {_named(relations, order[-1])} least.")
    return " ".join(sentences)


def _certainty(relations: Relations) -> str:
    sentences = [f"The estimate is by {relations.estimator}, from {relations.draws} draws."] if relations.draws else []
    value = relations.reliability
    if not math.isfinite(value):
        few = len(relations.values) < _ORDERED
        reason = "too few distributions" if few else "the shots could not be split into two halves"
        sentences.append(f"The reliability of the order is unknown: {reason}.")
    elif value >= HIGH:
        sentences.append(f"The order is reliable: two halves of the shots give nearly the same order ({_rank(value)}).")
    elif value >= MODERATE:
        sentences.append(f"The order is moderately reliable: two halves of the shots partly agree ({_rank(value)}).")
    else:
        sentences.append(f"The order is not reliable: two halves of the shots disagree ({_rank(value)}).")
    if _has_errors(relations):
        share = signal_share(relations.values, relations.standard_errors)
        verdict = "" if share >= SIGNAL else ": mostly noise"
        sentences.append(f"{share:.0%} of the variance of the relations is not explained by their errors{verdict}.")
    if relations.estimated is not None:
        moved = relations.values - relations.estimated[0]
        largest = int(np.nanargmax(np.abs(moved)))
        sentences.append(
            f"A prior is combined with it; {relations.auxiliary[largest]} changes most, by {signed(moved[largest])}."
        )
    return " ".join(sentences)


def _rank(value: float) -> str:
    return f"rank correlation {signed(value)}"


def _learned(weights: Mapping[str, float]) -> str:
    if not any(weights.values()):
        return ""
    ordered = sorted(weights.items(), key=lambda item: -item[1])
    above = [f"{name} ({weight:.2f})" for name, weight in ordered if weight > EQUAL_SHARE + 1e-9]
    unused = [name for name, weight in ordered if weight < 1e-3]
    count = effective_tasks(list(weights.values()))
    if not above:
        return f"All {len(weights)} distributions have the same gradient weight (1)."
    text = f"Gradient weight above the mean (1): {', '.join(above)}."
    text += f" The effective number of distributions is {count:.1f} of {len(weights)}."
    return text + (f" Weight 0: {', '.join(unused)}." if unused else "")


def _statements(relations: Relations) -> str:
    stated = [] if relations.stated is None else [int(i) for i in np.flatnonzero(relations.stated)]
    sentences = [f"Stated by an expert, not estimated: {_listed(relations, stated)}."] if stated else []
    if relations.allowed is not None and not relations.allowed.all():
        names = [name for name, allowed in zip(relations.auxiliary, relations.allowed, strict=True) if not allowed]
        reason = "excluded by this control" if relations.estimator == "best_single" else "forbidden"
        sentences.append(f"Not used for training ({reason}): {', '.join(names)}.")
    return " ".join(sentences)


def _advice(relations: Relations) -> str:
    """Recommends how to improve an estimate whose order is unreliable or whose differences are mostly noise."""
    reasons = []
    unknown = not math.isfinite(relations.reliability) and len(relations.values) >= _ORDERED
    if unknown or relations.reliability < HIGH:
        reasons.append("more shots (adaptation.shots)")
    if _has_errors(relations) and signal_share(relations.values, relations.standard_errors) < SIGNAL:
        reasons.append(f"more draws than {relations.draws} (graph.estimator.draws)")
    if not reasons or relations.estimator == "expert":
        return ""
    careful = "until then, weights.shrink: true shrinks the weights towards equal ones according to the errors"
    return (
        f"To improve the estimate: {' and '.join(reasons)}; {careful}."
        if _has_errors(relations)
        else (f"To improve the estimate: {' and '.join(reasons)}.")
    )


def _has_errors(relations: Relations) -> bool:
    return bool((np.nan_to_num(relations.standard_errors) > 0).any())


def _named(relations: Relations, index: int) -> str:
    error = relations.standard_errors[index]
    spread = f" ± {error:.2f}" if math.isfinite(error) and error > 0 else ""
    return f"{relations.auxiliary[index]} ({signed(relations.values[index])}{spread})"


def _listed(relations: Relations, indices: Sequence[int]) -> str:
    return ", ".join(_named(relations, i) for i in indices)
