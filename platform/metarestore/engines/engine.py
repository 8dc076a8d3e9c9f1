"""The interface of engines. Results are in the order of the jobs, so sums do not depend on which worker ran them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from metarestore.engines.reduction import Reduced, Weigh
from metarestore.workspace.job import Job
from metarestore.workspace.study import Study

Receive = Callable[[int, Any], None]
"""Called with the index of a job and its result as soon as it is available."""


class LoneJob(Protocol):
    """A unit of work that does not need a study, e.g. adaptation to one photograph; its result is deterministic."""

    def run(self, device: torch.device) -> Any:
        """Computes the result; running it again gives the same bytes."""
        ...


class Session(Protocol):
    """An engine opened for one study."""

    def map(self, jobs: Sequence[Job], flat: Tensor) -> list[Any]:
        """Runs jobs with parameters (P,) and returns their results in the order of the jobs."""
        ...

    def reduce(self, jobs: Sequence[Job], flat: Tensor, weigh: Weigh) -> Reduced:
        """Runs jobs that return task gradients, weights them given the metrics of all, and sums in a fixed order."""
        ...


class Engine(Protocol):
    """Runs jobs; a context manager that releases its resources on exit."""

    def session(self, study: Study) -> Session:
        """Opens the engine for a study."""
        ...

    def each(self, jobs: Sequence[LoneJob], receive: Receive) -> None:
        """Runs jobs that do not need a study and passes on each result as soon as it is available, in any order."""
        ...

    def describe(self) -> str:
        """Returns a short description of the compute resources for the user."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
