"""Errors that a user can cause: one line each, with the location, what was given, and what to do."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

SYSTEM_ERRORS = (OSError, RuntimeError, MemoryError)
"""Errors of the operating system and of libraries whose cause is outside metarestore."""


_LIBRARY_ERRORS = {
    "grpc": "RpcError",
    "mlflow.exceptions": "MlflowException",
    "ray.exceptions": "RayError",
    "ray.tune.error": "TuneError",
    "sqlalchemy.exc": "SQLAlchemyError",
}
"""What libraries raise that is none of these, by the module that defines it."""


def outside_errors() -> tuple[type[Exception], ...]:
    """Returns `SYSTEM_ERRORS` and the errors of the libraries that are loaded; none is imported for it."""
    loaded = {module: name for module, name in _LIBRARY_ERRORS.items() if module in sys.modules}
    return (*SYSTEM_ERRORS, *(getattr(sys.modules[module], name) for module, name in loaded.items()))


def is_outside(error: Exception) -> bool:
    """Tells whether an error comes from outside of metarestore; one of a Ray worker is what was raised there."""
    cause = getattr(error, "cause", None)
    return isinstance(error, outside_errors()) and (not isinstance(cause, Exception) or is_outside(cause))


class UserError(Exception):
    """A mistake in user input; the command line prints it without a traceback and exits with code 2.

    Args:
        problems: One line, or several if several problems are reported together.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


_REMEDIES = {
    errno.EACCES: "check the permissions",
    errno.EDQUOT: "make room, then repeat the command",
    errno.ELOOP: "its symbolic links form a loop; remove one of them",
    errno.EMFILE: "raise the limit (ulimit -n 65536), then repeat the command",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ENFILE: "end other programs, then repeat the command",
    errno.ENOENT: "check the path",
    errno.ENOMEM: "lower training.tasks_per_step or the patch size, or use a machine with more memory",
    errno.ENOSPC: "make room, then repeat the command",
    errno.EPERM: "check the permissions",
    errno.EROFS: "choose a folder that can be written",
}
_WORDS = (
    ("Symlink loop from", "its symbolic links form a loop; remove one of them"),
    ("AF_UNIX path", "set RAY_TMPDIR to a folder with a short path, e.g. export RAY_TMPDIR=/tmp"),
    ("database is locked", "end the other program that writes to it, then repeat the command"),
    ("database or disk is full", _REMEDIES[errno.ENOSPC]),
    ("start new thread", "raise the limit on processes (ulimit -u), or start fewer workers"),
    ("out of memory", _REMEDIES[errno.ENOMEM]),
    ("not enough memory", _REMEDIES[errno.ENOMEM]),
    ("allocate memory", _REMEDIES[errno.ENOMEM]),
)
"""Known messages of libraries, and their remedies."""


def remedy(error: OSError, otherwise: str) -> str:
    """Returns the remedy for a system error, or `otherwise` if no specific one is known.

    >>> remedy(OSError(errno.ELOOP, "Too many levels of symbolic links"), "check the path")
    'its symbolic links form a loop; remove one of them'
    """
    special = {errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT}
    return _REMEDIES[error.errno] if error.errno in special else otherwise


def system_problem(error: Exception) -> str:
    """Returns one line for an error from outside of metarestore: where, what, and what to do.

    >>> system_problem(OSError(errno.ENOSPC, "No space left on device", "runs/a/state.json"))
    'runs/a/state.json: No space left on device; make room, then repeat the command'
    """
    message = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    advice = next((advice for words, advice in _WORDS if words in message), "")
    if isinstance(error, OSError) and error.strerror:
        paths = [os.fsdecode(path) for path in (error.filename, error.filename2) if isinstance(path, str | bytes)]
        message = f"{' -> '.join(paths)}: {error.strerror}" if paths else error.strerror
        advice = advice or _REMEDIES.get(error.errno or 0, "")
    elif isinstance(error, MemoryError):
        message, advice = message or "not enough memory", _REMEDIES[errno.ENOMEM]
    elif not advice:
        message = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return f"{message}; {advice or 'for the traceback, repeat the command with --debug'}"
