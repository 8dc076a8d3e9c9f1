"""The shipped networks as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from metarestore.models.shipped import Card


def network_table(cards: Sequence[Card]) -> Table:
    """Lays out names, sizes, purposes and figures."""
    table = Table(box=None, pad_edge=False)
    for title in ("name", "scale", "parameters", "for", "figures"):
        table.add_column(title, overflow="fold", justify="right" if title == "parameters" else "left")
    for card in cards:
        figures = ", ".join(f"{name} {value:.2f}" for name, value in card.metrics.items())
        table.add_row(card.name, f"x{card.scale}", f"{card.parameters:,}", card.purpose, figures)
    return table
