"""The figure of predicted relations and measured transfer, for validating an estimator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from metarestore.graphs.reliability import rank_correlation
from metarestore.reports.style import PALETTE, SMALL, WIDTH, house_style, signed

Floats = NDArray[np.float64]

_LONG = 18
"""Length from which a panel's title needs a smaller font."""
_COLUMNS = 3
_MARKERS = "osD^vP"


class Transfer(NamedTuple):
    """Predicted relations and measured transfer gains for one target.

    Attributes:
        relations: Predicted relations of N sources, (N,).
        gains: Measured gains of training on each source, in dB, (N,).
        names: Names of the sources.
    """

    relations: Floats
    gains: Floats
    names: Sequence[str]


@house_style
def transfer_scatter(panels: Mapping[str, Mapping[str, tuple[Floats, Floats, Sequence[str]]]]) -> Figure:
    """Draws measured gains over predicted relations: one panel for each estimator, one colour for each target.

    The title of a panel shows Spearman's rank correlation averaged over targets, since gains on different targets are
    not comparable; the panel lists the correlation of each target. Numbers refer to the sources in the legend.

    Args:
        panels: For each estimator and target: relations (N,), gains (N,) in dB, names of the N sources.
    """
    targets = list(dict.fromkeys(target for panel in panels.values() for target in panel))
    sources = list(dict.fromkeys(name for panel in panels.values() for one in panel.values() for name in one[2]))
    columns = min(_COLUMNS, max(1, len(panels)))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(max(WIDTH, 2.7 * columns), 3.1 * rows + 0.22 * math.ceil(len(sources) / 4) + 0.7))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, (estimator, panel) in zip(grid.flat, panels.items(), strict=False):
        _draw_panel(axes, estimator, {target: Transfer(*one) for target, one in panel.items()}, targets, sources)
    # Reserves space at the top for the correlations.
    low, high = grid[0, 0].get_ylim()
    grid[0, 0].set_ylim(low, high + 0.07 * len(targets) * (high - low))
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("measured gain, dB")
    handles = [Line2D([], [], ls="", label=f"{i} {name}") for i, name in enumerate(sources, 1)]
    handles += [
        Line2D([], [], ls="", marker=_marker(i), color=_colour(i), label=name) for i, name in enumerate(targets)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=SMALL)
    return figure


def _draw_panel(
    axes: Axes, estimator: str, panel: Mapping[str, Transfer], targets: Sequence[str], sources: Sequence[str]
) -> None:
    correlations = []
    for target, one in panel.items():
        index = targets.index(target)
        axes.scatter(
            one.relations, one.gains, s=110, marker=_marker(index), color=_colour(index), alpha=0.3, linewidths=0
        )
        for x, y, name in zip(one.relations, one.gains, one.names, strict=True):
            number = str(sources.index(name) + 1)
            axes.text(
                x, y, number, ha="center", va="center_baseline", fontsize=6.5, color=_colour(index), weight="bold"
            )
        correlations.append((target, rank_correlation(np.asarray(one.relations), np.asarray(one.gains))))
    known = [value for _, value in correlations if math.isfinite(value)]
    size = 10 if len(estimator) < _LONG else SMALL
    axes.set_title(f"{estimator}: ρ {signed(float(np.mean(known))) if known else 'undefined'}", fontsize=size)
    axes.axhline(0, color="#888888", lw=0.8)
    axes.margins(0.12)
    axes.set_xlabel("relation")
    lines = [f"{target} {signed(value) if math.isfinite(value) else 'undefined'}" for target, value in correlations]
    for row, ((target, _), line) in enumerate(zip(correlations, lines, strict=True)):
        axes.text(
            0.03,
            0.97 - 0.06 * row,
            line,
            transform=axes.transAxes,
            va="top",
            fontsize=7,
            color=_colour(targets.index(target)),
        )


def _marker(index: int) -> str:
    return _MARKERS[index // len(PALETTE) % len(_MARKERS)] if index >= len(PALETTE) else _MARKERS[index % len(_MARKERS)]


def _colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]
