"""Engines: where jobs run. Results come in the order of the jobs, so no sum depends on who computed what."""

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
"""Is given the position of a job and its result, as soon as it is there."""


class LoneJob(Protocol):
    """A unit of work that needs no study, e.g. one photograph to be adapted to; a pure function of itself."""

    def run(self, device: torch.device) -> Any:
        """Computes the result; running it again gives the same bytes."""
        ...


class Session(Protocol):
    """An engine that is opened for one study."""

    def map(self, jobs: Sequence[Job], flat: Tensor) -> list[Any]:
        """Runs jobs with parameters (P,) and returns their results in the order of the jobs."""
        ...

    def reduce(self, jobs: Sequence[Job], flat: Tensor, weigh: Weigh) -> Reduced:
        """Runs jobs that return task gradients, weighs them by the figures of all, and sums them in a fixed order."""
        ...


class Engine(Protocol):
    """Runs jobs here or elsewhere; a context manager that frees what it holds."""

    def session(self, study: Study) -> Session:
        """Opens the engine for a study."""
        ...

    def each(self, jobs: Sequence[LoneJob], receive: Receive) -> None:
        """Runs jobs that need no study and hands over each result as soon as it is there, in any order."""
        ...

    def describe(self) -> str:
        """Says in a few words what computes, for people."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
