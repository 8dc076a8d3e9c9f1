"""Relation graphs on disk, merged and compared."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metarestore.errors import UserError
from metarestore.graphs.difference import relation_difference, separation
from metarestore.graphs.graph import (
    Graph,
    build_graph,
    graph_file,
    load_graph,
    provenance_of,
    relations_of,
    save_graph,
    targets_of,
    weights_of,
    write_graph,
)
from metarestore.graphs.merge import merge_graphs
from metarestore.graphs.relations import Relations
from metarestore.tasks.synthetic import SyntheticSpec

NAMES = ("a", "b", "c", "d")


def spec(quality: int = 50) -> SyntheticSpec:
    pipeline = [{"op": "downsample"}, {"op": "jpeg", "quality": quality}]
    return SyntheticSpec.model_validate({"kind": "synthetic", "scale": 4, "pipeline": pipeline})


SPECS = {name: spec(20 + index) for index, name in enumerate((*NAMES, "t", "u", "v"))}


def make(target: str, names: tuple[str, ...] = NAMES, seed: int = 0, **rest: Any) -> Relations:
    rng = np.random.default_rng(seed)
    count = len(names)
    matrix = rng.uniform(-1, 1, (count + 1, count + 1))
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1)
    given = {"matrix": matrix, "reliability": 0.5, **rest}
    return Relations(target, names, matrix[-1, :-1].copy(), rng.uniform(0.01, 0.2, count), "response", 8, **given)


def graph_of(relations: Relations, **changed: SyntheticSpec) -> Graph:
    specs = SPECS | changed
    weights = {name: 0.5 + index for index, name in enumerate(relations.auxiliary)}
    auxiliary = {name: specs[name] for name in relations.auxiliary}
    provenance = {"run": f"run of {relations.target}", "seed": 3}
    return build_graph(
        relations, weights, auxiliary, specs[relations.target], provenance, dict.fromkeys(relations.auxiliary, 10)
    )


def same(first: Graph, second: Graph) -> bool:
    return bool(first.nodes == second.nodes and nx.utils.edges_equal(first.edges(data=True), second.edges(data=True)))


def assert_equal(first: Relations, second: Relations) -> None:
    for field in dataclasses.fields(Relations):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if a is None or b is None or isinstance(a, str | tuple):
            assert a == b, field.name
        else:
            np.testing.assert_array_equal(a, b, field.name)


@st.composite
def any_relations(draw: st.DrawFn) -> Relations:
    count = draw(st.integers(2, 4))
    numbers = st.floats(-1, 1, width=32)
    found = make("t", NAMES[:count], draw(st.integers(0, 9)))
    if draw(st.booleans()):
        found = dataclasses.replace(found, matrix=None, values=draw(hnp.arrays(np.float64, count, elements=numbers)))
    if draw(st.booleans()):
        found = dataclasses.replace(found, standard_errors=np.full(count, np.nan), reliability=float("nan"))
    if draw(st.booleans()):
        found = dataclasses.replace(found, allowed=np.arange(count) > 0)
    if draw(st.booleans()):
        found = dataclasses.replace(found, attention=draw(hnp.arrays(np.float64, (count + 1, 3), elements=numbers)))
    if draw(st.booleans()):
        found = dataclasses.replace(found, estimated=draw(hnp.arrays(np.float64, (2, count), elements=numbers)))
    return found


@pytest.mark.parametrize("ending", ["json", "graphml"])
@given(relations=any_relations())
def test_nothing_is_lost_on_disk(tmp_path_factory: pytest.TempPathFactory, ending: str, relations: Relations) -> None:
    path = tmp_path_factory.mktemp("graph") / f"graph.{ending}"
    graph = graph_of(relations)
    write_graph(graph, path)
    loaded = load_graph(path)
    assert same(loaded, graph)
    assert_equal(relations_of(loaded), relations)
    assert provenance_of(loaded, "t") == {"run": "run of t", "seed": 3}


def test_json_is_strict(tmp_path: Path) -> None:
    relations = dataclasses.replace(make("t"), standard_errors=np.full(4, np.nan), reliability=float("nan"))
    save_graph(graph_of(relations), tmp_path)
    assert "NaN" not in (tmp_path / "graph.json").read_text()


def test_merging_keeps_every_target_with_its_own_relations() -> None:
    first, second = make("t", seed=1), make("u", ("d", "b", "a"), seed=2)
    merged, replaced = merge_graphs([("one", graph_of(first)), ("two", graph_of(second))])
    assert replaced == ()
    assert targets_of(merged) == ("t", "u")
    for one in (first, second):
        again = relations_of(merged, one.target)
        order = [again.auxiliary.index(name) for name in one.auxiliary]
        np.testing.assert_array_equal(again.values[order], one.values)
        assert weights_of(merged, one.target) == weights_of(graph_of(one))
        assert provenance_of(merged, one.target)["run"] == f"run of {one.target}"
    assert merged.nodes["a"]["tasks"] == 20
    assert merged.nodes["c"]["tasks"] == 10


def test_a_later_graph_of_the_same_target_counts_alone() -> None:
    first, second = make("t", seed=1), make("t", NAMES[:2], seed=2)
    merged, replaced = merge_graphs([("one", graph_of(first)), ("two", graph_of(second))])
    assert replaced == (("t", "one", "two"),)
    assert relations_of(merged).auxiliary == ("a", "b")
    np.testing.assert_array_equal(relations_of(merged).values, second.values)


def test_merging_with_itself_changes_nothing() -> None:
    graph = graph_of(make("t"))
    assert same(merge_graphs([("one", graph), ("again", graph)])[0], graph)


def test_merging_goes_step_by_step() -> None:
    graphs = [(name, graph_of(make(name, seed=i))) for i, name in enumerate("tuv")]
    halfway = merge_graphs(graphs[:2])[0]
    assert same(merge_graphs(graphs)[0], merge_graphs([("halfway", halfway), graphs[2]])[0])


@pytest.mark.parametrize("target_first", [True, False])
def test_a_target_may_be_an_auxiliary_distribution_of_another(target_first: bool) -> None:
    """Each keeps its own relations, in either order, and the matrix its kinship."""
    first, second = make("t", seed=1), make("u", ("a", "b", "t"), seed=2)
    graphs = [("one", graph_of(first)), ("two", graph_of(second))]
    merged, _ = merge_graphs(graphs if target_first else graphs[::-1])
    assert set(targets_of(merged)) == {"t", "u"}
    assert merged.nodes["t"]["estimator"] == "response"
    for one in (first, second):
        again = relations_of(merged, one.target)
        assert set(again.auxiliary) == set(one.auxiliary)
        assert dict(zip(again.auxiliary, again.values, strict=True)) == dict(
            zip(one.auxiliary, one.values, strict=True)
        )
    matrix = relations_of(merged, "u").matrix
    assert matrix is not None
    np.testing.assert_array_equal(matrix, matrix.T)


def test_a_task_that_changed_is_not_merged() -> None:
    first = graph_of(make("t"))
    with pytest.raises(UserError, match="two: the auxiliary task 'b' differs from that of one"):
        merge_graphs([("one", first), ("two", graph_of(make("u"), b=spec(90)))])
    with pytest.raises(UserError, match="two: the target task 't' differs from that of one"):
        merge_graphs([("one", first), ("two", graph_of(make("t"), t=spec(90)))])


def test_several_targets_need_a_name() -> None:
    merged, _ = merge_graphs([("one", graph_of(make("t"))), ("two", graph_of(make("u")))])
    with pytest.raises(UserError, match="2 targets; choose one of t, u"):
        relations_of(merged)
    with pytest.raises(UserError, match="no target 'w'"):
        relations_of(merged, "w")


def test_the_folder_of_a_run_stands_for_its_graph(tmp_path: Path) -> None:
    save_graph(graph_of(make("t")), tmp_path / "arms" / "weighted")
    assert graph_file(tmp_path / "arms/weighted") == tmp_path / "arms/weighted/graph.json"
    with pytest.raises(UserError, match=r"give one of its arms, e\.g\. .*weighted"):
        graph_file(tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not a relation graph"),
        ("[]", "not a relation graph"),
        ('{"nodes": [], "links": []}', "there is no target"),
        ('{"nodes": [{"id": "a"}], "links": []}', "node 'a' has no kind"),
        ('{"nodes": [{"id": "a", "kind": "target"}], "links": []}', "target 'a' has no estimator"),
    ],
)
def test_what_is_no_graph(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "graph.json"
    path.write_text(text)
    with pytest.raises(UserError, match=problem):
        load_graph(path)
    path = path.with_suffix(".graphml")
    path.write_text("<" + text)
    with pytest.raises(UserError, match="not a relation graph"):
        load_graph(path)


def test_what_version_0_1_wrote_can_be_read(tmp_path: Path) -> None:
    relations = dataclasses.replace(make("t"), matrix=None)
    graph = graph_of(relations)
    node = graph.nodes["t"]
    graph.graph = {key: node.pop(key) for key in ("estimator", "reliability", "run", "seed")}
    for _, _, edge in graph.edges(data=True):
        edge.pop("allowed")
    (tmp_path / "graph.json").write_text(json.dumps(nx.node_link_data(graph, edges="links")))
    assert_equal(relations_of(load_graph(tmp_path)), relations)


def test_separation_by_hand() -> None:
    found = separation(np.asarray([0.5, 0.0, 0.3]), np.full(3, 0.3), np.asarray([0.0, 0.0, 0.3]), np.full(3, 0.4))
    np.testing.assert_allclose(found, [1, 0, 0])
    exact = separation(np.asarray([0.5, 0.5]), np.zeros(2), np.asarray([0.5, 0.4]), np.zeros(2))
    np.testing.assert_array_equal(exact, [0, np.inf])


def test_comparing_a_graph_with_itself_and_with_its_opposite() -> None:
    relations, weights = make("t"), {name: float(index) for index, name in enumerate(NAMES)}
    alike = relation_difference(relations, weights, relations, weights)
    assert alike.significant == ()
    assert (alike.rank_correlation, alike.weight_correlation) == (pytest.approx(1), pytest.approx(1))
    opposite = dataclasses.replace(relations, values=-relations.values)
    assert relation_difference(relations, weights, opposite, weights).rank_correlation == pytest.approx(-1)


def test_a_difference_counts_beyond_two_errors() -> None:
    first = dataclasses.replace(make("t"), values=np.zeros(4), standard_errors=np.full(4, 0.3))
    values, errors = np.asarray([0.9, 1.1, -1.1, 1.1]), np.asarray([0.4, 0.4, 0.4, np.nan])
    second = Relations("u", ("a", "b", "c", "d"), values, errors, "response", 8)
    weights = dict.fromkeys(NAMES, 1.0)
    assert relation_difference(first, weights, second, weights).significant == ("b", "c")


def test_comparison_is_over_what_both_have() -> None:
    first, second = make("t", ("a", "b", "c")), make("u", ("d", "c", "b"))
    weights = dict.fromkeys(NAMES, 1.0)
    found = relation_difference(first, weights, second, weights)
    assert found.names == ("b", "c")
    assert found.missing == (("a",), ("d",))
    np.testing.assert_array_equal(found.values, [first.values[1:], second.values[[2, 1]]])
