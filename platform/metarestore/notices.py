"""What a user should know although the work goes on: one line on stderr, once per process."""

from __future__ import annotations

import logging

_log = logging.getLogger("metarestore")
_given: set[str] = set()


def notice(text: str) -> None:
    """Reports something in one line, unless this process has reported it before.

    The line goes to the logger `metarestore` as a warning, so that programs can redirect it.
    """
    if text not in _given:
        _given.add(text)
        _log.warning("%s", text)


def mute() -> None:
    """Leaves notices out in this process: a worker would repeat those of its driver."""
    _log.setLevel(logging.ERROR)
