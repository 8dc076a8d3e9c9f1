"""Relations of earlier targets as prior knowledge for a new one: a random-effects combination.

Each earlier target t stands for the new one up to a variance τ_t² between targets, which is estimated from how far its
relations are from the fresh ones, beyond what their standard errors explain. So a target that disagrees counts little,
and one that agrees sharpens the estimate.
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
"""Keeps the precision of what claims to be exact finite."""


def between_targets(values: Floats, errors: Floats, earlier: Floats, earlier_errors: Floats) -> float:
    """Estimates the variance τ² between two targets by the method of moments.

    Args:
        values: Relations of N distributions to the one target, (N,).
        errors: Their standard errors, (N,).
        earlier: Relations of the same distributions to the other target, (N,).
        earlier_errors: Their standard errors, (N,).

    Returns:
        max(0, mean((r − r_t)² − σ² − σ_t²)).

    Source: DerSimonian and Laird, Meta-analysis in clinical trials (1986), for two studies of N effects.
    """
    return max(0.0, float(np.mean(np.square(values - earlier) - np.square(errors) - np.square(earlier_errors))))


def combined(relations: Relations, earlier: Sequence[Relations], strength: float = 1.0) -> Relations:
    """Combines fresh relations with those of earlier targets by their precisions.

    r = (r/σ² + Σ_t s·r_t/(σ_t² + τ_t²)) / (1/σ² + Σ_t s/(σ_t² + τ_t²)), with one over the root of the denominator as
    its standard error. Taken of an earlier target are its own estimates, from before a prior of its own, so that
    nothing counts twice; not what an expert stated about it. The same target in the prior is an
    earlier target like any other. An error that is not defined is taken to be the largest of the same estimate; where
    none is defined nothing can be weighed: that earlier target is left out, or the fresh relations stay as they are.

    Args:
        relations: Fresh relations of N distributions.
        earlier: Relations of T earlier targets, by the same kind of estimator.
        strength: How much an earlier relation counts against a fresh one of the same error (s).

    Returns:
        The relations, with the fresh ones as `estimated`.
    """
    errors = _completed(relations.standard_errors)
    if errors is None:
        return relations
    fresh = np.maximum(np.square(errors), _LEAST_VARIANCE)
    numerator, precision = relations.values / fresh, 1 / fresh
    for other in earlier:
        found = _own(other, relations.auxiliary)
        if found is None:
            continue
        shared, values, other_errors = found
        between = between_targets(relations.values[shared], errors[shared], values, other_errors)
        weight = strength / np.maximum(np.square(other_errors) + between, _LEAST_VARIANCE)
        numerator[shared] += weight * values
        precision[shared] += weight
    return dataclasses.replace(
        relations,
        values=numerator / precision,
        standard_errors=1 / np.sqrt(precision),
        estimated=np.stack([relations.values, relations.standard_errors]),
    )


def _own(earlier: Relations, names: tuple[str, ...]) -> tuple[NDArray[np.int64], Floats, Floats] | None:
    """Returns positions among `names`, values and errors of what was estimated for an earlier target, if anything."""
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
    """Puts the largest error in the place of undefined ones; None where all are undefined."""
    known = errors[np.isfinite(errors)]
    return None if not len(known) else np.where(np.isfinite(errors), errors, known.max())


def earlier_relations(path: Path, measured: str, auxiliary: Mapping[str, DistributionSpec]) -> tuple[Relations, ...]:
    """Reads the relations of earlier targets that can be combined with a new estimate.

    Args:
        path: A run's folder or a graph's file.
        measured: What the new estimate measures (`measure`); targets whose relations are of another measure are left
            out, since the values of two do not mean the same.
        auxiliary: The distributions of the new estimate.

    Raises:
        UserError: The file holds no graph, none of its relations is of this measure, or a distribution has changed.
    """
    try:
        graph = load_graph(path)
    except UserError as error:
        raise UserError([f"graph.prior.graph: {problem}" for problem in error.problems]) from error
    nodes = {target: graph.nodes[target] for target in targets_of(graph)}
    kinds = {target: node.get("measure", node["estimator"]) for target, node in nodes.items()}
    # A graph of version 0.1 tells the estimator alone.
    old = {target for target, node in nodes.items() if "measure" not in node}
    alike = {False: measured, True: measured.partition(",")[0]}
    chosen = [target for target, kind in kinds.items() if kind == alike[target in old]]
    if not chosen:
        others = ", ".join(sorted(set(kinds.values())))
        raise UserError(
            f"graph.prior.graph: {path} holds relations by {others}, which cannot be combined with those of the "
            f"estimator ({measured}); name a graph by {measured}, or leave prior out"
        )
    _require_unchanged(graph, path, auxiliary)
    return tuple(relations_of(graph, target) for target in chosen)


def _require_unchanged(graph: Graph, path: Path, auxiliary: Mapping[str, DistributionSpec]) -> None:
    changed = [
        f"graph.prior.graph: the task '{name}' is not the one of {path}: its file was changed in between; rename it, "
        "or leave prior out"
        for name, spec in auxiliary.items()
        if name in graph and graph.nodes[name]["content"] != content_hash(spec)
    ]
    if changed:
        raise UserError(changed)
