"""Stops a training between two steps, so that the saved state is always that after a complete step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Interrupted(Exception):  # noqa: N818
    """The user asked to stop; the state up to `step` is saved."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"stopped after step {step}")


@dataclass
class Stop:
    """Whether the user has asked to stop."""

    requested: bool = False


@contextmanager
def graceful_stop() -> Iterator[Stop]:
    """Turns the first Ctrl-C (or SIGTERM) into a request to stop after the current step; a second stops immediately."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(signum: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    before = {signum: signal.signal(signum, request) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
