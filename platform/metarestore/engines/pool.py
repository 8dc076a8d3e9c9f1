"""The actors of the Ray engine: starts them, restarts lost ones, and adapts their number to the cluster."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from metarestore.config.engine import RayEngineSpec
from metarestore.engines.cluster import alive_nodes, capacity, reserved, usable_resources
from metarestore.engines.worker import Worker, WorkerLocation
from metarestore.errors import UserError

START_SECONDS = 120
"""Seconds that workers may take to start: they import torch, and the cluster may have to free resources."""

TICK = 1.0
"""Seconds without a result after which the cluster is checked."""

_REFRESH_SECONDS = 2.0
"""Minimum seconds between two queries for the nodes of the cluster."""


@dataclass(eq=False)
class Member:
    """An actor of the pool; `node` is the last known node."""

    actor: Any
    number: int
    node: str = ""
    address: str = ""

    def __str__(self) -> str:
        return f"worker {self.number} on {self.address}"


class Pool:
    """The actors of one engine.

    Args:
        spec: The engine section of an experiment.

    Attributes:
        up: Actors that are ready for jobs.
        pending: Actors that have not responded yet: new ones, and those whose machine was lost, which Ray restarts
            elsewhere if there are free resources.
    """

    def __init__(self, spec: RayEngineSpec) -> None:
        self._spec = spec
        self.up: list[Member] = []
        self.pending: dict[ray.ObjectRef[WorkerLocation], Member] = {}
        self._started = 0
        self._capacity = 0
        self._read_at = 0.0

    def start(self, count: int) -> None:
        """Starts actors and waits until they are ready.

        Raises:
            UserError: They do not start in time.
        """
        self._capacity = capacity(self._spec, usable_resources(alive_nodes()))
        self._add(count)
        waiting = list(self.pending)
        try:
            ray.get(waiting, timeout=START_SECONDS)
        except GetTimeoutError as error:
            raise UserError(
                f"engine.workers: {self._spec.workers} workers did not start within {START_SECONDS} s; "
                "the cluster may be busy: lower engine.workers, or try again later"
            ) from error
        for reference in waiting:
            self.ready(reference)

    def ready(self, reference: ray.ObjectRef[WorkerLocation]) -> Member | None:
        """Adds an actor that has responded; returns None if it is permanently lost."""
        member = self.pending.pop(reference)
        try:
            location = ray.get(reference)
        except RayActorError:
            return None
        member.node, member.address = location.node, location.address
        self.up.append(member)
        return member

    def remove(self, member: Member) -> None:
        """Removes an actor whose restarts are used up."""
        self.up.remove(member)

    def suspend(self, member: Member) -> None:
        """Marks an actor that does not respond as pending, until it responds again."""
        self.up.remove(member)
        self.pending[member.actor.location.remote()] = member

    def refresh(self) -> list[Member]:
        """Queries the cluster at most every few seconds: starts actors on new nodes, returns actors of lost nodes."""
        if time.monotonic() - self._read_at < _REFRESH_SECONDS:
            return []
        self._read_at = time.monotonic()
        nodes = alive_nodes()
        available, before = capacity(self._spec, usable_resources(nodes)), self._capacity
        self._capacity = available
        if available > before:
            count = available if self._spec.workers == "auto" else min(self._spec.workers, available)
            self._add(count - len(self.up) - len(self.pending))
        lost = [member for member in self.up if member.node not in nodes]
        for member in lost:
            self.suspend(member)
        return lost

    def close(self) -> None:
        """Stops all actors."""
        for member in [*self.up, *self.pending.values()]:
            ray.kill(member.actor)
        self.up, self.pending = [], {}

    def _add(self, count: int) -> None:
        spec = self._spec
        actor_class: Any = ray.remote(Worker).options(
            num_cpus=spec.cpus_per_worker,
            num_gpus=spec.gpus_per_worker or None,
            max_restarts=spec.max_restarts,
            max_task_retries=spec.max_restarts,
            # An actor that waits for the sum of a lost actor must not block the following jobs.
            allow_out_of_order_execution=True,
            scheduling_strategy=_strategy(spec),
        )
        for _ in range(count):
            self._started += 1
            actor = actor_class.remote("cuda" if spec.gpus_per_worker else "cpu", spec.gpus_per_worker)
            self.pending[actor.location.remote()] = Member(actor, self._started)


def _strategy(spec: RayEngineSpec) -> str | None:
    """Returns Ray's scheduling strategy; any explicit strategy would ignore resources reserved for this process."""
    if reserved() is not None:
        return None
    return "SPREAD" if spec.placement == "spread" else "DEFAULT"
