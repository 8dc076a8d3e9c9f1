"""The commands `metarestore graph ...`: show, explain, compare, merge and export relation graphs."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarestore.cli.options import Overwrite
from metarestore.console import console, say
from metarestore.errors import UserError
from metarestore.files import require_output, write_atomically

if TYPE_CHECKING:
    from metarestore.graphs.graph import Graph

graph_app = typer.Typer(no_args_is_help=True, help="Show, explain, compare, merge and export learned relation graphs.")

Source = Annotated[Path, typer.Argument(metavar="PATH", help="A run's folder, or a graph's file.")]
Target = Annotated[str | None, typer.Argument(metavar="[TARGET]", help="A target of the graph; by default all.")]

_COLUMNS = ("source", "target", "relation", "standard_error", "weight", "estimator", "draws", "allowed", "tasks")


@graph_app.command("show")
def graph_show(
    path: Source,
    target: Target = None,
    out: Annotated[Path | None, typer.Option(help="PNG file for a drawing and the heat maps.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Prints the relations, errors, weights and provenance of a graph; draws it with --out."""
    from metarestore.graphs.graph import load_graph

    graph = load_graph(path)
    if out is not None:
        require_output(out, "--out", overwrite=overwrite, endings=(".png",))

    from metarestore.reports.graph.figures import graph_overview
    from metarestore.reports.graph.table import relation_notes, relation_table
    from metarestore.reports.pictures import save_png

    for index, name in enumerate(_targets(graph, target)):
        console.print(*[""] * bool(index), relation_table(graph, name), sep="\n")
        say("\n".join(relation_notes(graph, name)))
    if out is not None:
        save_png(graph_overview(graph), out)
        say(out)


@graph_app.command("explain")
def graph_explain(path: Source, target: Target = None) -> None:
    """Explains which distributions a target resembles, how certain that is, and what would make it more certain."""
    from metarestore.graphs.graph import load_graph, relations_of, weights_of

    graph = load_graph(path)

    from metarestore.reports.graph.summary import explain

    for index, name in enumerate(_targets(graph, target)):
        paragraphs = explain(relations_of(graph, name), weights_of(graph, name))
        console.print(*[""] * bool(index), *paragraphs, sep="\n")


@graph_app.command("diff")
def graph_diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A run's folder, or a graph's file.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another graph, or the same.")],
    target: Annotated[str | None, typer.Option(help="Target in A, and in B too without --other.")] = None,
    other: Annotated[str | None, typer.Option(help="Target in B.")] = None,
) -> None:
    """Compares the relations and weights of two graphs, for the same target or for different ones."""
    from metarestore.graphs.graph import load_graph, relations_of, weights_of

    graphs = load_graph(first), load_graph(second)

    from metarestore.graphs.difference import relation_difference
    from metarestore.reports.graph.table import difference_table, difference_words

    for index, pair in enumerate(_pairs(*graphs, target, other)):
        sides = [(relations_of(graph, name), weights_of(graph, name)) for graph, name in zip(graphs, pair, strict=True)]
        difference = relation_difference(*sides[0], *sides[1])
        if not difference.names:
            raise UserError(f"{first} and {second} have no auxiliary distribution in common; nothing can be compared")
        title = f"A: {pair[0]} in {first}\nB: {pair[1]} in {second}"
        say("\n" * bool(index) + title)
        console.print(difference_table(difference))
        console.print(*difference_words(difference), sep="\n")


@graph_app.command("merge")
def graph_merge(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Runs' folders, or graphs' files.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Merges graphs into one, as a prior for a new target; if two have the same target, the later file is used."""
    from metarestore.graphs.graph import load_graph, targets_of, write_graph
    from metarestore.graphs.merge import merge_graphs

    require_output(out, "--out", overwrite=overwrite, endings=(".json",))
    graph, replaced = merge_graphs([(str(path), load_graph(path)) for path in paths])
    for target, earlier, later in replaced:
        say(f"{target}: taken from {later}, not from {earlier}")
    write_graph(graph, out)
    targets = targets_of(graph)
    count = f"{len(targets)} target{'s' if len(targets) > 1 else ''}"
    say(f"{out}: {count} ({', '.join(targets)}), {len(graph)} distributions")


@graph_app.command("export")
def graph_export(
    path: Source,
    out: Annotated[Path, typer.Option(help="File to write: .graphml, .csv (a table of edges) or .json (node-link).")],
    overwrite: Overwrite = False,
) -> None:
    """Writes a graph for other programs, in the format given by the file's ending."""
    from metarestore.graphs.graph import load_graph, write_graph

    require_output(out, "--out", overwrite=overwrite, endings=(".graphml", ".csv", ".json"))
    graph = load_graph(path)
    if out.suffix.lower() == ".csv":
        write_atomically(out, edge_table(graph).encode())
    else:
        write_graph(graph, out)
    say(out)


def edge_table(graph: Graph) -> str:
    """Returns the edges of a graph as CSV; attributes that an edge lacks are empty."""
    text = io.StringIO()
    table = csv.DictWriter(text, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows({"source": a, "target": b, **edge} for a, b, edge in graph.edges(data=True))
    return text.getvalue()


def _targets(graph: Graph, target: str | None) -> tuple[str, ...]:
    from metarestore.graphs.graph import chosen_target, targets_of

    return targets_of(graph) if target is None else (chosen_target(graph, target),)


def _pairs(first: Graph, second: Graph, target: str | None, other: str | None) -> list[tuple[str, str]]:
    """Returns the pairs of targets, of the first and the second graph, that are compared."""
    from metarestore.graphs.graph import chosen_target, targets_of

    if target is not None or other is not None:
        return [(chosen_target(first, target), chosen_target(second, other or target))]
    shared = [name for name in targets_of(first) if name in targets_of(second)]
    if shared:
        return [(name, name) for name in shared]
    if len(targets_of(first)) == len(targets_of(second)) == 1:
        return [(chosen_target(first, None), chosen_target(second, None))]
    raise UserError(
        f"graph diff: A has the targets {', '.join(targets_of(first))}, B has {', '.join(targets_of(second))}; say "
        "which to compare, with --target NAME --other NAME"
    )
