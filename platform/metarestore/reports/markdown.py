"""Text in Markdown: names and commands stand there as they are, whatever characters they are made of."""

from __future__ import annotations

import re

from metarestore.console import visible

# A bracket alone is none of Markdown's marks: intervals such as [−0.1, 0.3] stay readable in the file.
_MARKS = re.compile(r"[\\`*<|]|\](?=[(\[:])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)|~(?=~)")


def markdown_text(text: str) -> str:
    r"""Escapes what Markdown would take for its marks; a name in a table stays in its cell.

    >>> markdown_text("a|b <i> gain_weighted [-0.1, 0.3]")
    'a\\|b \\<i> gain_weighted [-0.1, 0.3]'
    """
    return _MARKS.sub(lambda found: "\\" + found[0], visible(text).replace("\n", " "))


def markdown_code(text: str) -> str:
    """Returns text as code, between as many backticks as it needs.

    >>> markdown_code("metarestore train a.yaml")
    '`metarestore train a.yaml`'
    """
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{visible(text)}{space}{fence}"
