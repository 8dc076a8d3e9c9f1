"""Notices that do not stop the work: one line on stderr, once per process."""

from __future__ import annotations

import logging

_log = logging.getLogger("metarestore")
_given: set[str] = set()


def notice(text: str) -> None:
    """Logs a one-line notice, unless this process has logged it before.

    It is logged as a warning by the logger `metarestore`, so that programs can redirect it.
    """
    if text not in _given:
        _given.add(text)
        _log.warning("%s", text)


def mute() -> None:
    """Disables notices in this process: a worker would repeat those of its driver."""
    _log.setLevel(logging.ERROR)
