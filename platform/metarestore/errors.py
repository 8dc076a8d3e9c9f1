"""Errors that a user can cause: one line each, saying where, what was given, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Reports a mistake in what the user gave; the command line prints it without a traceback and exits with 2.

    Args:
        problems: One line, or several when all problems of a file are known at once.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))
