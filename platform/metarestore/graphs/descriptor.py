"""The `descriptor` estimator."""

from __future__ import annotations

from torch import Tensor

from metarestore.config.estimators import DescriptorEstimator
from metarestore.graphs.relations import Relations
from metarestore.learners.workspace import Runner, Workspace


def estimate_descriptor(workspace: Workspace, run: Runner, flat: Tensor, options: DescriptorEstimator) -> Relations:
    """Relates by descriptors."""
    raise NotImplementedError
