"""Drawings of relation graphs: complete, legible, the same twice; predicted against measured."""

import dataclasses
import itertools
from pathlib import Path

import matplotlib.text
import numpy as np
import pytest

from metarestore.graphs.graph import build_graph
from metarestore.graphs.merge import merge_graphs
from metarestore.graphs.relations import Relations
from metarestore.project import Project
from metarestore.reports.graph.figures import attention_heatmap, graph_drawing, graph_overview, related_pairs
from metarestore.reports.graph.relations import clustering, relation_heatmap
from metarestore.reports.graph.transfer import transfer_scatter
from metarestore.reports.study.curves import relations_over_time, weights_over_time
from metarestore.reports.style import svg
from metarestore.tasks.images import write_image
from metarestore.tasks.pairs import PairsSpec

PROJECT = Project(Path(__file__).parents[3])


def texts(figure):
    found = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip() and text.get_visible()]
    return "\n".join(text.get_text() for text in found)


def overlaps(figure):
    figure.draw_without_rendering()
    [axes] = figure.axes
    boxes = [(text.get_text(), matplotlib.text.Text.get_window_extent(text)) for text in axes.texts]
    return [(a, b) for (a, x), (b, y) in itertools.combinations(boxes, 2) if x.padded(-1).overlaps(y.padded(-1))]


def graph_of(relations, names, target=None):
    specs = {name: PROJECT.task(name) for name in names}
    weights = {name: float(index) for index, name in enumerate(names)}
    return build_graph(relations, weights, specs, target or PROJECT.task("phone_camera"), {})


@pytest.fixture
def relations(invent):
    return invent.relations(np.random.default_rng(3))


@pytest.fixture
def graph(invent, relations):
    return graph_of(relations, invent.distributions)


def test_a_drawing_names_every_node_and_its_relation(graph, relations, invent):
    figure = graph_drawing(graph)
    shown = texts(figure)
    assert [name for name in (*invent.distributions, "phone_camera") if name not in shown] == []
    assert f"{relations.values[0]:+.2f}".replace("-", "−") + " ± 0.04" in shown
    assert overlaps(figure) == []


def test_twenty_distributions_can_be_told_apart():
    names = [name for name in PROJECT.names("tasks") if name not in ("phone_camera", "gaussian8")][:20]
    names = [name for name in names if PROJECT.task(name).kind == "synthetic"]
    rng = np.random.default_rng(0)
    found = Relations("phone_camera", tuple(names), rng.uniform(-1, 1, len(names)), np.full(len(names), 0.1), "x", 4)
    assert len(names) >= 15
    assert overlaps(graph_drawing(graph_of(found, names))) == []


def test_equal_graphs_give_equal_drawings(graph):
    assert svg(graph_drawing(graph)) == svg(graph_drawing(graph.copy()))


def test_edges_are_as_wide_as_their_weights(graph, invent):
    axes = graph_drawing(graph).axes[0]
    widths = sorted(line.get_linewidth() for line in axes.lines if line.get_color() == "#444444")
    assert widths[4] > widths[3] > widths[2]
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert len(dotted) == 1  # the one of weight 0


def test_real_pairs_have_a_colour_of_their_own(relations, invent, tmp_path):
    assert "real pairs" not in texts(graph_drawing(graph_of(relations, invent.distributions)))
    write_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    real = PairsSpec(kind="pairs", scale=4, lr=tmp_path, hr=tmp_path)
    assert "real pairs" in texts(graph_drawing(graph_of(relations, invent.distributions, real)))


def test_kin_are_those_far_above_the_mean(graph, relations):
    matrix = relations.matrix[:-1, :-1][np.triu_indices(10, 1)]
    assert len(related_pairs(graph)) == int((matrix > matrix.mean() + matrix.std()).sum()) > 0
    equal = dataclasses.replace(relations, matrix=np.ones((11, 11)))
    assert related_pairs(graph_of(equal, relations.auxiliary)) == []


def test_several_targets_in_one_drawing(graph, relations, invent):
    other = graph_of(dataclasses.replace(relations, target="my_camera"), invent.distributions)
    merged, _ = merge_graphs([("a", graph), ("b", other)])
    shown = texts(graph_overview(merged))
    assert "Relation graph of phone_camera, my_camera" in shown
    assert "Relation to my_camera" in shown


def test_clusters_stand_together(relations):
    """Two blocks in the matrix: the distributions of one stand next to each other, the nearer block first."""
    block = np.asarray([0, 1, 0, 1, 1, 0, 0, 1, 0, 1])
    matrix = np.ones((11, 11))
    matrix[:10, :10] = np.where(block[:, None] == block[None], 0.9, -0.2)
    np.fill_diagonal(matrix, 1)
    values = np.where(block == 1, 0.8, 0.1)
    found = dataclasses.replace(relations, matrix=matrix, values=values)
    axes = relation_heatmap(found).axes
    heat = next(one for one in axes if one.images)
    labels = [label.get_text() for label in heat.get_yticklabels()][:-1]
    assert [block[found.auxiliary.index(name)] for name in labels] == [1] * 5 + [0] * 5


def test_small_or_unrelated_sets_are_not_clustered(relations):
    assert clustering(dataclasses.replace(relations, matrix=None)) is None
    two = dataclasses.replace(relations, auxiliary=("a", "b"), values=np.zeros(2), matrix=np.eye(3))
    assert clustering(two) is None


def test_attention_is_drawn_for_all_and_the_target_last(relations, invent):
    attention = np.random.default_rng(0).dirichlet(np.ones(4), 11)
    figure = attention_heatmap(dataclasses.replace(relations, attention=attention))
    drawn = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(drawn[-1], attention[-1])
    np.testing.assert_array_equal(drawn[0], attention[int(relations.values.argmax())])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-1] == "phone_camera"
    with pytest.raises(ValueError, match="no attention"):
        attention_heatmap(relations)


def test_relations_over_refreshes(invent):
    history = invent.history(np.random.default_rng(0), invent.distributions, np.ones(10))
    rng = np.random.default_rng(1)
    related = tuple((50 * k, rng.uniform(-1, 1, 10), np.full(10, 0.1)) for k in range(3))
    figure = relations_over_time(dataclasses.replace(history, related=related))
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert len(lines) == 10
    np.testing.assert_array_equal(lines[0].get_ydata(), [values[0] for _, values, _ in related])
    assert "estimated 3 times" in texts(figure)
    beside = invent.history(np.random.default_rng(0), (*invent.distributions, "phone_camera"), np.ones(11))
    beside = dataclasses.replace(beside, related=related)
    assert beside.distributions == tuple(invent.distributions)
    assert [line for line in texts(relations_over_time(beside)).splitlines() if "phone_camera" in line] == []
    shown = texts(weights_over_time(beside))
    assert "phone_camera (shots)" in shown
    assert "Effective number of distributions, of 10:" in shown


def test_a_scatter_tells_the_rank_correlation_of_each_target():
    gains = np.asarray([0.1, 0.5, -0.2, 0.9])
    names = ("a", "b", "c", "d")
    figure = transfer_scatter(
        {
            "right": {"canon": (gains**3, gains, names), "nikon": (gains, gains, names)},
            "wrong": {"canon": (-gains, gains, names), "nikon": (np.zeros(4), gains, names)},
        }
    )
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["right: ρ +1.00", "wrong: ρ −1.00"]
    shown = texts(figure)
    assert "canon −1.00" in shown
    assert "nikon undefined" in shown
    assert all(f"{index} {name}" in shown for index, name in enumerate(names, 1))
