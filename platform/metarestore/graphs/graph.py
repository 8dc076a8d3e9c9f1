"""The relation graph: task distributions as nodes, relations as edges, saved with their provenance.

A graph holds one or more targets with their incoming edges, so that the estimates for one camera can be reused for the
next. GraphML supports scalars only, so lists are written as JSON strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from xml.etree.ElementTree import ParseError

import networkx as nx
import numpy as np
from networkx.readwrite import json_graph
from numpy.typing import NDArray

from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError
from metarestore.files import write_atomically
from metarestore.graphs.relations import Relations
from metarestore.tasks.spec import DistributionSpec, content_hash

Graph: TypeAlias = "nx.DiGraph[str]"

_ESTIMATED = ("estimator", "draws", "reliability", "attention")
"""Attributes of a target's node that belong to its relations; the others are provenance."""

_NUMBERS = ("relation", "standard_error", "weight", "own_relation", "own_error")
"""Attributes of edges that must be numbers."""


def build_graph(
    relations: Relations,
    weights: Mapping[str, float],
    auxiliary: Mapping[str, DistributionSpec],
    target: DistributionSpec,
    provenance: Mapping[str, Any],
    tasks: Mapping[str, int] | None = None,
) -> Graph:
    """Builds the graph of one study.

    Args:
        relations: Relations to the target, and among the distributions if the estimator provides them.
        weights: Gradient weight of each auxiliary distribution.
        auxiliary: Specifications of the auxiliary distributions.
        target: Specification of the target.
        provenance: Origin of the values, e.g. seeds, run and versions; scalars.
        tasks: Number of tasks that the training drew from each auxiliary distribution, if known.

    Returns:
        A directed graph. Nodes carry `kind` (auxiliary or target), `content` (the content hash of the distribution),
        `parameters` (its specification as JSON) and, where known, `tasks`.
        The target's node also carries `estimator`, `draws`, `reliability` and the provenance. Edges to the target carry
        `relation`, `standard_error`, `weight`, `estimator`, `draws`, `allowed`, `stated` if given by an expert and,
        where known, `tasks`; with a prior also `own_relation` and `own_error`, the estimate without it. Edges among
        auxiliary distributions carry `relation` and `estimator`.
    """
    graph: Graph = nx.DiGraph()
    for name, spec in auxiliary.items():
        graph.add_node(name, kind="auxiliary", content=content_hash(spec), parameters=_parameters(spec))
    attention = {} if relations.attention is None else {"attention": json.dumps(relations.attention[-1].tolist())}
    graph.add_node(
        relations.target,
        kind="target",
        content=content_hash(target),
        parameters=_parameters(target),
        estimator=relations.estimator,
        draws=relations.draws,
        **_defined(reliability=relations.reliability),
        **attention,
        **provenance,
    )
    for index, name in enumerate(relations.auxiliary):
        drawn = {} if tasks is None else {"tasks": int(tasks[name])}
        graph.add_edge(name, relations.target, **_edge(relations, index), weight=float(weights[name]), **drawn)
    if relations.matrix is not None:
        _add_relatedness(graph, relations, relations.matrix)
    count_tasks(graph)
    return graph


def _edge(relations: Relations, index: int) -> dict[str, Any]:
    """Returns the relation of one auxiliary distribution as attributes of its edge to the target."""
    own = {}
    if relations.estimated is not None:
        own = _defined(own_relation=relations.estimated[0, index], own_error=relations.estimated[1, index])
    attention = {} if relations.attention is None else {"attention": json.dumps(relations.attention[index].tolist())}
    return {
        **_defined(relation=relations.values[index], standard_error=relations.standard_errors[index]),
        "estimator": relations.estimator,
        "draws": relations.draws,
        "allowed": relations.allowed is None or bool(relations.allowed[index]),
        **({"stated": True} if relations.stated is not None and relations.stated[index] else {}),
        **own,
        **attention,
    }


def _add_relatedness(graph: Graph, relations: Relations, matrix: NDArray[np.float64]) -> None:
    for i, name in enumerate(relations.auxiliary):
        for j, other in enumerate(relations.auxiliary):
            if i != j and np.isfinite(matrix[i, j]):
                graph.add_edge(name, other, relation=float(matrix[i, j]), estimator=relations.estimator)


def leads_to_target(edge: Mapping[str, Any]) -> bool:
    """Returns whether an edge relates an auxiliary distribution to a target, not to another auxiliary distribution."""
    return "weight" in edge


def count_tasks(graph: Graph) -> None:
    """Sets at each node the number of tasks drawn from it for all targets; shots of a target do not count."""
    for name in graph:
        drawn = [edge["tasks"] for _, _, edge in graph.out_edges(name, data=True) if "tasks" in edge]
        graph.nodes[name].pop("tasks", None)
        if drawn:
            graph.nodes[name]["tasks"] = sum(drawn)


def targets_of(graph: Graph) -> tuple[str, ...]:
    """Returns the names of a graph's targets."""
    return tuple(name for name, data in graph.nodes(data=True) if data["kind"] == "target")


def chosen_target(graph: Graph, name: str | None) -> str:
    """Returns the target of that name, or the only one.

    Raises:
        UserError: There is no such target, or there are several and none is given.
    """
    known = targets_of(graph)
    if name is None:
        if len(known) > 1:
            raise UserError(f"the graph has {len(known)} targets; choose one of {', '.join(known)}")
        return known[0]
    if name not in known:
        raise UserError(f"the graph has no target '{name}'{did_you_mean(name, known, noun='targets')}")
    return name


def relations_of(graph: Graph, target: str | None = None) -> Relations:
    """Returns the relations of a target from a graph; `target` may be omitted if there is only one.

    Raises:
        UserError: There is no such target, or there are several and none is given.
    """
    target = chosen_target(graph, target)
    node = graph.nodes[target]
    edges = {name: edge for name, _, edge in graph.in_edges(target, data=True) if leads_to_target(edge)}

    def column(key: str) -> NDArray[np.float64]:
        return np.asarray([edge.get(key, np.nan) for edge in edges.values()], np.float64)

    attention = None
    if "attention" in node:
        rows = [*(edge["attention"] for edge in edges.values()), node["attention"]]
        attention = np.asarray([json.loads(row) for row in rows], np.float64)
    allowed = np.asarray([edge.get("allowed", True) for edge in edges.values()], np.bool_)
    stated = np.asarray([edge.get("stated", False) for edge in edges.values()], np.bool_)
    estimated = np.stack([column("own_relation"), column("own_error")])
    return Relations(
        target=target,
        auxiliary=tuple(edges),
        values=column("relation"),
        standard_errors=column("standard_error"),
        estimator=node["estimator"],
        draws=int(node.get("draws", 0)),
        reliability=float(node.get("reliability", np.nan)),
        matrix=_matrix(graph, tuple(edges), column("relation"), node["estimator"]),
        allowed=None if allowed.all() else allowed,
        stated=stated if stated.any() else None,
        attention=attention,
        estimated=estimated if np.isfinite(estimated[0]).any() else None,
    )


def _matrix(
    graph: Graph, names: tuple[str, ...], values: NDArray[np.float64], estimator: str
) -> NDArray[np.float64] | None:
    """Assembles the matrix of relations; values of other estimators are undefined (NaN)."""
    relatedness = {
        (names.index(a), names.index(b)): edge["relation"]
        for a, b, edge in graph.edges(data=True)
        if a in names and b in names and edge["estimator"] == estimator and not leads_to_target(edge)
    }
    if not relatedness:
        return None
    matrix = np.full((len(names) + 1, len(names) + 1), np.nan)
    for (i, j), value in relatedness.items():
        matrix[i, j] = value
        # If j is also a target, the edge from i to j holds the relation to it; the reverse edge holds the relatedness.
        matrix[j, i] = relatedness.get((j, i), value)
    matrix[-1, :-1] = matrix[:-1, -1] = values
    np.fill_diagonal(matrix, 1.0)
    return matrix


def weights_of(graph: Graph, target: str | None = None) -> dict[str, float]:
    """Returns the final gradient weights of the training for a target, which may be omitted if there is only one."""
    edges = graph.in_edges(chosen_target(graph, target), data=True)
    return {name: edge["weight"] for name, _, edge in edges if leads_to_target(edge)}


def provenance_of(graph: Graph, target: str) -> dict[str, Any]:
    """Returns the provenance of the relations of a target: run, seed, version, date, prior."""
    node = {"kind", "content", "parameters", "tasks", "measure", *_ESTIMATED}
    return {key: value for key, value in graph.nodes[target].items() if key not in node and value != ""}


def is_real(graph: Graph, name: str) -> bool:
    """Returns whether a distribution consists of its own images, i.e. has no pipeline among its parameters."""
    parameters = json.loads(graph.nodes[name].get("parameters", "{}"))
    return bool(parameters) and "pipeline" not in parameters


def save_graph(graph: Graph, folder: Path) -> None:
    """Writes `graph.json` (node-link) and `graph.graphml` into a folder."""
    write_graph(graph, folder / "graph.json")
    write_graph(graph, folder / "graph.graphml")


def write_graph(graph: Graph, path: Path) -> None:
    """Writes a graph as GraphML if the extension is `.graphml`, or else as node-link JSON."""
    if path.suffix == ".graphml":
        text = "\n".join(nx.generate_graphml(graph))
    else:
        text = json.dumps(json_graph.node_link_data(graph, edges="links"), indent=2)
    write_atomically(path, text.encode())


def graph_file(path: Path) -> Path:
    """Returns the graph file in the folder of a run; the path of a file is returned unchanged.

    Raises:
        UserError: The folder holds no graph.
    """
    if not path.is_dir() or (path / "graph.json").is_file():
        return path / "graph.json" if path.is_dir() else path
    arms = sorted(file.parent for file in path.glob("arms/*/graph.json"))
    remedy = f"give one of its arms, e.g. {arms[0]}" if arms else "give a run that learned from several distributions"
    raise UserError(f"{path}: holds no graph.json; {remedy}")


def load_graph(path: Path) -> Graph:
    """Reads the graph of a run's folder, of a node-link file or of a GraphML file.

    Raises:
        UserError: The file does not exist or holds no relation graph.
    """
    path = graph_file(path)
    try:
        graph = _read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a run's folder or a graph.json") from error
    except (ValueError, KeyError, TypeError, AttributeError, ParseError, nx.NetworkXException) as error:
        raise UserError(f"{path}: not a relation graph ({error!r}); give a run's folder or a graph.json") from error
    if lacking := _lacking(graph):
        raise UserError(f"{path}: not a relation graph ({lacking}); give a run's folder or a graph.json")
    return graph


def _read(path: Path) -> Graph:
    if path.suffix == ".graphml":
        return nx.DiGraph(nx.read_graphml(path))
    data = json.loads(path.read_text(encoding="utf-8"))
    graph: Graph = nx.DiGraph(json_graph.node_link_graph(data, directed=True, edges="links"))
    for name, node in graph.nodes(data=True):
        # Version 0.1 supported one target, whose attributes it wrote to the graph.
        if node.get("kind") == "target" and "estimator" not in node:
            graph.nodes[name].update(graph.graph)
            graph.graph.clear()
    return graph


def _lacking(graph: Graph) -> str | None:
    """Returns why it is not a relation graph, or None."""
    return next(_problems(graph), None)


def _problems(graph: Graph) -> Iterator[str]:
    yield from (f"the node {name} has no name" for name in graph if not isinstance(name, str))
    yield from (f"node '{name}' has no kind" for name, node in graph.nodes(data=True) if "kind" not in node)
    targets = targets_of(graph)
    if not targets:
        yield "there is no target"
    yield from (f"target '{name}' has no estimator" for name in targets if "estimator" not in graph.nodes[name])
    yield from (f"node '{name}' has no content" for name, node in graph.nodes(data=True) if "content" not in node)
    for a, b, edge in graph.edges(data=True):
        if "estimator" not in edge:
            yield f"the edge from '{a}' to '{b}' has no estimator"
        for key in _NUMBERS:
            if not isinstance(edge.get(key, 0.0), int | float):
                yield f"{key} of the edge from '{a}' to '{b}' is not a number: {edge[key]!r}"


def _parameters(spec: DistributionSpec) -> str:
    return json.dumps(spec.model_dump(mode="json"), sort_keys=True)


def _defined(**values: float) -> dict[str, float]:
    """Drops undefined values: neither strict JSON nor every GraphML reader supports NaN."""
    return {key: float(value) for key, value in values.items() if np.isfinite(value)}
