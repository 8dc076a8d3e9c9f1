"""Descriptors on a page: a map of all items, and a table of their groups."""

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
"""Fewer items lie on a line, whatever they are."""
_MARKERS = "os^Dvp"


@house_style
def descriptor_map(descriptions: Sequence[Description]) -> Figure:
    """Draws the descriptors of all items along their two principal components, coloured by group.

    Beyond the palette's length the colours come again, with other markers.

    Raises:
        ValueError: There are fewer than three items.
    """
    table = np.stack([item.mean for description in descriptions for item in description.items])
    if len(table) < LEAST_ITEMS:
        raise ValueError(f"a map needs at least {LEAST_ITEMS} items, got {len(table)}")
    with np.errstate(invalid="ignore"):  # items that are all equal have no variance to share
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
    """Lays out the groups; of several, each with the other group whose mean points most nearly the same way."""
    table = Table(box=None, pad_edge=False)
    for heading in ("group", "kind", "items", "images", "spread of items"):
        table.add_column(heading, overflow="fold", justify="left" if heading in {"group", "kind"} else "right")
    several = len(descriptions) > 1
    if several:
        table.add_column("nearest other (cosine)", overflow="fold")
    angles = cosines(descriptions)
    np.fill_diagonal(angles, -np.inf)
    for row, one in enumerate(descriptions):
        spread = "–" if math.isnan(one.relative_spread) else f"{one.relative_spread:.1%}"
        near = int(np.argmax(angles[row]))
        nearest = [f"{descriptions[near].name} ({angles[row, near]:.4f})"] if several else []
        table.add_row(one.name, one.kind, str(len(one.items)), str(one.count), spread, *nearest)
    return table
