"""Tables of relation graphs for a terminal: a single graph, or a comparison of two."""

from __future__ import annotations

import math

import numpy as np
from rich.table import Table
from rich.text import Text

from metarestore.graphs.difference import SIGNIFICANT, RelationDifference
from metarestore.graphs.graph import Graph, provenance_of, relations_of, weights_of
from metarestore.graphs.relations import Relations
from metarestore.graphs.weights import effective_tasks
from metarestore.reports.style import signed

_NOTHING = "–"


def relation_table(graph: Graph, target: str) -> Table:
    """Returns the table of a target's auxiliary distributions, the most related first."""
    relations, weights = relations_of(graph, target), weights_of(graph, target)
    title = Text(f"Relations to {target}", style="bold")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    prior = relations.estimated is not None
    for heading in ("auxiliary", "relation", "± error", *(["without prior"] if prior else []), "weight", "allowed"):
        table.add_column(heading, justify="left" if heading == "auxiliary" else "right")
    for index in nearest_first(relations):
        allowed = relations.allowed is None or bool(relations.allowed[index])
        cells = [relations.auxiliary[index], _number(relations.values[index]), _error(relations.standard_errors[index])]
        if relations.estimated is not None:
            cells.append(_number(relations.estimated[0, index]))
        cells += [f"{weights[relations.auxiliary[index]]:.2f}", "yes" if allowed else "no"]
        table.add_row(*(Text(cell) for cell in cells), style="" if allowed else "dim")
    return table


def nearest_first(relations: Relations) -> list[int]:
    """Sorts distributions by their relation; those without one come last."""
    return [int(i) for i in np.argsort(-np.nan_to_num(relations.values, nan=-np.inf), kind="stable")]


def relation_notes(graph: Graph, target: str) -> list[str]:
    """Returns notes on the quality and the provenance of an estimate."""
    relations, weights = relations_of(graph, target), weights_of(graph, target)
    reliability = f"{relations.reliability:.2f}" if math.isfinite(relations.reliability) else "unknown"
    known = [f"estimator {relations.estimator}", f"draws {relations.draws}", f"reliability {reliability}"]
    if any(weights.values()):
        known.append(f"effective distributions {effective_tasks(list(weights.values())):.1f} of {len(weights)}")
    origin = [f"{key} {value}" for key, value in provenance_of(graph, target).items()]
    return [", ".join(parts) for parts in (known, origin) if parts]


def difference_table(difference: RelationDifference) -> Table:
    """Returns a table that compares two relation graphs, A and B; significant differences are bold."""
    table = Table(box=None, pad_edge=False)
    for heading in ("auxiliary", "A", "B", "B − A", "z-score", "weight A", "weight B"):
        table.add_column(heading, justify="left" if heading == "auxiliary" else "right")
    for index in np.argsort(-np.nan_to_num(difference.values[0], nan=-np.inf), kind="stable"):
        values, errors = difference.values[:, index], difference.errors[:, index]
        separation = difference.separations[index]
        table.add_row(
            Text(difference.names[index]),
            *(
                _number(value) + (f" ± {error:.2f}" if math.isfinite(error) else "")
                for value, error in zip(values, errors, strict=True)
            ),
            _number(values[1] - values[0]),
            f"{signed(separation, 1)}" if math.isfinite(separation) else _NOTHING,
            *(f"{weight:.2f}" for weight in difference.weights[:, index]),
            style="bold" if abs(separation) > SIGNIFICANT else "",
        )
    return table


def difference_words(difference: RelationDifference) -> list[str]:
    """Describes the agreement of two relation graphs, A and B."""
    lines = [
        f"Rank correlation over {len(difference.names)} distributions: relations "
        f"{_correlation(difference.rank_correlation)}, weights {_correlation(difference.weight_correlation)}."
    ]
    known = int(np.isfinite(difference.separations).sum())
    if difference.significant:
        names = ", ".join(difference.significant)
        lines.append(f"Relations that differ by more than {SIGNIFICANT:g} standard errors: {names}.")
    elif known:
        lines.append(f"No relation differs by more than {SIGNIFICANT:g} standard errors.")
    if known < len(difference.names):
        lines.append(f"Relations without standard errors, not compared: {len(difference.names) - known}.")
    for name, missing in zip("BA", difference.missing, strict=True):
        if missing:
            lines.append(f"Not in {name}: {', '.join(missing)}.")
    return lines


def _correlation(value: float) -> str:
    return signed(value) if math.isfinite(value) else "undefined"


def _number(value: float) -> str:
    return signed(float(value)) if math.isfinite(value) else _NOTHING


def _error(value: float) -> str:
    if not math.isfinite(value):
        return _NOTHING
    return f"{value:.2f}" if value else "stated"
