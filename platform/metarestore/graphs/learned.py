"""The `learned` estimator."""

from __future__ import annotations

from torch import Tensor

from metarestore.config.estimators import LearnedEstimator
from metarestore.graphs.relations import Relations
from metarestore.learners.workspace import Runner, Workspace


def estimate_learned(
    workspace: Workspace, run: Runner, flat: Tensor, options: LearnedEstimator, step: int, previous: Relations | None
) -> Relations:
    """Relates by a relation network."""
    raise NotImplementedError
