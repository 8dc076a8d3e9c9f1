"""The git commit of the files used by a run."""

from __future__ import annotations

import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_PATIENCE = 5.0
"""Timeout of git in seconds."""


@dataclass(frozen=True)
class Revision:
    """A commit.

    Attributes:
        commit: 40 hex digits of its hash.
        dirty: Whether tracked files have uncommitted changes.
    """

    commit: str
    dirty: bool

    def to_json(self) -> dict[str, Any]:
        """Returns JSON data."""
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
