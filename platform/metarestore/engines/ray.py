"""The engine that runs jobs on Ray actors. Only `cluster`, `pool`, `call`, `worker` and this module import ray."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import ray
from numpy.typing import NDArray
from torch import Tensor

from metarestore.config.engine import RayEngineSpec
from metarestore.engines.call import Call, fetched
from metarestore.engines.cluster import alive_nodes, connect, worker_count
from metarestore.engines.engine import LoneJob, Receive
from metarestore.engines.heartbeat import Heartbeat
from metarestore.engines.pool import Member, Pool
from metarestore.engines.reduction import Reduced, Weigh, reduced, split, tree_sum
from metarestore.engines.worker import Shared
from metarestore.errors import UserError
from metarestore.learners.gradients import TaskMetrics, joined
from metarestore.workspace.job import Job
from metarestore.workspace.process import prepare_process
from metarestore.workspace.study import Study

_SMALL = 65_536
"""Size of the parameters in bytes below which they are sent with each job."""

_ATTEMPTS = 5
"""Maximum number of attempts at a step if workers are lost while gradients are summed."""


@dataclass(frozen=True)
class Summand:
    """The gradients of a shard, or the sum of several, in the memory of the actor that computed them.

    Attributes:
        worker: The actor that computed them.
        value: Reference to them.
    """

    worker: Member
    value: ray.ObjectRef[Any]

    def weighted(self, factors: NDArray[np.float32]) -> Summand:
        """Lets the actor compute the weighted sum of its shard's gradients."""
        return Summand(self.worker, self.worker.actor.weighted.remote(self.value, factors))

    def add(self, other: Summand) -> Summand:
        """Lets the actor add the other's sum, which is sent directly between machines and not through the driver."""
        return Summand(self.worker, self.worker.actor.add.remote(self.value, other.value))


@dataclass(frozen=True)
class RaySession:
    """Distributes jobs over the engine's actors."""

    engine: RayEngine
    key: str
    study: bytes

    def map(self, jobs: Sequence[Job], flat: Tensor) -> list[Any]:
        """Runs jobs on idle actors and returns the results in the order of the jobs.

        If an actor dies, its job is run again on another actor or the restarted one; jobs are pure, so the result is
        the same.

        Raises:
            UserError: A job raised a user error, or no actor is left.
        """
        shared = self._put(flat)

        def send(worker: Member, position: int) -> ray.ObjectRef[Any]:
            reference: ray.ObjectRef[Any] = worker.actor.run.remote(jobs[position], shared)
            return reference

        return self._call(send, jobs)

    def reduce(self, jobs: Sequence[Job], flat: Tensor, weigh: Weigh) -> Reduced:
        """Runs jobs that return task gradients and sums them, in the driver or on the actors, to the same bytes.

        Raises:
            UserError: A job raised a user error, or no actor is left.
        """
        if self.engine.reduction == "driver":
            return reduced(self.map(jobs, flat), weigh)
        for _ in range(_ATTEMPTS):
            result = self._reduced_by_actors(jobs, self._put(flat), weigh)
            if result is not None:
                return result
        raise UserError(
            f"workers were lost in {_ATTEMPTS} consecutive attempts at one step; check the cluster, "
            "then continue with --resume"
        )

    def _reduced_by_actors(
        self, jobs: Sequence[Job], shared: Shared | ray.ObjectRef[Shared], weigh: Weigh
    ) -> Reduced | None:
        """Sums gradients on the actors that computed them; returns None if some of them were lost."""
        kept: dict[int, Summand] = {}

        def send(worker: Member, position: int) -> ray.ObjectRef[Any]:
            metrics: ray.ObjectRef[TaskMetrics]
            metrics, gradients = worker.actor.keep.remote(jobs[position], shared)
            kept[position] = Summand(worker, gradients)
            return metrics

        shard_metrics: list[TaskMetrics] = self._call(send, jobs)
        metrics = joined(shard_metrics)
        factors = split(weigh(metrics), shard_metrics)
        members = {summand.worker for summand in kept.values()}
        # References are dropped here, so that machines free the gradients as soon as they are summed.
        total = tree_sum([kept.pop(position).weighted(some) for position, some in enumerate(factors)], Summand.add)
        gradient = fetched(total.value, members, self.engine.pool, self.engine.heartbeat)
        # Ray returns read-only memory and keeps it while it is referenced, so it is copied.
        return None if gradient is None else Reduced(metrics, np.array(gradient))

    def _put(self, flat: Tensor) -> Shared | ray.ObjectRef[Shared]:
        shared = Shared(self.key, self.study, flat.detach().cpu().numpy())
        # For a small network, sending the parameters with each job is faster than the object store.
        return shared if shared.flat.nbytes < _SMALL else ray.put(shared)

    def _call(self, send: Callable[[Member, int], ray.ObjectRef[Any]], jobs: Sequence[Job]) -> list[Any]:
        kind = type(jobs[0]).__name__ if jobs else ""
        return Call(self.engine.pool, send, len(jobs), kind, self.engine.heartbeat).results()


class RayEngine:
    """Runs jobs on Ray actors of one thread each; lost actors are restarted and their jobs run again.

    Args:
        spec: The engine section of an experiment.
        notify: Called with a message for the user when a step waits unusually long for one worker.

    Raises:
        UserError: No cluster responds at the address, or the workers do not fit it.
    """

    def __init__(self, spec: RayEngineSpec, notify: Callable[[str], None] = lambda line: None) -> None:
        self.heartbeat = Heartbeat(notify)
        self.pool = Pool(spec)
        self.reduction = spec.reduction
        self._owns_cluster = not ray.is_initialized()
        try:
            if self._owns_cluster:
                connect(spec)
            self.pool.start(worker_count(spec))
        except UserError:
            self.close()
            raise

    @property
    def workers(self) -> list[Any]:
        """The actors that are ready."""
        return [member.actor for member in self.pool.up]

    def session(self, study: Study) -> RaySession:
        """Returns a session; actors open the study when they receive their first job."""
        # The driver then computes exactly as the workers do, and leaves the cores to them.
        prepare_process()
        return RaySession(self, study.key, pickle.dumps(study))

    def each(self, jobs: Sequence[LoneJob], receive: Receive) -> None:
        """Runs jobs on idle actors; a job whose actor dies is run again.

        Raises:
            UserError: No actor is left.
        """
        kind = type(jobs[0]).__name__ if jobs else ""

        def send(worker: Member, position: int) -> ray.ObjectRef[Any]:
            reference: ray.ObjectRef[Any] = worker.actor.run_alone.remote(jobs[position])
            return reference

        Call(self.pool, send, len(jobs), kind, self.heartbeat, receive).results()

    def describe(self) -> str:
        """Returns a short description of the compute resources."""
        nodes = len(alive_nodes())
        return f"{len(self.workers)} Ray workers on {nodes} node{'s' if nodes > 1 else ''}, 1 thread each"

    def process_ids(self) -> list[int]:
        """Returns the process ids of the actors."""
        return [location.process for location in ray.get([actor.location.remote() for actor in self.workers])]

    def close(self) -> None:
        """Stops the actors, and the cluster if it was started by this engine."""
        self.pool.close()
        if self._owns_cluster:
            ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
