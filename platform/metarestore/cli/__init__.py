"""The command line: one file per group of commands."""

from metarestore.cli.entry import app, main

__all__ = ["app", "main"]
