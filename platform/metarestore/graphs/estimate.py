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

    Args:
        workspace: The study, opened in this process.
        run: Runs jobs, here or on workers.
        flat: Parameters (P,) that gradients are taken at and that short trainings start from.
    """
    estimator = workspace.experiment.graph.estimator
    relations = dataclasses.replace(_estimate(estimator, workspace, run, flat), estimator=estimator.kind)
    return with_expert_edges(relations, workspace.experiment.graph.edges)


def _estimate(estimator: spec.Estimator, workspace: Workspace, run: Runner, flat: Tensor) -> Relations:
    match estimator:
        case spec.ResponseEstimator():
            return estimate_response(workspace, run, flat, estimator.draws)
        case spec.TransferEstimator():
            return estimate_transfer(workspace, run, flat, estimator)
        case spec.GradientEstimator():
            return estimate_gradient(workspace, run, flat, estimator.draws)
        case spec.InvertedControl():
            return inverted(_estimate(estimator.of, workspace, run, flat))
        case spec.RandomControl():
            values = generator(workspace.experiment.seed, "random relations").uniform(
                -1, 1, len(workspace.study.auxiliary)
            )
            return _stated(workspace, values, "random")
        case spec.UniformControl() | spec.ExpertEstimator():
            return _stated(workspace, np.zeros(len(workspace.study.auxiliary)), estimator.kind)


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
