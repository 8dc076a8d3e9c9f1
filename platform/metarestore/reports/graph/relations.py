"""Figures of relations: the relation of each auxiliary distribution to the target, and its gradient weight."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from scipy.cluster.hierarchy import dendrogram, leaves_list, linkage

from metarestore.graphs.relations import Relations
from metarestore.reports.style import GREY, PALETTE, SMALL, WIDTH, house_style, signed

Floats = NDArray[np.float64]


_TREE = 0.55
"""Height of the dendrogram above the matrix, in inches."""


@house_style
def relation_heatmap(relations: Relations) -> Figure:
    """Draws the matrix of relations, or only the target's column if there is no matrix.

    The distributions are sorted by hierarchical clustering, whose dendrogram is drawn above; of two branches, the one
    more related to the target comes first. The target is last, separated by a line. Its column contains the values
    that are used, with standard errors; a prior or an expert's edge may change them from the estimate.
    """
    figure = Figure(figsize=heatmap_size(relations), layout="constrained")
    draw_heatmap(figure, relations)
    return figure


def heatmap_size(relations: Relations) -> tuple[float, float]:
    """Returns the width and height of the heat map, in inches."""
    if relations.matrix is None:
        return WIDTH * 0.5, 1.6 + 0.44 * len(relations.values)
    return WIDTH, 1.6 + 0.44 * (len(relations.values) + 1) + _TREE


def draw_heatmap(figure: Figure | SubFigure, relations: Relations) -> None:
    """Draws the heat map of `relation_heatmap` into a figure or subfigure."""
    tree = clustering(relations)
    order = _nearest_first(relations) if tree is None else np.asarray(leaves_list(tree), np.intp)
    names = [relations.auxiliary[i] for i in order]
    table = _matrix(relations, order)
    single = relations.matrix is None
    if tree is None:
        axes = figure.add_subplot()
    else:
        grid = figure.add_gridspec(2, 1, height_ratios=(_TREE, heatmap_size(relations)[1] - _TREE))
        axes = figure.add_subplot(grid[1])
        _draw_tree(figure.add_subplot(grid[0], sharex=axes), tree)
    axes.grid(False)
    image = axes.imshow(table, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    figure.colorbar(image, ax=axes, label="relation", fraction=0.04, pad=0.02)
    axes.set_yticks(range(len(table)), names if single else [*names, relations.target], fontsize=SMALL)
    columns = [relations.target] if single else [*names, relations.target]
    axes.set_xticks(
        range(len(columns)),
        columns,
        fontsize=SMALL,
        rotation=0 if single else 40,
        ha="center" if single else "right",
        rotation_mode="anchor",
    )
    for edge in () if single else (axes.axhline, axes.axvline):
        edge(len(names) - 0.5, color="black", lw=1.2)
    _write_cells(axes, table, relations.standard_errors[order])
    if relations.allowed is not None:
        for label, allowed in zip(axes.get_yticklabels(), relations.allowed[order], strict=False):
            label.set_color("black" if allowed else GREY)
            label.set_fontstyle("normal" if allowed else "italic")
    figure.suptitle(_title(relations), fontsize=10, x=0.01, ha="left")


def clustering(relations: Relations) -> Floats | None:
    """Clusters the distributions by average linkage with the distances 1 − relation.

    Returns:
        A linkage matrix (N−1, 4) in SciPy's format, in which the branch with the higher mean relation to the target
        comes first; None if there is no matrix, or there are fewer than three distributions.
    """
    count = len(relations.values)
    if relations.matrix is None or count < 3:
        return None
    matrix = relations.matrix[:-1, :-1]
    distances = 1 - np.nan_to_num((matrix + matrix.T) / 2)
    tree = np.asarray(linkage(distances[np.triu_indices(count, 1)].clip(0), "average"), np.float64)
    similarity, sizes = list(np.nan_to_num(relations.values)), [1.0] * count
    for row in tree:
        first, second = int(row[0]), int(row[1])
        if similarity[second] > similarity[first]:
            row[:2] = second, first
        both = sizes[first] + sizes[second]
        similarity.append((similarity[first] * sizes[first] + similarity[second] * sizes[second]) / both)
        sizes.append(both)
    return tree


def _draw_tree(axes: Axes, tree: Floats) -> None:
    drawn = dendrogram(tree, no_plot=True)
    for x, y in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        axes.plot((np.asarray(x) - 5) / 10, y, color="#555555", lw=1)
    axes.set_axis_off()


@house_style
def relation_bars(relations: Relations, weights: Mapping[str, float]) -> Figure:
    """Draws each distribution's relation to the target with its standard error, next to its gradient weight.

    Args:
        relations: The relations.
        weights: Gradient weights, mean 1; distributions may be missing.
    """
    order = _nearest_first(relations)
    names = [relations.auxiliary[i] for i in order]
    figure = Figure(figsize=(WIDTH, 1.3 + 0.3 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rows = np.arange(len(names))
    values, errors = relations.values[order], relations.standard_errors[order]
    left.barh(
        rows, values, color=PALETTE[0], xerr=np.nan_to_num(errors), ecolor="#222222", error_kw={"capsize": 2, "lw": 1}
    )
    left.axvline(0, color="#444444", lw=0.8)
    left.set_xlabel(f"relation to {relations.target} (± standard error)")
    left.set_yticks(rows, names, fontsize=SMALL)
    left.set_xlim(min(-0.05, float(np.nanmin(values, initial=0)) - 0.15), 1.05)
    left.invert_yaxis()
    given = np.asarray([weights.get(name, math.nan) for name in names])
    right.barh(rows, np.nan_to_num(given), color=PALETTE[1])
    right.axvline(1, color="#444444", lw=0.9, ls="--")
    right.set_xlabel("gradient weight (mean 1; dashed: all equal)")
    right.set_xlim(0, 1.15 * float(np.nanmax(given, initial=1.0)))
    for row, weight in enumerate(given):
        right.annotate(
            "–" if math.isnan(weight) else f"{weight:.2f}",
            (max(np.nan_to_num(weight), 0), row),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
            bbox={"color": "white", "alpha": 0.85, "pad": 0.5},
        )
    for axes in (left, right):
        axes.grid(axis="y", visible=False)
    return figure


def _nearest_first(relations: Relations) -> NDArray[np.intp]:
    """Sorts the distributions by their relation to the target; those without a value come last."""
    return np.argsort(-np.nan_to_num(relations.values, nan=-np.inf), kind="stable")


def _matrix(relations: Relations, order: NDArray[np.intp]) -> Floats:
    """Returns the cells to draw, (N+1, N+1) or (N, 1)."""
    if relations.matrix is None:
        return np.asarray(relations.values[order][:, None])
    whole = np.append(order, len(order))
    matrix = relations.matrix[np.ix_(whole, whole)].copy()
    matrix[:-1, -1] = matrix[-1, :-1] = relations.values[order]
    return np.asarray(matrix)


def _write_cells(axes: Axes, table: Floats, errors: Floats) -> None:
    """Writes the values into the cells, with standard errors in the target's column, in a contrasting colour."""
    last = table.shape[1] - 1
    for (row, column), value in np.ndenumerate(table):
        text = "–" if math.isnan(value) else signed(value)
        if column == last and row < len(errors) and math.isfinite(errors[row]):
            text += f" ±{errors[row]:.2f}" if last == 0 else f"\n±{errors[row]:.2f}"
        colour = "white" if abs(value) > 0.6 else GREY if math.isnan(value) else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def _title(relations: Relations) -> str:
    parts = [f"{relations.estimator} estimator"]
    if relations.draws:
        parts.append(f"{relations.draws} draws")
    if math.isfinite(relations.reliability):
        parts.append(f"reliability {relations.reliability:.2f}")
    if relations.allowed is not None and not relations.allowed.all():
        parts.append("italic: not used for training")
    return f"Relation to {relations.target}: " + ", ".join(parts)
