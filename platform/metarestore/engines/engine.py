"""Engines: where jobs run. Results come in the order of the jobs, so no sum depends on who computed what."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from torch import Tensor

from metarestore.engines.reduction import Reduced, Weigh
from metarestore.workspace.job import Job
from metarestore.workspace.study import Study


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

    def describe(self) -> str:
        """Says in a few words what computes, for people."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
