"""The actors of the Ray engine: those that are up, those on their way, and how their number follows the cluster."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from metarestore.config.experiment import RayEngine as RaySpec
from metarestore.engines.cluster import alive_nodes, open_places, reserved, room
from metarestore.engines.worker import Worker, WorkerLocation
from metarestore.errors import UserError

START_SECONDS = 120
"""How long workers may take to start: they import torch, and a cluster may have to make room."""

TICK = 1.0
"""Seconds without a result after which the cluster is looked at."""

_REREAD_SECONDS = 2.0
"""How often the cluster is asked for its machines."""


@dataclass(eq=False)
class Member:
    """An actor of the pool; `node` is where it was last seen."""

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
        up: Actors that can be given jobs.
        coming: Actors that were asked whether they are up: new ones, and those whose machine is gone, which Ray starts
            again elsewhere if there is room.
    """

    def __init__(self, spec: RaySpec) -> None:
        self._spec = spec
        self.up: list[Member] = []
        self.coming: dict[ray.ObjectRef[WorkerLocation], Member] = {}
        self._started = 0
        self._room = 0
        self._read_at = 0.0

    def start(self, count: int) -> None:
        """Starts actors and waits until they are up.

        Raises:
            UserError: They do not come up in time.
        """
        self._room = room(self._spec, open_places(alive_nodes()))
        self._add(count)
        waiting = list(self.coming)
        try:
            ray.get(waiting, timeout=START_SECONDS)
        except GetTimeoutError as error:
            raise UserError(
                f"engine.workers: {self._spec.workers} workers did not start within {START_SECONDS} s; "
                "the cluster may be busy: lower engine.workers, or try again later"
            ) from error
        for reference in waiting:
            self.arrived(reference)

    def arrived(self, reference: ray.ObjectRef[WorkerLocation]) -> Member | None:
        """Takes up an actor that has answered; returns None if it is lost for good."""
        member = self.coming.pop(reference)
        try:
            found = ray.get(reference)
        except RayActorError:
            return None
        member.node, member.address = found.node, found.address
        self.up.append(member)
        return member

    def forget(self, member: Member) -> None:
        """Drops an actor whose restarts are used up."""
        self.up.remove(member)

    def ask(self, member: Member) -> None:
        """Waits for an actor that does not answer at present; it counts again once it does."""
        self.up.remove(member)
        self.coming[member.actor.location.remote()] = member

    def reread(self) -> list[Member]:
        """Looks at the cluster, not too often: fills machines that joined, returns actors whose machine is gone."""
        if time.monotonic() - self._read_at < _REREAD_SECONDS:
            return []
        self._read_at = time.monotonic()
        nodes = alive_nodes()
        places, before = room(self._spec, open_places(nodes)), self._room
        self._room = places
        if places > before:
            wanted = places if self._spec.workers == "auto" else min(self._spec.workers, places)
            self._add(wanted - len(self.up) - len(self.coming))
        lost = [member for member in self.up if member.node not in nodes]
        for member in lost:
            self.ask(member)
        return lost

    def close(self) -> None:
        """Ends all actors."""
        for member in [*self.up, *self.coming.values()]:
            ray.kill(member.actor)
        self.up, self.coming = [], {}

    def _add(self, count: int) -> None:
        spec = self._spec
        actor_class: Any = ray.remote(Worker).options(
            num_cpus=spec.cpus_per_worker,
            num_gpus=spec.gpus_per_worker or None,
            max_restarts=spec.max_restarts,
            max_task_retries=spec.max_restarts,
            # An actor that waits for the sum of one that is gone must not keep the next jobs waiting.
            allow_out_of_order_execution=True,
            scheduling_strategy=_strategy(spec),
        )
        for _ in range(count):
            self._started += 1
            actor = actor_class.remote("cuda" if spec.gpus_per_worker else "cpu", spec.gpus_per_worker)
            self.coming[actor.location.remote()] = Member(actor, self._started)


def _strategy(spec: RaySpec) -> str | None:
    """Returns how Ray places actors; any strategy that is named would take them out of what is reserved for them."""
    if reserved() is not None:
        return None
    return "SPREAD" if spec.placement == "spread" else "DEFAULT"
