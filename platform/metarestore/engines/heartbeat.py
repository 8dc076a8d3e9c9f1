"""Reports the worker that a step waits for, if it waits unusually long."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Callable

_PATIENCE = 10.0
"""Minimum duration in seconds before a job is reported."""
_FACTOR = 5.0
"""Multiple of the median duration after which a job is reported."""
_MEMORY = 64
"""Number of recent durations in the median."""


class Heartbeat:
    """Tracks the durations of jobs, and reports jobs that take much longer than usual.

    Args:
        notify: Called with a message for the user.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._usual: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_MEMORY))
        self._silent_until: dict[int, float] = {}

    def finished(self, kind: str, job: int, seconds: float) -> None:
        """Records the duration of a job; durations are compared among jobs of the same kind."""
        self._usual[kind].append(seconds)
        self._silent_until.pop(job, None)

    def waiting(self, kind: str, job: int, seconds: float, description: str) -> None:
        """Reports that a job has been running for `seconds`, at exponentially increasing intervals.

        >>> heartbeat = Heartbeat(print)
        >>> heartbeat.finished("gradient", 0, 0.1)
        >>> for seconds in (5, 11, 15, 22, 25, 41):
        ...     heartbeat.waiting("gradient", 1, seconds, "worker 2 on 10.0.0.1: shard 2 of 2")
        waiting 11 s for worker 2 on 10.0.0.1: shard 2 of 2, usually 0.1 s
        waiting 22 s for worker 2 on 10.0.0.1: shard 2 of 2, usually 0.1 s
        """
        usual = statistics.median(self._usual[kind]) if self._usual[kind] else 0.0
        if not usual or seconds < self._silent_until.get(job, max(_PATIENCE, _FACTOR * usual)):
            return
        self._silent_until[job] = 2 * seconds
        self._notify(f"waiting {seconds:.0f} s for {description}, usually {usual:.1f} s")
