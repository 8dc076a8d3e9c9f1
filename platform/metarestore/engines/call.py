"""One call of the Ray engine: dispatches jobs to idle actors and collects results in the order of the jobs."""

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
class _RunningJob:
    """A job that is running on an actor."""

    position: int
    member: Member
    since: float


class Call:
    """Runs jobs on a pool, one at a time on each actor, so that actors never queue jobs.

    Args:
        pool: The actors; it may grow and shrink during the call.
        send: Sends the job with the given index to a member of the pool.
        count: Number of jobs.
        kind: Kind of the jobs, the same for all.
        heartbeat: Receives the durations of jobs.
        receive: Called with each result as soon as it arrives; results are not collected then.
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
        self._running: dict[ray.ObjectRef[Any], _RunningJob] = {}
        self._idle = deque(pool.up)
        self._last = time.monotonic()

    def results(self) -> list[Any]:
        """Returns the results in the order of the jobs.

        Raises:
            UserError: A job raised a user error, or no actor is left.
        """
        self._check_cluster()
        while self._waiting or self._running:
            while self._waiting and self._idle:
                self._dispatch(self._waiting.popleft(), self._idle.popleft())
            references = [*self._running, *self._pool.pending]
            if not references:
                raise UserError("all Ray workers are lost; check the cluster, then continue with --resume")
            done, _ = ray.wait(references, num_returns=1, timeout=TICK)
            for reference in done:
                self._collect(reference)
            if not done:
                self._check_cluster()
        return self._results

    def _dispatch(self, position: int, member: Member) -> None:
        self._running[self._send(member, position)] = _RunningJob(position, member, time.monotonic())

    def _collect(self, reference: ray.ObjectRef[Any]) -> None:
        self._last = time.monotonic()
        if reference in self._pool.pending:
            member = self._pool.ready(reference)
            if member is not None:
                self._idle.append(member)
            return
        job = self._running.pop(reference)
        try:
            result = ray.get(reference)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from error
            raise
        except ObjectLostError:
            # The machine that stored the result left the cluster.
            self._waiting.appendleft(job.position)
        except ActorUnavailableError:
            self._waiting.appendleft(job.position)
            self._pool.suspend(job.member)
            return
        except RayActorError:
            # Its restarts are used up: other actors run its jobs.
            self._waiting.appendleft(job.position)
            self._pool.remove(job.member)
            return
        self._heartbeat.finished(self._kind, job.position, time.monotonic() - job.since)
        self._receive(job.position, result)
        self._idle.append(job.member)

    def _check_cluster(self) -> None:
        """Reschedules the jobs of lost machines, and reports jobs that take unusually long."""
        now = time.monotonic()
        lost = self._pool.refresh()
        if lost:
            self._idle = deque(member for member in self._idle if member not in lost)
            for reference in [ref for ref, job in self._running.items() if job.member in lost]:
                self._waiting.appendleft(self._running.pop(reference).position)
        for job in self._running.values():
            self._report_if_slow(job, now)
        if not self._running and now - self._last > START_SECONDS:
            raise UserError(
                f"no Ray worker restarted within {START_SECONDS} s; check the cluster, then continue with --resume"
            )

    def _report_if_slow(self, job: _RunningJob, now: float) -> None:
        description = f"{job.member}: shard {job.position + 1} of {len(self._results)}"
        self._heartbeat.waiting(self._kind, job.position, now - job.since, description)


def fetched(reference: ray.ObjectRef[Any], members: Collection[Member], pool: Pool, heartbeat: Heartbeat) -> Any | None:
    """Waits for a result that several members of a pool compute together; returns None if a part of it is lost.

    Args:
        reference: The final result.
        members: All members that take part. If one has left the cluster, Ray may never report the loss.
        pool: The pool.
        heartbeat: Receives the duration.
    """
    since = time.monotonic()
    while all(member in pool.up for member in members):
        done, _ = ray.wait([reference], timeout=TICK)
        seconds = time.monotonic() - since
        if done:
            heartbeat.finished("sum", 0, seconds)
            return _unless_lost(reference)
        pool.refresh()
        heartbeat.waiting("sum", 0, seconds, "the sum of the gradients")
    return None


def _unless_lost(reference: ray.ObjectRef[Any]) -> Any | None:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        # An actor whose input is lost reports that as an error of its own.
        if isinstance(error.cause, (ObjectLostError, RayActorError)):
            return None
        raise
    except (ObjectLostError, RayActorError):
        return None
