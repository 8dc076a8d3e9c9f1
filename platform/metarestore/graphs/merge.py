"""Merges several relation graphs, e.g. of different cameras, into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import networkx as nx

from metarestore.errors import UserError
from metarestore.graphs.graph import Graph, count_tasks, leads_to_target, targets_of


class Replaced(NamedTuple):
    """A target that occurs in two graphs: the later graph takes precedence."""

    target: str
    earlier: str
    later: str


def merge_graphs(graphs: Sequence[tuple[str, Graph]]) -> tuple[Graph, tuple[Replaced, ...]]:
    """Merges graphs, given as (file name, graph); for a target in several graphs, the last one takes precedence.

    Raises:
        UserError: A task has different contents in two graphs.
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
        _add(merged, graph)
        sources |= dict.fromkeys(graph, source)
    count_tasks(merged)
    return merged, tuple(replaced)


def _require_same_contents(merged: Graph, graph: Graph, source: str, sources: dict[str, str]) -> None:
    """Raises `UserError` if a task has changed: relations of its old version are not valid for the new one."""
    problems = [
        f"{source}: the {node['kind']} task '{name}' differs from that of {sources[name]}, because its file has "
        "changed; estimate one of the graphs again, or rename the task"
        for name, node in graph.nodes(data=True)
        if name in merged and merged.nodes[name].get("content") != node.get("content")
    ]
    if problems:
        raise UserError(problems)


def _add(merged: Graph, graph: Graph) -> None:
    """Adds nodes and edges; data of a target takes precedence over its data as an auxiliary distribution."""
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
