"""What a job on one photograph returns if it fails: the problems, so that the other photographs are processed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metarestore.errors import UserError, system_problem


@dataclass(frozen=True)
class Failed:
    """A photograph that could not be processed.

    Attributes:
        problems: The problems, one line each.
    """

    problems: tuple[str, ...]


def failed(path: Path, error: Exception) -> Failed:
    """Returns the problems of a photograph, or raises the error again if it is a bug.

    Args:
        path: The photograph.
        error: An error that a user can cause, or one of the system or of a library.
    """
    if isinstance(error, UserError):
        return Failed(error.problems)
    if isinstance(error, OSError | RuntimeError | MemoryError):
        return Failed((f"{path}: {system_problem(error)}",))
    raise error
