"""Escapes text for Markdown, so that names and commands are shown literally."""

from __future__ import annotations

import re

from metarestore.console import visible

# A bracket alone is not Markdown syntax: intervals such as [−0.1, 0.3] stay readable in the file.
_MARKS = re.compile(r"[\\`*<|]|\](?=[(\[:])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)|~(?=~)")


def markdown_text(text: str) -> str:
    r"""Escapes Markdown syntax, also inside a table cell.

    >>> markdown_text("a|b <i> gain_weighted [-0.1, 0.3]")
    'a\\|b \\<i> gain_weighted [-0.1, 0.3]'
    """
    return _MARKS.sub(lambda match: "\\" + match[0], visible(text).replace("\n", " "))


def markdown_code(text: str) -> str:
    """Returns text as inline code, with as many backticks as needed.

    >>> markdown_code("metarestore train a.yaml")
    '`metarestore train a.yaml`'
    """
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{visible(text)}{space}{fence}"
