"""The engine that computes on Ray actors. This is the only module that imports ray for training."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from torch import Tensor

from metarestore.config.experiment import RayEngine as RaySpec
from metarestore.errors import UserError
from metarestore.learners.workspace import Job, Study, Workspace, single_thread

_START_SECONDS = 120
"""How long workers may take to start: they import torch, and a cluster may have to make room."""

_REMEDY = "start one with `ray start --head`, or leave the address out"

_CACHED_WORKSPACES = 4
"""Arms of a study take turns, so a worker keeps the last few workspaces open."""


class _Worker:
    """One actor: opens studies when it first sees them, runs jobs on one thread."""

    def __init__(self, device: str) -> None:
        single_thread()
        self._device = device
        self._workspaces: dict[str, Workspace] = {}

    def ready(self) -> int:
        """Returns the process id once the actor is up."""
        return os.getpid()

    def run(self, key: str, study: list[ray.ObjectRef[Study]], job: Job, flat: Tensor) -> Any:
        """Runs one job. The study travels as a reference in a list, fetched only if it is not open yet."""
        if key not in self._workspaces:
            while len(self._workspaces) >= _CACHED_WORKSPACES:
                self._workspaces.pop(next(iter(self._workspaces)))
            self._workspaces[key] = Workspace(ray.get(study[0]), self._device)
        # Ray hands out read-only memory; torch wants to own what it computes with.
        return job.run(self._workspaces[key], flat.clone())


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
        results: list[Any] = [None] * len(jobs)
        waiting = deque(range(len(jobs)))
        running: dict[ray.ObjectRef[Any], tuple[int, Any]] = {}
        idle = deque(self.engine.workers)
        while waiting or running:
            while waiting and idle:
                position, worker = waiting.popleft(), idle.popleft()
                reference = worker.run.remote(self.key, [self.study], jobs[position], parameters)
                running[reference] = (position, worker)
            if not running:
                raise UserError("all Ray workers are lost; look at the cluster, then continue with --resume")
            done, _ = ray.wait(list(running), num_returns=1)
            position, worker = running.pop(done[0])
            try:
                results[position] = ray.get(done[0])
                idle.append(worker)
            except RayTaskError as error:
                if isinstance(error.cause, UserError):
                    raise error.cause from error
                raise
            except RayActorError:
                # Its restarts are used up: the others take over.
                self.engine.forget(worker)
                waiting.appendleft(position)
        return results


class RayEngine:
    """Computes on Ray actors of one thread each; lost actors restart, and their jobs are run again.

    Args:
        spec: The engine section of an experiment.

    Raises:
        UserError: No cluster answers at the address, or it has no room for one worker.
    """

    def __init__(self, spec: RaySpec) -> None:
        self.workers: list[Any] = []
        self._owns_cluster = not ray.is_initialized()
        try:
            if self._owns_cluster:
                _connect(spec)
            self.workers = [_start_worker(spec) for _ in range(_worker_count(spec))]
            ray.get([worker.ready.remote() for worker in self.workers], timeout=_START_SECONDS)
        except GetTimeoutError as error:
            self.close()
            raise UserError(
                f"engine.workers: {spec.workers} workers did not start within {_START_SECONDS} s; "
                "the cluster may be busy: lower engine.workers, or try again later"
            ) from error
        except UserError:
            self.close()
            raise

    def session(self, study: Study) -> RaySession:
        """Puts the study into the object store; actors open it when they get their first job."""
        # What the driver itself computes, it computes as the workers do, and it leaves them the cores.
        single_thread()
        return RaySession(self, study.key, ray.put(study))

    def describe(self) -> str:
        """Says what computes."""
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]
        return f"{len(self.workers)} Ray workers on {nodes} node{'s' if nodes > 1 else ''}, 1 thread each"

    def process_ids(self) -> list[int]:
        """Returns the process ids of the actors."""
        return [int(pid) for pid in ray.get([worker.ready.remote() for worker in self.workers])]

    def forget(self, worker: Any) -> None:
        """Drops an actor that does not come back."""
        self.workers = [other for other in self.workers if other is not worker]

    def close(self) -> None:
        """Ends the actors, and the cluster if it was started here."""
        for worker in self.workers:
            ray.kill(worker)
        self.workers = []
        if self._owns_cluster:
            ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _connect(spec: RaySpec) -> None:
    # Ray warns of a coming change for actors without GPUs unless this is set; ours see none either way.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    local = spec.address is None
    cores = os.cpu_count() or 1
    # A local cluster offers as many CPU slots as workers are asked for: tests run 3 one-thread workers on 2 cores.
    wanted = 0 if spec.workers == "auto" else math.ceil(spec.workers * spec.cpus_per_worker)
    if local and wanted > max(4 * cores, 4):
        raise UserError(
            f"engine.workers: {spec.workers} workers of {spec.cpus_per_worker:g} CPUs are too many for the {cores} "
            f"cores of this machine; write auto, or at most {max(4 * cores, 4)}"
        )
    if spec.address not in (None, "auto", "local"):
        _check_reachable(spec.address)
    try:
        ray.init(
            address="local" if local else spec.address,
            num_cpus=max(wanted, cores) if local else None,
            include_dashboard=False if local else None,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"engine.address: no Ray cluster answers at '{spec.address}' ({reason}); {_REMEDY}") from error


def _check_reachable(address: str | None) -> None:
    """Asks for a connection first, because Ray itself waits for minutes for a cluster that is not there."""
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"engine.address: '{address}' is not auto or host:port; {_REMEDY}")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(
            f"engine.address: no Ray cluster answers at '{address}' ({error.strerror}); {_REMEDY}"
        ) from error


def _worker_count(spec: RaySpec) -> int:
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    room = int(resources.get("CPU", 0) / spec.cpus_per_worker)
    if spec.gpus_per_worker:
        room = min(room, int(resources.get("GPU", 0) / spec.gpus_per_worker))
    count = room if spec.workers == "auto" else spec.workers
    if not 0 < count <= room:
        raise UserError(
            f"engine.workers: {spec.workers} workers of {spec.cpus_per_worker:g} CPUs and {spec.gpus_per_worker:g} "
            f"GPUs do not fit the cluster, which has room for {room}; lower engine.workers or the shares per worker"
        )
    return count


def _start_worker(spec: RaySpec) -> Any:
    actor = ray.remote(_Worker).options(
        num_cpus=spec.cpus_per_worker,
        num_gpus=spec.gpus_per_worker or None,
        max_restarts=spec.max_restarts,
        max_task_retries=spec.max_restarts,
    )
    return actor.remote("cuda" if spec.gpus_per_worker else "cpu")
