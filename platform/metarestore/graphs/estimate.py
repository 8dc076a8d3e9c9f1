"""The entry point to all relation estimators and controls."""

from __future__ import annotations

import dataclasses

import numpy as np
from torch import Tensor

from metarestore.config import estimators as spec
from metarestore.config.graph import EdgeSpec
from metarestore.config.pattern import matching
from metarestore.errors import UserError
from metarestore.graphs.prior import combined, earlier_relations
from metarestore.graphs.relations import Relations
from metarestore.seeds import generator
from metarestore.workspace.job import Runner
from metarestore.workspace.workspace import Workspace


def estimate(
    workspace: Workspace, run: Runner, flat: Tensor, step: int = 0, previous: Relations | None = None
) -> Relations:
    """Estimates the relations of a study with the estimator of its graph.

    A prior is combined with the estimate first; then expert edges replace the relations that they specify. Neither
    affects the controls `uniform` and `random`; `inverted` negates the result of both.

    Args:
        workspace: The study, opened in this process.
        run: Runs jobs, in this process or on workers.
        flat: Parameters (P,) at which gradients are computed and from which short trainings start.
        step: The outer step.
        previous: The relations of the previous refresh, if any.
    """
    estimator = workspace.experiment.graph.estimator
    relations = dataclasses.replace(
        _estimate(estimator, workspace, run, flat, step, previous), estimator=estimator.kind
    )
    lost = [name for name, value in zip(relations.auxiliary, relations.values, strict=True) if not np.isfinite(value)]
    if lost:
        raise UserError(
            f"graph.estimator: {estimator.kind} gives no finite relation for {', '.join(lost)}: its training or the "
            "parameters diverged; lower its learning rate, or training.optimizer.lr"
        )
    return relations


def _estimate(
    estimator: spec.Estimator, workspace: Workspace, run: Runner, flat: Tensor, step: int, previous: Relations | None
) -> Relations:
    graph = workspace.experiment.graph
    match estimator:
        case spec.InvertedControlSpec():
            return inverted(_estimate(estimator.of, workspace, run, flat, step, previous))
        case spec.BestSingleControlSpec():
            return best_single(_estimate(estimator.of, workspace, run, flat, step, previous))
        case spec.RandomControlSpec() | spec.UniformControlSpec():
            return without_forbidden(_control(workspace, estimator.kind), graph.forbidden)
    relations: Relations = estimator.implemented()(workspace, run, flat, estimator, step, previous)
    relations = with_expert_edges(_with_prior(workspace, relations, estimator), graph.edges)
    return without_forbidden(relations, graph.forbidden)


def estimate_expert(
    workspace: Workspace,
    run: Runner,
    flat: Tensor,
    options: spec.ExpertEstimatorSpec,
    step: int = 0,
    previous: Relations | None = None,
) -> Relations:
    """Relates no distribution to the target: `edges` state all relations."""
    del run, flat, step, previous
    return _stated(workspace, np.zeros(len(workspace.study.auxiliary)), options.kind)


def _with_prior(workspace: Workspace, relations: Relations, estimator: spec.Estimator) -> Relations:
    prior = workspace.experiment.graph.prior
    if prior is None or not spec.takes_prior(estimator):
        return relations
    earlier = earlier_relations(prior.graph, spec.measure(estimator), workspace.study.auxiliary)
    return combined(relations, earlier, prior.strength)


def without_forbidden(relations: Relations, patterns: tuple[str, ...]) -> Relations:
    """Marks distributions that match a forbidden pattern as not allowed."""
    named = {name for pattern in patterns for name in matching(pattern, relations.auxiliary)}
    forbidden = np.asarray([name in named for name in relations.auxiliary])
    return dataclasses.replace(relations, allowed=~forbidden) if forbidden.any() else relations


def _control(workspace: Workspace, kind: str) -> Relations:
    rng, count = generator(workspace.experiment.seed, "random relations"), len(workspace.study.auxiliary)
    return _stated(workspace, rng.uniform(-1, 1, count) if kind == "random" else np.zeros(count), kind)


def inverted(relations: Relations) -> Relations:
    """Negates relations: the most related distribution becomes the least related."""
    estimated = None if relations.estimated is None else relations.estimated * [[-1.0], [1.0]]
    return dataclasses.replace(relations, values=-relations.values, matrix=None, estimated=estimated)


def best_single(relations: Relations) -> Relations:
    """Allows only the most related of the allowed distributions."""
    values = relations.values if relations.allowed is None else np.where(relations.allowed, relations.values, -np.inf)
    best = np.arange(len(values)) == int(values.argmax())
    return dataclasses.replace(relations, allowed=best)


def with_expert_edges(relations: Relations, edges: tuple[EdgeSpec, ...]) -> Relations:
    """Replaces estimates by relations given by an expert, which have no error."""
    values, errors = relations.values.copy(), relations.standard_errors.copy()
    stated = np.zeros(len(values), bool)
    for edge in edges:
        index = relations.auxiliary.index(edge.source)
        values[index], errors[index], stated[index] = edge.relation, 0.0, True
    return dataclasses.replace(relations, values=values, standard_errors=errors, stated=stated if edges else None)


def _stated(workspace: Workspace, values: np.ndarray, kind: str) -> Relations:
    names = tuple(workspace.study.auxiliary)
    return Relations(workspace.experiment.graph.target, names, values, np.full(len(names), np.nan), kind, 0)
