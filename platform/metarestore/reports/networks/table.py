"""The table of shipped networks."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from metarestore.models.shipped import Card


def network_table(cards: Sequence[Card]) -> Table:
    """Returns the table of names, sizes, purposes and metrics."""
    table = Table(box=None, pad_edge=False)
    for title in ("name", "scale", "parameters", "for", "metrics"):
        table.add_column(title, overflow="fold", justify="right" if title == "parameters" else "left")
    for card in cards:
        values = [f"{name} {value:.2f}" for name, value in card.metrics.items()]
        metrics = ", ".join(values + [f"{gain:+.2f} dB on {lr}" for lr, gain in card.gains.items()])
        table.add_row(card.name, f"x{card.scale}", f"{card.parameters:,}", card.purpose, metrics)
    return table
