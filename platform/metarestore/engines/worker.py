"""The actor of the Ray engine."""

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
from metarestore.engines.engine import LoneJob
from metarestore.learners.gradients import TaskGradients, TaskMetrics
from metarestore.workspace.job import Job
from metarestore.workspace.process import prepare_process
from metarestore.workspace.workspace import Workspace

_CACHED_WORKSPACES = 4
"""Number of workspaces that a worker keeps open, since it may work on several arms of a study in turn."""


@dataclass(frozen=True)
class Shared:
    """The data that all jobs of a call share; if it is large, it is put into the object store once per call.

    It contains the study itself, about ten kilobytes, rather than a reference, which each worker would have to fetch,
    and again after each restart.

    Attributes:
        key: Hash of the study.
        study: The pickled study, which a worker only unpickles if it has no workspace for `key`.
        flat: Parameters, (P,).
    """

    key: str
    study: bytes
    flat: NDArray[np.float32]


class WorkerLocation(NamedTuple):
    """Process id, node id and address of an actor."""

    process: int
    node: str
    address: str


class Worker:
    """An actor that runs jobs on one thread, and opens studies on first use.

    Ray's own task retries are disabled: they would wait for the actor to restart although another actor may be idle.

    Args:
        device: Device of the network.
        share: Fraction of a GPU's memory that it may use.
    """

    def __init__(self, device: str, share: float) -> None:
        prepare_process()
        notices.mute()  # the driver opens the same photographs
        if device == "cuda" and share < 1:
            # Ray only counts fractions of a GPU and does not enforce them.
            torch.cuda.set_per_process_memory_fraction(share)
        self._device = device
        self._workspaces: dict[str, Workspace] = {}

    def location(self) -> WorkerLocation:
        """Returns the location of the actor, once it has started."""
        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        context = ray.get_runtime_context()
        return WorkerLocation(os.getpid(), context.get_node_id(), address)

    @ray.method(max_task_retries=0)
    def run(self, job: Job, shared: Shared) -> Any:
        """Runs one job."""
        return self._result(job, shared)

    @ray.method(max_task_retries=0)
    def run_alone(self, job: LoneJob) -> Any:
        """Runs one job that does not need a study."""
        return job.run(torch.device(self._device))

    @ray.method(num_returns=2, max_task_retries=0)
    def keep(self, job: Job, shared: Shared) -> tuple[TaskMetrics, TaskGradients]:
        """Runs one job that returns task gradients; returns two objects, so that the gradients stay on the actor."""
        gradients: TaskGradients = self._result(job, shared)
        return gradients.metrics, gradients

    @ray.method(max_task_retries=0)
    def weighted(self, gradients: TaskGradients, factors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Computes the weighted sum of one shard's gradients."""
        return gradients.weighted(factors)

    @ray.method(max_task_retries=0)
    def add(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
        """Adds the sums of two groups of shards."""
        return left + right

    def _result(self, job: Job, shared: Shared) -> Any:
        # Ray returns read-only memory, which torch does not support.
        return job.run(self._workspace(shared), torch.from_numpy(shared.flat.copy()))

    def _workspace(self, shared: Shared) -> Workspace:
        if shared.key not in self._workspaces:
            while len(self._workspaces) >= _CACHED_WORKSPACES:
                self._workspaces.pop(next(iter(self._workspaces)))
            self._workspaces[shared.key] = Workspace(pickle.loads(shared.study), self._device)
        return self._workspaces[shared.key]
