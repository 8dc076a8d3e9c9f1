"""The engine that computes on Ray actors. With `cluster`, `pool` and `call` the only module that imports ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import ray
from torch import Tensor

from metarestore.config.experiment import RayEngine as RaySpec
from metarestore.engines.call import Call
from metarestore.engines.cluster import alive_nodes, connect, worker_count
from metarestore.engines.heartbeat import Heartbeat
from metarestore.engines.pool import Pool
from metarestore.errors import UserError
from metarestore.learners.workspace import Job, Study, single_thread


@dataclass(frozen=True)
class RaySession:
    """Distributes jobs over the engine's actors."""

    engine: RayEngine
    key: str
    study: ray.ObjectRef[Study]

    def map(self, jobs: Sequence[Job], flat: Tensor) -> list[Any]:
        """Runs jobs on whichever actor is free and returns the results in the order of the jobs.

        A job whose actor dies is run again, on the restarted actor or on another: jobs are pure, so nothing changes.

        Raises:
            UserError: A job found a mistake of the user's, or no actor is left.
        """
        parameters = ray.put(flat.detach())

        def send(worker: Any, position: int) -> ray.ObjectRef[Any]:
            reference: ray.ObjectRef[Any] = worker.run.remote(self.key, [self.study], jobs[position], parameters)
            return reference

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
        """Puts the study into the object store; actors open it when they get their first job."""
        # What the driver itself computes, it computes as the workers do, and it leaves them the cores.
        single_thread()
        return RaySession(self, study.key, ray.put(study))

    def describe(self) -> str:
        """Says what computes."""
        nodes = len(alive_nodes())
        return f"{len(self.workers)} Ray workers on {nodes} node{'s' if nodes > 1 else ''}, 1 thread each"

    def process_ids(self) -> list[int]:
        """Returns the process ids of the actors."""
        return [found.process for found in ray.get([actor.where.remote() for actor in self.workers])]

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
