"""One entry to all relation estimators and controls."""

from __future__ import annotations

import dataclasses

import numpy as np
from torch import Tensor

from metarestore.config import graph as spec
from metarestore.graphs.gradient import estimate_gradient
from metarestore.graphs.relations import Relations
from metarestore.graphs.response import estimate_response
from metarestore.graphs.transfer import estimate_transfer
from metarestore.learners.workspace import Runner, Workspace
from metarestore.seeds import generator


def estimate(workspace: Workspace, run: Runner, flat: Tensor) -> Relations:
    """Estimates the relations that a study's graph asks for; expert edges replace the estimates they speak of.

    The controls stay controls: edges do not touch `uniform` and `random`, and `inverted` turns them around too.

    Args:
        workspace: The study, opened in this process.
        run: Runs jobs, here or on workers.
        flat: Parameters (P,) that gradients are taken at and that short trainings start from.
    """
    estimator = workspace.experiment.graph.estimator
    return dataclasses.replace(_estimate(estimator, workspace, run, flat), estimator=estimator.kind)


def _estimate(estimator: spec.Estimator, workspace: Workspace, run: Runner, flat: Tensor) -> Relations:
    edges = workspace.experiment.graph.edges
    match estimator:
        case spec.ResponseEstimator():
            return with_expert_edges(estimate_response(workspace, run, flat, estimator.draws), edges)
        case spec.TransferEstimator():
            return with_expert_edges(estimate_transfer(workspace, run, flat, estimator), edges)
        case spec.GradientEstimator():
            return with_expert_edges(estimate_gradient(workspace, run, flat, estimator.draws), edges)
        case spec.InvertedControl():
            return inverted(_estimate(estimator.of, workspace, run, flat))
        case spec.ExpertEstimator():
            return with_expert_edges(_stated(workspace, np.zeros(len(workspace.study.auxiliary)), "expert"), edges)
        case spec.RandomControl() | spec.UniformControl():
            return _control(workspace, estimator.kind)


def _control(workspace: Workspace, kind: str) -> Relations:
    rng, count = generator(workspace.experiment.seed, "random relations"), len(workspace.study.auxiliary)
    return _stated(workspace, rng.uniform(-1, 1, count) if kind == "random" else np.zeros(count), kind)


def inverted(relations: Relations) -> Relations:
    """Turns relations around: the nearest distribution becomes the farthest."""
    return dataclasses.replace(relations, values=-relations.values, matrix=None)


def with_expert_edges(relations: Relations, edges: tuple[spec.Edge, ...]) -> Relations:
    """Replaces estimates by what an expert states; a stated relation has no error."""
    values, errors = relations.values.copy(), relations.standard_errors.copy()
    for edge in edges:
        index = relations.auxiliary.index(edge.source)
        values[index], errors[index] = edge.relation, 0.0
    return dataclasses.replace(relations, values=values, standard_errors=errors)


def _stated(workspace: Workspace, values: np.ndarray, kind: str) -> Relations:
    names = tuple(workspace.study.auxiliary)
    return Relations(workspace.experiment.graph.target, names, values, np.full(len(names), np.nan), kind, 0)
