"""Says which worker a step waits for, if it waits unusually long."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Callable

_PATIENCE = 10.0
"""Seconds that a job may take before anyone is told."""
_FACTOR = 5.0
"""Times the usual duration that a job may take before anyone is told."""
_MEMORY = 64
"""Durations that tell what is usual."""


class Heartbeat:
    """Knows how long jobs take, and names those that take much longer.

    Args:
        tell: Is given a line for the user.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._usual: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_MEMORY))
        self._silent_until: dict[int, float] = {}

    def finished(self, kind: str, job: int, seconds: float) -> None:
        """Is told how long a job took; a gradient is compared with gradients, an adaptation with adaptations."""
        self._usual[kind].append(seconds)
        self._silent_until.pop(job, None)

    def waiting(self, kind: str, job: int, seconds: float, what: str) -> None:
        """Is told that a job has been running for `seconds`; says so rarely, and ever more rarely.

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
        self._tell(f"waiting {seconds:.0f} s for {what}, usually {usual:.1f} s")
