"""The state of the code and the files around a run: the commit of the git repository that they are in."""

from __future__ import annotations

import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_PATIENCE = 5.0
"""Seconds that git may take; a run does not wait longer for a note."""


@dataclass(frozen=True)
class Revision:
    """A commit.

    Attributes:
        commit: Its 40 hex digits.
        dirty: Whether a file that git knows was changed since.
    """

    commit: str
    dirty: bool

    def to_json(self) -> dict[str, Any]:
        """Returns JSON-able data."""
        return asdict(self)


def revision(*folders: Path) -> Revision | None:
    """Returns the commit of the first folder that is in a git repository; None if none is, or git is not installed."""
    for folder in folders:
        commit = _git(folder, "rev-parse", "HEAD")
        if commit:
            return Revision(commit, bool(_git(folder, "status", "--porcelain", "--untracked-files=no")))
    return None


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
