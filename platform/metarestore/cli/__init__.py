"""The command line: one file per group of commands."""

from metarestore.cli.app import main

__all__ = ["main"]
