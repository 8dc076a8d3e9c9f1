"""Output for descriptors: a map of all items, and a table of their groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table
from sklearn.decomposition import PCA

from metarestore.descriptors.describe import Description, cosines
from metarestore.reports.style import PALETTE, SMALL, WIDTH, house_style

LEAST_ITEMS = 3
"""Minimum number of items of a map; fewer always lie on a line."""
_MARKERS = "os^Dvp"


@house_style
def descriptor_map(descriptions: Sequence[Description]) -> Figure:
    """Draws the descriptors of all items along the first two principal components, coloured by group.

    If there are more groups than colours, colours repeat with other markers.

    Raises:
        ValueError: There are fewer than three items.
    """
    table = np.stack([item.mean for description in descriptions for item in description.items])
    if len(table) < LEAST_ITEMS:
        raise ValueError(f"a map needs at least {LEAST_ITEMS} items, got {len(table)}")
    with np.errstate(invalid="ignore"):  # if all items are equal, the total variance is 0
        components = PCA(2).fit(table - table.mean(axis=0))
    figure = Figure(figsize=(WIDTH, max(4.5, 1.0 + 0.22 * len(descriptions))), layout="constrained")
    axes = figure.add_subplot()
    for index, description in enumerate(descriptions):
        points = components.transform(np.stack([item.mean for item in description.items]) - table.mean(axis=0))
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=22,
            color=PALETTE[index % len(PALETTE)],
            marker=_MARKERS[index // len(PALETTE) % len(_MARKERS)],
            alpha=0.8,
            linewidths=0,
            label=f"{description.name} ({len(description.items)})",
        )
    shares = np.nan_to_num(components.explained_variance_ratio_)
    axes.set_xlabel(f"first component ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second component ({shares[1]:.0%} of the variance)")
    figure.legend(loc="outside right upper", fontsize=SMALL)
    return figure


def descriptor_table(descriptions: Sequence[Description]) -> Table:
    """Returns the table of groups, each with the group of the most similar mean descriptor."""
    table = Table(box=None, pad_edge=False)
    for heading in ("group", "kind", "items", "images", "spread of items"):
        table.add_column(heading, overflow="fold", justify="left" if heading in {"group", "kind"} else "right")
    several = len(descriptions) > 1
    if several:
        table.add_column("nearest group (cosine)", overflow="fold")
    similarities = cosines(descriptions)
    np.fill_diagonal(similarities, -np.inf)
    for row, one in enumerate(descriptions):
        spread = "–" if math.isnan(one.relative_spread) else f"{one.relative_spread:.1%}"
        other = int(np.argmax(similarities[row]))
        nearest = [f"{descriptions[other].name} ({similarities[row, other]:.4f})"] if several else []
        table.add_row(one.name, one.kind, str(len(one.items)), str(one.count), spread, *nearest)
    return table
