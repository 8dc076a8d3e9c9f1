"""Figures of relations: how near each auxiliary distribution is to the target, and what weight that gives it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarestore.graphs.relations import Relations
from metarestore.reports.style import GREY, PALETTE, SMALL, WIDTH, house_style, signed

Floats = NDArray[np.float64]


@house_style
def relation_heatmap(relations: Relations) -> Figure:
    """Draws the matrix of relations, or the target's column alone where there is no matrix.

    Rows go from the distribution nearest to the target to the farthest; the target comes last, set apart by a line.
    Its column holds the values that decide, with their standard errors; an expert's edge may differ from the estimate.
    """
    order = _nearest_first(relations)
    names = [relations.auxiliary[i] for i in order]
    table = _matrix(relations, order)
    single = relations.matrix is None
    figure = Figure(figsize=(WIDTH * (0.5 if single else 1), 1.6 + 0.44 * len(table)), layout="constrained")
    axes = figure.add_subplot()
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
    figure.suptitle(_title(relations), fontsize=10, x=0.01, ha="left")
    return figure


@house_style
def relation_bars(relations: Relations, weights: Mapping[str, float]) -> Figure:
    """Draws each distribution's relation to the target with its standard error, and its gradient weight beside it.

    Args:
        relations: The relations.
        weights: Gradient weight of each distribution, mean 1; may lack some, or be empty.
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
    """Orders the distributions by their relation to the target; what has no value comes last."""
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
    """Writes the values into the cells, dark on light and light on dark; standard errors into the target's column."""
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
    return f"Relation to {relations.target}: " + ", ".join(parts)
