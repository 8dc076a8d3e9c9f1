"""What runs in an actor of the Ray engine."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from metarestore import notices
from metarestore.learners.gradients import TaskGradients, TaskMetrics
from metarestore.learners.process import prepare_process
from metarestore.learners.workspace import Job, Workspace

_CACHED_WORKSPACES = 4
"""Arms of a study take turns, so a worker keeps the last few workspaces open."""


@dataclass(frozen=True)
class Shared:
    """What all jobs of a call share; it is put into the object store once for each call, if it is large.

    The study itself, some ten kilobytes, and no reference to it: a reference would have to be fetched by each worker,
    and again by each that was restarted.

    Attributes:
        key: Name of the study's content.
        study: The study, pickled; only a worker that does not know it yet looks inside.
        flat: Parameters, (P,).
    """

    key: str
    study: bytes
    flat: NDArray[np.float32]


class WorkerLocation(NamedTuple):
    """Where an actor runs."""

    process: int
    node: str
    address: str


class Worker:
    """One actor: opens studies when it first sees them, runs jobs on one thread.

    No job is run again by Ray: it would wait for the actor to come back, where another actor is free.

    Args:
        device: Where it computes.
        share: Share of a GPU's memory that it may take.
    """

    def __init__(self, device: str, share: float) -> None:
        prepare_process()
        notices.mute()  # the driver opens the same photographs
        if device == "cuda" and share < 1:
            # Ray counts shares of a GPU and leaves it at that.
            torch.cuda.set_per_process_memory_fraction(share)
        self._device = device
        self._workspaces: dict[str, Workspace] = {}

    def where(self) -> WorkerLocation:
        """Returns where the actor runs, once it is up."""
        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        context = ray.get_runtime_context()
        return WorkerLocation(os.getpid(), context.get_node_id(), address)

    @ray.method(max_task_retries=0)
    def run(self, job: Job, shared: Shared) -> Any:
        """Runs one job."""
        return self._result(job, shared)

    @ray.method(num_returns=2, max_task_retries=0)
    def keep(self, job: Job, shared: Shared) -> tuple[TaskMetrics, TaskGradients]:
        """Runs one job that returns task gradients; as two results, so that the gradients stay where they are."""
        found: TaskGradients = self._result(job, shared)
        return found.figures, found

    @ray.method(max_task_retries=0)
    def weighted(self, found: TaskGradients, factors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sums the gradients of one shard."""
        return found.weighted(factors)

    @ray.method(max_task_retries=0)
    def add(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
        """Adds the sums of two groups of shards."""
        return left + right

    def _result(self, job: Job, shared: Shared) -> Any:
        # Ray hands out read-only memory, which torch does not want to compute with.
        return job.run(self._workspace(shared), torch.from_numpy(shared.flat.copy()))

    def _workspace(self, shared: Shared) -> Workspace:
        if shared.key not in self._workspaces:
            while len(self._workspaces) >= _CACHED_WORKSPACES:
                self._workspaces.pop(next(iter(self._workspaces)))
            self._workspaces[shared.key] = Workspace(pickle.loads(shared.study), self._device)
        return self._workspaces[shared.key]
