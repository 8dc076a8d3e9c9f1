"""The engine that computes on Ray actors. With `cluster`, `pool`, `call` and `worker` the only one that imports ray."""

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

from metarestore.config.experiment import RayEngine as RaySpec
from metarestore.engines.call import Call, fetched
from metarestore.engines.cluster import alive_nodes, connect, worker_count
from metarestore.engines.heartbeat import Heartbeat
from metarestore.engines.pool import Member, Pool
from metarestore.engines.reduction import Reduced, Weigh, reduced, split, tree_sum
from metarestore.engines.worker import Shared
from metarestore.errors import UserError
from metarestore.learners.gradients import TaskMetrics, joined
from metarestore.learners.process import prepare_process
from metarestore.learners.study import Study
from metarestore.learners.workspace import Job

_SMALL = 65_536
"""Bytes of parameters below which each job carries them itself."""

_ATTEMPTS = 5
"""How often a step is begun because workers were lost while gradients were summed."""


@dataclass(frozen=True)
class Summand:
    """Gradients of a shard, or the sum of some, that lie where an actor computed them.

    Attributes:
        worker: Whose actor computed them.
        value: Reference to them.
    """

    worker: Member
    value: ray.ObjectRef[Any]

    def weighted(self, factors: NDArray[np.float32]) -> Summand:
        """Has the actor sum the gradients of its shard."""
        return Summand(self.worker, self.worker.actor.weighted.remote(self.value, factors))

    def add(self, other: Summand) -> Summand:
        """Has the actor add the other's sum, which goes from machine to machine and not through the driver."""
        return Summand(self.worker, self.worker.actor.add.remote(self.value, other.value))


@dataclass(frozen=True)
class RaySession:
    """Distributes jobs over the engine's actors."""

    engine: RayEngine
    key: str
    study: bytes

    def map(self, jobs: Sequence[Job], flat: Tensor) -> list[Any]:
        """Runs jobs on whichever actor is free and returns the results in the order of the jobs.

        A job whose actor dies is run again, on the restarted actor or on another: jobs are pure, so nothing changes.

        Raises:
            UserError: A job found a mistake of the user's, or no actor is left.
        """
        shared = self._put(flat)

        def send(worker: Member, position: int) -> ray.ObjectRef[Any]:
            reference: ray.ObjectRef[Any] = worker.actor.run.remote(jobs[position], shared)
            return reference

        return self._call(send, jobs)

    def reduce(self, jobs: Sequence[Job], flat: Tensor, weigh: Weigh) -> Reduced:
        """Runs jobs that return task gradients and sums them, here or among the actors, to the same bytes.

        Raises:
            UserError: A job found a mistake of the user's, or no actor is left.
        """
        if self.engine.reduction == "driver":
            return reduced(self.map(jobs, flat), weigh)
        for _ in range(_ATTEMPTS):
            found = self._reduced_by_actors(jobs, self._put(flat), weigh)
            if found is not None:
                return found
        raise UserError(
            f"workers were lost during {_ATTEMPTS} attempts at one step; look at the cluster, "
            "then continue with --resume"
        )

    def _reduced_by_actors(
        self, jobs: Sequence[Job], shared: Shared | ray.ObjectRef[Shared], weigh: Weigh
    ) -> Reduced | None:
        """Sums gradients where they were computed; returns None if some of them were lost."""
        kept: dict[int, Summand] = {}

        def send(worker: Member, position: int) -> ray.ObjectRef[Any]:
            told: ray.ObjectRef[TaskMetrics]
            told, gradients = worker.actor.keep.remote(jobs[position], shared)
            kept[position] = Summand(worker, gradients)
            return told

        figures: list[TaskMetrics] = self._call(send, jobs)
        whole = joined(figures)
        factors = split(weigh(whole), figures)
        members = {summand.worker for summand in kept.values()}
        # Gradients are given up here, so that the machines let go of them as soon as they are summed.
        total = tree_sum([kept.pop(position).weighted(some) for position, some in enumerate(factors)], Summand.add)
        gradient = fetched(total.value, members, self.engine.pool, self.engine.heartbeat)
        # Ray hands out read-only memory, and keeps it for as long as it is looked at.
        return None if gradient is None else Reduced(whole, np.array(gradient))

    def _put(self, flat: Tensor) -> Shared | ray.ObjectRef[Shared]:
        shared = Shared(self.key, self.study, flat.detach().cpu().numpy())
        # A small network travels with each job in less time than the object store takes to hand it out.
        return shared if shared.flat.nbytes < _SMALL else ray.put(shared)

    def _call(self, send: Callable[[Member, int], ray.ObjectRef[Any]], jobs: Sequence[Job]) -> list[Any]:
        kind = type(jobs[0]).__name__ if jobs else ""
        return Call(self.engine.pool, send, len(jobs), kind, self.engine.heartbeat).results()


class RayEngine:
    """Computes on Ray actors of one thread each; lost actors restart, and their jobs are run again.

    Args:
        spec: The engine section of an experiment.
        tell: Is given a line for the user when a step waits unusually long for one worker.

    Raises:
        UserError: No cluster answers at the address, or it has no room for one worker.
    """

    def __init__(self, spec: RaySpec, tell: Callable[[str], None] = lambda line: None) -> None:
        self.heartbeat = Heartbeat(tell)
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
        """The actors that are up."""
        return [member.actor for member in self.pool.up]

    def session(self, study: Study) -> RaySession:
        """Returns a session; actors open the study when they get their first job."""
        # What the driver itself computes, it computes as the workers do, and it leaves them the cores.
        prepare_process()
        return RaySession(self, study.key, pickle.dumps(study))

    def describe(self) -> str:
        """Says what computes."""
        nodes = len(alive_nodes())
        return f"{len(self.workers)} Ray workers on {nodes} node{'s' if nodes > 1 else ''}, 1 thread each"

    def process_ids(self) -> list[int]:
        """Returns the process ids of the actors."""
        return [found.process for found in ray.get([actor.location.remote() for actor in self.workers])]

    def close(self) -> None:
        """Ends the actors, and the cluster if it was started here."""
        self.pool.close()
        if self._owns_cluster:
            ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
