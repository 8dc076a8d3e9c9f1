"""The relation graph: task distributions as nodes, relations as edges, saved with where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
from networkx.readwrite import json_graph

from metarestore.errors import UserError
from metarestore.graphs.relations import Relations
from metarestore.models.checkpoint import write_atomically
from metarestore.tasks.spec import PairsSpec, SyntheticSpec, content_hash

Graph: TypeAlias = "nx.DiGraph[str]"


def build_graph(
    relations: Relations,
    weights: Mapping[str, float],
    auxiliary: Mapping[str, SyntheticSpec | PairsSpec],
    target: SyntheticSpec | PairsSpec,
    provenance: Mapping[str, Any],
) -> Graph:
    """Builds the graph of one study.

    Args:
        relations: Relations to the target, and among the distributions if the estimator gives them.
        weights: Gradient weight of each auxiliary distribution.
        auxiliary: Specifications of the auxiliary distributions.
        target: Specification of the target.
        provenance: Seeds, run, versions: whatever is needed to know where the values come from.

    Returns:
        A directed graph. Nodes carry `kind` (auxiliary or target), `content` and `parameters`; edges from auxiliary to
        target carry `relation`, `standard_error`, `weight`, `estimator` and `draws`; edges among auxiliary
        distributions carry `relation` and `estimator`, if the estimator relates them.
    """
    graph: Graph = nx.DiGraph()
    graph.graph |= {**provenance, "estimator": relations.estimator, **_defined(reliability=relations.reliability)}
    for name, spec in auxiliary.items():
        graph.add_node(name, kind="auxiliary", content=content_hash(spec), parameters=_parameters(spec))
    graph.add_node(relations.target, kind="target", content=content_hash(target), parameters=_parameters(target))
    for name, value, error in zip(relations.auxiliary, relations.values, relations.standard_errors, strict=True):
        graph.add_edge(
            name,
            relations.target,
            relation=float(value),
            **_defined(standard_error=error),
            weight=float(weights[name]),
            estimator=relations.estimator,
            draws=relations.draws,
        )
    if relations.matrix is not None:
        for i, name in enumerate(relations.auxiliary):
            for j, other in enumerate(relations.auxiliary):
                if i != j:
                    value = float(relations.matrix[i, j])
                    graph.add_edge(name, other, relation=value, estimator=relations.estimator)
    return graph


def relations_of(graph: Graph) -> Relations:
    """Reads the relations back from a graph."""
    target = next(name for name, data in graph.nodes(data=True) if data["kind"] == "target")
    edges = [(source, data) for source, _, data in graph.in_edges(target, data=True)]
    return Relations(
        target=target,
        auxiliary=tuple(source for source, _ in edges),
        values=np.asarray([data["relation"] for _, data in edges]),
        standard_errors=np.asarray([data.get("standard_error", np.nan) for _, data in edges]),
        estimator=graph.graph["estimator"],
        draws=max((data["draws"] for _, data in edges), default=0),
        reliability=graph.graph.get("reliability", float("nan")),
    )


def save_graph(graph: Graph, folder: Path) -> None:
    """Writes `graph.json` (node-link) and `graph.graphml` into a folder."""
    text = json.dumps(json_graph.node_link_data(graph, edges="links"), indent=2)
    write_atomically(folder / "graph.json", text.encode())
    write_atomically(folder / "graph.graphml", "\n".join(nx.generate_graphml(graph)).encode())


def load_graph(path: Path) -> Graph:
    """Reads a node-link file.

    Raises:
        UserError: It does not exist or holds no graph.
    """
    try:
        graph = json_graph.node_link_graph(json.loads(path.read_text()), directed=True, edges="links")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, nx.NetworkXError) as error:
        raise UserError(f"{path}: not a relation graph ({error})") from error
    return nx.DiGraph(graph)


def _parameters(spec: SyntheticSpec | PairsSpec) -> str:
    """Writes a specification as one string, since GraphML holds scalars only."""
    return json.dumps(spec.model_dump(mode="json"), sort_keys=True)


def _defined(**values: float) -> dict[str, float]:
    """Leaves out undefined values: neither strict JSON nor every GraphML reader knows NaN."""
    return {key: float(value) for key, value in values.items() if np.isfinite(value)}
