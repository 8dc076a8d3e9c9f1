"""Figures of relation graphs: nodes and edges, and the attention to a memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from scipy.cluster.hierarchy import leaves_list

from metarestore.graphs.graph import Graph, is_real, leads_to_target, relations_of, targets_of, weights_of
from metarestore.graphs.relations import Relations
from metarestore.reports.graph.relations import clustering, draw_heatmap, heatmap_size
from metarestore.reports.style import GREY, PALETTE, SMALL, WIDTH, house_style, signed

Point = tuple[float, float]

_POINTS_PER_WEIGHT = 1.6
_WIDEST = 10.0
"""Width of an edge in points per unit of gradient weight, and its maximum."""
_SYNTHETIC, _REAL = PALETTE[0], PALETTE[1]
_UNUSED, _RELATED = "#8a8a8a", "#b5b5b5"
_FEW = 12
"""Maximum number of distributions on the circle for labels of two lines."""
_INNER = 0.34
"""Radius of the circle of several targets, relative to that of the auxiliary distributions."""


@house_style
def graph_drawing(graph: Graph) -> Figure:
    """Draws a relation graph: auxiliary distributions on a circle, targets inside, edge widths by gradient weight.

    Related distributions are placed next to each other. A grey line connects pairs whose relation is more than a
    standard deviation above the mean of all relations among auxiliary distributions. Equal graphs give equal figures.
    """
    figure = Figure(figsize=(WIDTH, _drawing_height(graph)), layout="constrained")
    _draw_graph(figure, graph)
    return figure


@house_style
def graph_overview(graph: Graph) -> Figure:
    """Draws a relation graph and below it the heat map of each target."""
    relations = [relations_of(graph, target) for target in targets_of(graph)]
    heights = [_drawing_height(graph), *(heatmap_size(one)[1] for one in relations)]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_graph(parts[0], graph)
    for part, one in zip(parts[1:], relations, strict=True):
        draw_heatmap(part, one)
    return figure


def _drawing_height(graph: Graph) -> float:
    return 3.4 + 0.2 * max(10, len(graph) - len(targets_of(graph)))


def _draw_graph(figure: Figure | SubFigure, graph: Graph) -> None:
    targets = targets_of(graph)
    names = _ring(graph, targets)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-1.75, 1.75)
    axes.set_ylim(-1.12, 1.2)
    points = {name: _on_circle(index, len(names), 1.0) for index, name in enumerate(names)}
    radius = 0.0 if len(targets) == 1 else _INNER
    points |= {name: _on_circle(index, len(targets), radius) for index, name in enumerate(targets)}
    for a, b in related_pairs(graph):
        axes.plot(*zip(points[a], points[b], strict=True), color=_RELATED, lw=1.6, zorder=1)
    colours = ["#444444"] if len(targets) == 1 else [PALETTE[2 + i % (len(PALETTE) - 2)] for i in range(len(targets))]
    for target, colour in zip(targets, colours, strict=True):
        _draw_weights(axes, weights_of(graph, target), target, points, colour)
    for name in (*names, *targets):
        marker, size = ("s", 190) if name in targets else ("o", 120)
        colour = _REAL if is_real(graph, name) else _SYNTHETIC
        axes.scatter(*points[name], s=size, marker=marker, color=colour, edgecolor="white", zorder=3)
    relations = relations_of(graph) if len(targets) == 1 else None
    for name in names:
        _label(axes, name, points[name], relations, "\n" if len(names) <= _FEW else "  ")
    for target, colour in zip(targets, colours, strict=True):
        x, y = points[target]
        box = {"color": "white", "alpha": 0.85, "pad": 1.0}
        axes.text(x, y - 0.09, target, ha="center", va="top", fontsize=9, color=colour, bbox=box, zorder=4)
    figure.legend(handles=_legend(graph, targets), loc="outside lower center", ncols=3, fontsize=SMALL)
    figure.suptitle("Relation graph of " + ", ".join(targets), fontsize=10, x=0.01, ha="left")


def related_pairs(graph: Graph) -> list[tuple[str, str]]:
    """Returns the pairs of auxiliary distributions with a relation over one standard deviation above the mean."""
    relations: dict[tuple[str, str], list[float]] = {}
    for a, b, edge in graph.edges(data=True):
        if not leads_to_target(edge) and "relation" in edge:
            relations.setdefault((min(a, b), max(a, b)), []).append(edge["relation"])
    if not relations:
        return []
    values = {pair: float(np.mean(directions)) for pair, directions in relations.items()}
    bound = float(np.mean(list(values.values())) + np.std(list(values.values())))
    return [pair for pair, value in sorted(values.items()) if value > bound]


def _ring(graph: Graph, targets: Sequence[str]) -> list[str]:
    """Orders the auxiliary distributions so that related ones are adjacent."""
    ordered: dict[str, None] = {}
    for target in targets:
        relations = relations_of(graph, target)
        tree = clustering(relations)
        order = np.argsort(-relations.values, kind="stable") if tree is None else leaves_list(tree)
        ordered |= dict.fromkeys(relations.auxiliary[i] for i in order)
    return [name for name in (*ordered, *(n for n in graph if n not in ordered)) if name not in targets]


def _on_circle(index: int, count: int, radius: float) -> Point:
    """Returns point `index` of `count`, clockwise from the top; points on the same side have different heights."""
    angle = np.pi / 2 - 2 * np.pi * (index + 0.5) / max(count, 1)
    return float(radius * np.cos(angle)), float(radius * np.sin(angle))


def _draw_weights(
    axes: Axes, weights: Mapping[str, float], target: str, points: Mapping[str, Point], colour: str
) -> None:
    for name, weight in weights.items():
        unused = weight < 1e-3
        axes.plot(
            *zip(points[name], points[target], strict=True),
            color=_UNUSED if unused else colour,
            lw=1.0 if unused else float(np.clip(_POINTS_PER_WEIGHT * weight, 0.4, _WIDEST)),
            ls=":" if unused else "-",
            alpha=0.75,
            solid_capstyle="round",
            zorder=2,
        )


def _label(axes: Axes, name: str, point: Point, relations: Relations | None, separator: str) -> None:
    x, y = point
    text, colour = name, "black"
    if relations is not None and name in relations.auxiliary:
        index = relations.auxiliary.index(name)
        text += f"{separator}{signed(relations.values[index])}"
        if np.isfinite(relations.standard_errors[index]):
            text += f" ± {relations.standard_errors[index]:.2f}"
        colour = "black" if relations.allowed is None or relations.allowed[index] else GREY
    axes.annotate(
        text,
        point,
        xytext=(11 * np.sign(x), 9 * y),
        textcoords="offset points",
        ha="left" if x > 0 else "right",
        va="center",
        fontsize=SMALL,
        color=colour,
        linespacing=1.1,
    )


def _legend(graph: Graph, targets: Sequence[str]) -> list[Line2D]:
    handles = [_dot("o", GREY, "auxiliary"), _dot("s", GREY, "target"), _dot("D", _SYNTHETIC, "blue: synthetic")]
    if any(is_real(graph, name) for name in graph):
        handles += [_dot("D", _REAL, "orange: real pairs")]
    handles += [Line2D([], [], color="#444444", lw=_POINTS_PER_WEIGHT, label="gradient weight 1")]
    handles += [Line2D([], [], color="#444444", lw=4 * _POINTS_PER_WEIGHT, label="gradient weight 4")]
    if any(weight < 1e-3 for target in targets for weight in weights_of(graph, target).values()):
        handles += [Line2D([], [], color=_UNUSED, lw=1.0, ls=":", label="gradient weight 0")]
    if related_pairs(graph):
        handles += [Line2D([], [], color=_RELATED, lw=1.6, label="related to each other")]
    return handles


def _dot(marker: str, colour: str, label: str) -> Line2D:
    return Line2D([], [], ls="", marker=marker, color=colour, markersize=8, markeredgecolor="white", label=label)


@house_style
def attention_heatmap(relations: Relations) -> Figure:
    """Draws the attention of each distribution, and of the target in the last row, to each entry of the memory.

    Raises:
        ValueError: The relations have no attention.
    """
    if relations.attention is None:
        raise ValueError("the relations have no attention to draw; only an estimator with a memory provides it")
    order = _nearest_first_with_target(relations)
    table = relations.attention[order]
    entries = table.shape[1]
    figure = Figure(figsize=(min(WIDTH, 3.2 + 0.55 * entries), 1.5 + 0.28 * len(table)), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False)
    image = axes.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, ax=axes, label="attention", fraction=0.04, pad=0.02)
    names = [*relations.auxiliary, relations.target]
    axes.set_yticks(range(len(table)), [names[i] for i in order], fontsize=SMALL)
    axes.set_xticks(range(entries), [str(i + 1) for i in range(entries)], fontsize=SMALL)
    axes.set_xlabel("entry of the memory")
    axes.axhline(len(table) - 1.5, color="black", lw=1.2)
    for (row, column), value in np.ndenumerate(table) if entries <= 12 else ():
        colour = "white" if value > 0.6 else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.suptitle(f"Attention to the memory, for {relations.target}", fontsize=10, x=0.01, ha="left")
    return figure


def _nearest_first_with_target(relations: Relations) -> list[int]:
    order = np.argsort(-np.nan_to_num(relations.values, nan=-np.inf), kind="stable")
    return [*(int(i) for i in order), len(order)]
