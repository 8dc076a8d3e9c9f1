"""Relations of earlier targets as prior knowledge for a new one: a random-effects combination.

Each earlier target t represents the new one up to a variance τ_t² between targets, which is estimated from the
differences between old and new relations that their standard errors do not explain. Thus a target that disagrees has
little weight, and one that agrees reduces the error of the estimate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metarestore.errors import UserError
from metarestore.graphs.graph import Graph, load_graph, relations_of, targets_of
from metarestore.graphs.relations import Relations
from metarestore.tasks.spec import DistributionSpec, content_hash

Floats = NDArray[np.float64]

_LEAST_VARIANCE = 1e-12
"""Keeps the precision finite if an error is 0."""


def between_targets(values: Floats, errors: Floats, earlier: Floats, earlier_errors: Floats) -> float:
    """Estimates the variance τ² between two targets by the method of moments.

    Args:
        values: Relations of N distributions to one target, (N,).
        errors: Their standard errors, (N,).
        earlier: Relations of the same distributions to the other target, (N,).
        earlier_errors: Their standard errors, (N,).

    Returns:
        max(0, mean((r − r_t)² − σ² − σ_t²)).

    Source: DerSimonian and Laird, Meta-analysis in clinical trials (1986), for two studies of N effects.
    """
    return max(0.0, float(np.mean(np.square(values - earlier) - np.square(errors) - np.square(earlier_errors))))


def combined(relations: Relations, earlier: Sequence[Relations], strength: float = 1.0) -> Relations:
    """Combines new relations with those of earlier targets by precision weighting.

    r = (r/σ² + Σ_t s·r_t/(σ_t² + τ_t²)) / (1/σ² + Σ_t s/(σ_t² + τ_t²)), with the inverse square root of the
    denominator as standard error. For an earlier target, its estimates before combination with its own prior are used,
    so that nothing is counted twice, and relations given by an expert are ignored. If the prior contains the same
    target, it is treated like any other. An undefined error is replaced by the largest error of the same estimate; if
    none is defined, that earlier target is ignored, or the new relations are returned unchanged.

    Args:
        relations: New relations of N distributions.
        earlier: Relations of T earlier targets, by the same kind of estimator.
        strength: Weight of an earlier relation relative to a new one with the same error (s).

    Returns:
        The combined relations, with the new ones as `estimated`.
    """
    errors = _completed(relations.standard_errors)
    if errors is None:
        return relations
    fresh = np.maximum(np.square(errors), _LEAST_VARIANCE)
    numerator, precision = relations.values / fresh, 1 / fresh
    for other in earlier:
        estimated = _own(other, relations.auxiliary)
        if estimated is None:
            continue
        shared, values, other_errors = estimated
        variance = between_targets(relations.values[shared], errors[shared], values, other_errors)
        weight = strength / np.maximum(np.square(other_errors) + variance, _LEAST_VARIANCE)
        numerator[shared] += weight * values
        precision[shared] += weight
    return dataclasses.replace(
        relations,
        values=numerator / precision,
        standard_errors=1 / np.sqrt(precision),
        estimated=np.stack([relations.values, relations.standard_errors]),
    )


def _own(earlier: Relations, names: tuple[str, ...]) -> tuple[NDArray[np.int64], Floats, Floats] | None:
    """Returns indices in `names`, values and errors of the estimates for an earlier target, or None."""
    stated = np.zeros(len(earlier.values), bool)
    if earlier.stated is not None and earlier.estimated is None:
        stated = earlier.stated
    values, errors = (earlier.values, earlier.standard_errors) if earlier.estimated is None else earlier.estimated
    complete = _completed(np.where(stated, np.nan, errors))
    if complete is None:
        return None
    rows = [i for i, name in enumerate(earlier.auxiliary) if name in names and not stated[i] and np.isfinite(values[i])]
    if not rows:
        return None
    return np.asarray([names.index(earlier.auxiliary[i]) for i in rows]), values[rows], complete[rows]


def _completed(errors: Floats) -> Floats | None:
    """Replaces undefined errors by the largest one; None if all are undefined."""
    known = errors[np.isfinite(errors)]
    return None if not len(known) else np.where(np.isfinite(errors), errors, known.max())


def earlier_relations(path: Path, measured: str, auxiliary: Mapping[str, DistributionSpec]) -> tuple[Relations, ...]:
    """Reads the relations of earlier targets that can be combined with a new estimate.

    Args:
        path: A run's folder or a graph file.
        measured: The quantity measured by the new estimate (`measure`); targets with relations of another quantity are
            ignored, because the values are not comparable.
        auxiliary: The distributions of the new estimate.

    Raises:
        UserError: The file holds no graph, it has no relations of this quantity, or a distribution has changed.
    """
    try:
        graph = load_graph(path)
    except UserError as error:
        raise UserError([f"graph.prior.graph: {problem}" for problem in error.problems]) from error
    nodes = {target: graph.nodes[target] for target in targets_of(graph)}
    kinds = {target: node.get("measure", node["estimator"]) for target, node in nodes.items()}
    # Graphs of version 0.1 record only the estimator.
    old = {target for target, node in nodes.items() if "measure" not in node}
    wanted = {False: measured, True: measured.partition(",")[0]}
    chosen = [target for target, kind in kinds.items() if kind == wanted[target in old]]
    if not chosen:
        others = ", ".join(sorted(set(kinds.values())))
        raise UserError(
            f"graph.prior.graph: {path} holds relations by {others}, which cannot be combined with those of the "
            f"estimator ({measured}); use a graph with {measured} relations, or remove prior"
        )
    _require_unchanged(graph, path, auxiliary)
    return tuple(relations_of(graph, target) for target in chosen)


def _require_unchanged(graph: Graph, path: Path, auxiliary: Mapping[str, DistributionSpec]) -> None:
    changed = [
        f"graph.prior.graph: the task '{name}' differs from that of {path}, because its file has changed; rename it, "
        "or remove prior"
        for name, spec in auxiliary.items()
        if name in graph and graph.nodes[name]["content"] != content_hash(spec)
    ]
    if changed:
        raise UserError(changed)
