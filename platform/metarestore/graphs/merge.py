"""Several relation graphs as one: what was learned for each camera, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import networkx as nx

from metarestore.errors import UserError
from metarestore.graphs.graph import Graph, count_tasks, leads_to_target, targets_of


class Replaced(NamedTuple):
    """A target that two graphs have: the later one counts."""

    target: str
    earlier: str
    later: str


def merge_graphs(graphs: Sequence[tuple[str, Graph]]) -> tuple[Graph, tuple[Replaced, ...]]:
    """Merges graphs, given with the names of their files; where two have the same target, the later one counts.

    Raises:
        UserError: A task of the same name differs in content.
    """
    merged: Graph = nx.DiGraph()
    sources: dict[str, str] = {}
    origins: dict[str, str] = {}
    replaced = []
    for source, graph in graphs:
        _require_same_contents(merged, graph, source, sources)
        for target in targets_of(graph):
            if target in origins:
                replaced.append(Replaced(target, origins[target], source))
                edges = [(a, b) for a, b, edge in merged.in_edges(target, data=True) if leads_to_target(edge)]
                merged.remove_edges_from(edges)
            origins[target] = source
        _take_over(merged, graph)
        sources |= dict.fromkeys(graph, source)
    count_tasks(merged)
    return merged, tuple(replaced)


def _require_same_contents(merged: Graph, graph: Graph, source: str, sources: dict[str, str]) -> None:
    """Refuses a task that changed in between: relations to what it was say nothing of what it is."""
    problems = [
        f"{source}: the {node['kind']} task '{name}' is not the one of {sources[name]}, its file was changed in "
        "between; estimate one of the graphs anew, or rename the task"
        for name, node in graph.nodes(data=True)
        if name in merged and merged.nodes[name].get("content") != node.get("content")
    ]
    if problems:
        raise UserError(problems)


def _take_over(merged: Graph, graph: Graph) -> None:
    """Adds nodes and edges; what is known of a target outweighs what is known of it as an auxiliary distribution."""
    for name, node in graph.nodes(data=True):
        if name not in merged or node["kind"] == "target" or merged.nodes[name]["kind"] == "auxiliary":
            merged.add_node(name)
            merged.nodes[name].clear()
            merged.nodes[name].update(node)
    for a, b, edge in graph.edges(data=True):
        if leads_to_target(edge) or not leads_to_target(merged.get_edge_data(a, b, {})):
            merged.add_edge(a, b)
            merged.edges[a, b].clear()
            merged.edges[a, b].update(edge)
