"""Jobs: what engines run on a workspace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor

from metarestore.workspace.workspace import Workspace


class Job(Protocol):
    """A unit of work and of retry: a pure function of the workspace and the parameters."""

    def run(self, workspace: Workspace, flat: Tensor) -> Any:
        """Computes the result; running it again gives the same bytes."""
        ...


Runner = Callable[[Sequence[Job], Tensor], list[Any]]
"""Runs jobs with the same parameters and returns their results in the order of the jobs."""
