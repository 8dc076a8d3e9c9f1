"""The one console of the command line: text is printed as it is, whatever names and paths are made of.

Names of files, tasks and arms may hold anything: brackets are no markup here, `:smile:` is no emoji, and a character
that ends lines or drives a terminal is shown as its escape. A terminal, pipe or file that cannot encode a character
receives a substitute, never an exception: a finished run must not be lost because its table cannot be printed.
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

Item = TypeVar("Item")

console = Console(markup=False, highlight=False, emoji=False)
"""Where every command prints; strings are text, in tables too."""

_SUBSTITUTES = {"−": "-", "–": "-", "—": "-", "×": "x", "→": "->", "±": "+-", "…": "...", "²": "2"}
"""What stands for characters of our own where the output cannot encode them."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_ERRORS = "metarestore"


def _substituted(error: UnicodeError) -> tuple[str, int]:
    """Encodes what an encoding lacks: our own typography by its likeness, anything else by its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    given = error.object[error.start : error.end]
    return "".join(_SUBSTITUTES.get(each) or ascii(each)[1:-1] for each in given), error.end


codecs.register_error(_ERRORS, _substituted)


def prepare_output() -> None:
    """Makes stdout and stderr accept every character, whatever their encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def visible(text: str) -> str:
    r"""Shows characters that drive a terminal as their escapes; line feeds and tabs stay.

    >>> visible("a\x1b[31m")
    'a\\x1b[31m'
    """
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def say(text: object, *, style: str | None = None) -> None:
    """Prints a line of text as it is: no markup, no colours for numbers, no breaks at the terminal's width."""
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


def text_column(template: str = "{task.description}") -> TextColumn:
    """Returns a column of a progress bar that shows names as they are."""
    return TextColumn(template, markup=False)


def bars(*columns: ProgressColumn) -> Progress:
    """Returns progress bars that vanish when they are done; none on a pipe or in a log file."""
    columns = columns or (text_column(), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def tracked(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Draws a bar while items are taken; none on a pipe or in a log file."""
    columns = (text_column(), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield from progress.track(items, total=total, description=what)
