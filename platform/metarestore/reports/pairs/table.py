"""The table of checked pairs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from metarestore.registration.check import PairCheck


def check_table(checks: Sequence[PairCheck]) -> Table:
    """Returns a table with one row for each pair; lengths are in LR pixels."""
    table = Table(box=None, pad_edge=False)
    table.add_column("pair", overflow="fold")
    for heading in ("LR", "shift", "residual", "gain R G B", "blur"):
        table.add_column(heading, no_wrap=True)
    table.add_column("problem", overflow="fold")
    for check in checks:
        style = "red" if check.problems else "yellow" if check.remarks else None
        table.add_row(*_cells(check), style=style)
    return table


def _cells(check: PairCheck) -> tuple[str, ...]:
    return (
        check.name,
        "–" if check.lr_size is None else f"{_size(check.lr_size)} x{check.scale}",
        "–" if check.shift is None else f"{check.shift[0]:+.2f} {check.shift[1]:+.2f}",
        _number(check.residual),
        "–" if check.gains is None else " ".join(f"{gain:.2f}" for gain in check.gains),
        _number(check.blur),
        "; ".join((*check.problems, *check.remarks)),
    )


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
