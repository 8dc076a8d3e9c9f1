"""The interface of engines. Results are in the order of the jobs, so sums do not depend on which worker ran them."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from torch import Tensor

from metarestore.engines.reduction import Reduced, Weigh
from metarestore.learners.study import Study
from metarestore.learners.workspace import Job


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

    def describe(self) -> str:
        """Returns a short description of the compute resources for the user."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
