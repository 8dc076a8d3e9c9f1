"""The console of the command line: names and paths are printed literally.

Names of files, tasks and arms may contain any character: brackets are not markup here, `:smile:` is not an emoji, and
control characters are escaped. If the output cannot encode a character, a substitute is written instead of raising an
exception: a finished run must not be lost because its table cannot be printed.
"""

from __future__ import annotations

import codecs
import io
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

Item = TypeVar("Item")

console = Console(markup=False, highlight=False, emoji=False)
"""The console of all commands; strings are literal text, in tables too."""

_SUBSTITUTES = {"−": "-", "–": "-", "—": "-", "×": "x", "→": "->", "±": "+-", "…": "...", "²": "2"}
"""Substitutes for typographic characters that the output cannot encode."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_ERRORS = "metarestore"


def _substituted(error: UnicodeError) -> tuple[str, int]:
    """Replaces unencodable characters: typography by a similar character, anything else by an escape sequence."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_SUBSTITUTES.get(each) or ascii(each)[1:-1] for each in text), error.end


codecs.register_error(_ERRORS, _substituted)


def progress_console(*, quiet: bool) -> Console:
    """Returns a console on stderr, for the progress of functions that are called from Python."""
    return Console(stderr=True, quiet=quiet, markup=False, highlight=False, emoji=False)


def prepare_output() -> None:
    """Makes stdout and stderr accept every character, regardless of their encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def visible(text: str) -> str:
    r"""Escapes control characters, except line feeds and tabs.

    >>> visible("a\x1b[31m")
    'a\\x1b[31m'
    """
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def say(text: object, *, style: str | None = None) -> None:
    """Prints a line of text literally: without markup, highlighting or line wrapping."""
    console.print(visible(str(text)), style=style, soft_wrap=True)


def command_line(*words: str | Path) -> str:
    """Returns a command that can be copied into a shell, each word quoted where needed.

    >>> command_line("metarestore", "train", Path("my study/first.yaml"))
    "metarestore train 'my study/first.yaml'"
    """
    texts = [visible(str(word)) for word in words]
    # A path that starts with a dash would be read as an option.
    return shlex.join(
        f"./{text}" if isinstance(word, Path) and text.startswith("-") else text
        for word, text in zip(words, texts, strict=True)
    )


def text_column(template: str = "{task.description}", column: Column | None = None) -> TextColumn:
    """Returns a column of a progress bar that shows names literally; `column` sets its header and alignment."""
    return TextColumn(template, markup=False, table_column=column)


def bars(*columns: ProgressColumn) -> Progress:
    """Returns progress bars that disappear when done; disabled on pipes and in log files."""
    columns = columns or (text_column(), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def tracked(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Shows a progress bar while iterating; disabled on pipes and in log files."""
    columns = (text_column(), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield from progress.track(items, total=total, description=description)
