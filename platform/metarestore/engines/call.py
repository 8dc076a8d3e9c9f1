"""One call of the Ray engine: jobs go out to free actors, results come back in the order of the jobs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, ObjectLostError, RayActorError, RayTaskError

from metarestore.engines.engine import Receive
from metarestore.engines.heartbeat import Heartbeat
from metarestore.engines.pool import START_SECONDS, TICK, Member, Pool
from metarestore.errors import UserError


@dataclass(frozen=True)
class _Flight:
    """A job on its way."""

    position: int
    member: Member
    since: float


class Call:
    """Runs jobs on a pool, one at a time on each actor, so that no queue grows anywhere.

    Args:
        pool: The actors; it may grow and shrink during the call.
        send: Sends the job at a position to a member of the pool.
        count: Number of jobs.
        kind: Of what kind they are, all alike.
        heartbeat: Is told how long jobs take.
        receive: Is given each result as soon as it is there; none is kept then.
    """

    def __init__(
        self,
        pool: Pool,
        send: Callable[[Member, int], ray.ObjectRef[Any]],
        count: int,
        kind: str,
        heartbeat: Heartbeat,
        receive: Receive | None = None,
    ) -> None:
        self._pool, self._send, self._kind, self._heartbeat = pool, send, kind, heartbeat
        self._results: list[Any] = [None] * count
        self._receive = receive or self._results.__setitem__
        self._waiting = deque(range(count))
        self._flying: dict[ray.ObjectRef[Any], _Flight] = {}
        self._idle = deque(pool.up)
        self._last = time.monotonic()

    def results(self) -> list[Any]:
        """Returns the results in the order of the jobs.

        Raises:
            UserError: A job found a mistake of the user's, or no actor is left.
        """
        self._look_around()
        while self._waiting or self._flying:
            while self._waiting and self._idle:
                self._give(self._waiting.popleft(), self._idle.popleft())
            references = [*self._flying, *self._pool.coming]
            if not references:
                raise UserError("all Ray workers are lost; look at the cluster, then continue with --resume")
            done, _ = ray.wait(references, num_returns=1, timeout=TICK)
            for reference in done:
                self._take(reference)
            if not done:
                self._look_around()
        return self._results

    def _give(self, position: int, member: Member) -> None:
        self._flying[self._send(member, position)] = _Flight(position, member, time.monotonic())

    def _take(self, reference: ray.ObjectRef[Any]) -> None:
        self._last = time.monotonic()
        if reference in self._pool.coming:
            member = self._pool.arrived(reference)
            if member is not None:
                self._idle.append(member)
            return
        flight = self._flying.pop(reference)
        try:
            result = ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from error
            raise
        except ObjectLostError:
            # The machine left with the result on it.
            self._waiting.appendleft(flight.position)
        except ActorUnavailableError:
            self._waiting.appendleft(flight.position)
            self._pool.ask(flight.member)
            return
        except RayActorError:
            # Its restarts are used up: the others take over.
            self._waiting.appendleft(flight.position)
            self._pool.forget(flight.member)
            return
        self._heartbeat.finished(self._kind, flight.position, time.monotonic() - flight.since)
        self._receive(flight.position, result)
        self._idle.append(flight.member)

    def _look_around(self) -> None:
        """Gives the jobs of machines that are gone to others, and tells of jobs that take unusually long."""
        now = time.monotonic()
        lost = self._pool.reread()
        if lost:
            self._idle = deque(member for member in self._idle if member not in lost)
            for reference in [ref for ref, flight in self._flying.items() if flight.member in lost]:
                self._waiting.appendleft(self._flying.pop(reference).position)
        for flight in self._flying.values():
            self._tell_if_slow(flight, now)
        if not self._flying and now - self._last > START_SECONDS:
            raise UserError(
                f"no Ray worker came back within {START_SECONDS} s; look at the cluster, then continue with --resume"
            )

    def _tell_if_slow(self, flight: _Flight, now: float) -> None:
        what = f"{flight.member}: shard {flight.position + 1} of {len(self._results)}"
        self._heartbeat.waiting(self._kind, flight.position, now - flight.since, what)


def fetched(reference: ray.ObjectRef[Any], members: Collection[Member], pool: Pool, heartbeat: Heartbeat) -> Any | None:
    """Waits for what members of a pool compute from one another's results; returns None once some of it is lost.

    Args:
        reference: The last of what they compute.
        members: All that take part. One that has left may never come back, and then nobody would report it.
        pool: The pool.
        heartbeat: Is told how long it takes.
    """
    since = time.monotonic()
    while all(member in pool.up for member in members):
        done, _ = ray.wait([reference], timeout=TICK)
        seconds = time.monotonic() - since
        if done:
            heartbeat.finished("sum", 0, seconds)
            return _unless_lost(reference)
        pool.reread()
        heartbeat.waiting("sum", 0, seconds, "the sum of the gradients")
    return None


def _unless_lost(reference: ray.ObjectRef[Any]) -> Any | None:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        # An actor that was given what is lost reports that as an error of its own.
        if isinstance(error.cause, (ObjectLostError, RayActorError)):
            return None
        raise
    except (ObjectLostError, RayActorError):
        return None
