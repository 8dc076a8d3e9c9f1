"""The engine that runs jobs in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from metarestore.engines.engine import LoneJob, Receive
from metarestore.engines.reduction import Reduced, Weigh, reduced
from metarestore.workspace.job import Job
from metarestore.workspace.process import prepare_process
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace


@dataclass(frozen=True)
class LocalSession:
    """Runs jobs sequentially on an opened workspace."""

    workspace: Workspace

    def map(self, jobs: Sequence[Job], flat: Tensor) -> list[Any]:
        """Runs jobs in order."""
        return [job.run(self.workspace, flat) for job in jobs]

    def reduce(self, jobs: Sequence[Job], flat: Tensor, weigh: Weigh) -> Reduced:
        """Runs jobs in order and sums their gradients."""
        return reduced(self.map(jobs, flat), weigh)


class LocalEngine:
    """Runs jobs in this process, on one thread: the reference that other engines must match bit for bit."""

    def session(self, study: Study) -> LocalSession:
        """Opens a workspace for the study."""
        prepare_process()
        return LocalSession(Workspace(study))

    def each(self, jobs: Sequence[LoneJob], receive: Receive) -> None:
        """Runs jobs sequentially."""
        prepare_process()
        for position, job in enumerate(jobs):
            receive(position, job.run(torch.device("cpu")))

    def describe(self) -> str:
        """Returns a short description of the compute resources."""
        return "this process, 1 thread"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
