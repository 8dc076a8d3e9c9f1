"""The report of a parameter study: table, Markdown, figures, and one HTML file that needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from metarestore.evaluation.importance import Importance, importance
from metarestore.evaluation.results import write_json
from metarestore.evaluation.sweep import TrialResult, TuningResult
from metarestore.files import write_atomically
from metarestore.reports.html import Drawing, duration
from metarestore.reports.markdown import markdown_code, markdown_text
from metarestore.reports.pictures import save_png
from metarestore.reports.style import svg
from metarestore.reports.tuning_figures import importance_bars, parallel_coordinates, trial_curves

_NOTHING = "–"
_FIGURES = 4
"""Columns of the table before those of the values."""
_WEAK = 0.2
"""Share of the variance below which importances are not worth reading."""


def sweep_headings(sweep: TuningResult) -> tuple[str, ...]:
    """Returns the headings of the table of trials."""
    return ("trial", f"{sweep.metric}, dB", "step", "state", *sweep.keys)


def sweep_rows(sweep: TuningResult) -> list[tuple[str, ...]]:
    """Writes every trial as text: ranked ones first, then those that failed or were never measured."""
    rest = [trial for trial in sweep.trials if trial not in sweep.ranked]
    return [_row(sweep, trial) for trial in (*sweep.ranked, *rest)]


def sweep_table(sweep: TuningResult) -> Table:
    """Lays out the trials for a terminal; the best is bold."""
    table = Table(title=Text(sweep.name, style="bold"), title_justify="left", box=None)
    headings = sweep_headings(sweep)
    for heading in (*headings[:_FIGURES], "values"):
        table.add_column(Text(heading), overflow="fold")
    for index, row in enumerate(sweep_rows(sweep)):
        style = "bold" if index == 0 and sweep.best is not None else ""
        # A terminal has no room for a column per key.
        named = zip(sweep.keys, row[_FIGURES:], strict=True)
        values = ", ".join(f"{key} {cell}" for key, cell in named if cell != _NOTHING)
        table.add_row(*(Text(cell) for cell in (*row[:_FIGURES], values)), style=style)
    return table


def sweep_markdown(sweep: TuningResult) -> str:
    """Writes the table of trials in Markdown."""
    headings = sweep_headings(sweep)
    lines = [headings, ("---",) * len(headings), *sweep_rows(sweep)]
    return "".join("| " + " | ".join(markdown_text(cell) for cell in line) + " |\n" for line in lines)


def sweep_summary(sweep: TuningResult) -> str:
    """Says in a sentence or two what was found."""
    states = [trial.state for trial in sweep.trials]
    counts = ", ".join(
        f"{states.count(state)} {state}" for state in ("finished", "stopped", "failed") if state in states
    )
    text = f"{len(sweep.trials)} trials ({counts}) in {duration(sweep.seconds)}."
    if sweep.best is None:
        return f"{text} None was measured."
    return f"{text} The best, trial {sweep.best.number}, reaches {sweep.best.metric:.2f} dB ({sweep.metric})."


def unmeasured_sweep(sweep: TuningResult) -> str:
    """Says why a search in which no trial was measured found nothing, and what to do."""
    errors = Counter(trial.error or trial.state for trial in sweep.trials)
    why = "; ".join(f"{count} x {error}" for error, count in errors.most_common(3))
    return f"search: none of {len(sweep.trials)} trials could be measured ({why}); narrow its ranges to lower rates"


def importance_note(sweep: TuningResult, found: Importance | None) -> str:
    """Says what the importances are, or why there are none."""
    if sweep.changing:
        return "PBT changes values in the middle of trials, so none can be credited with the outcome."
    if found is None:
        return "Too few trials were measured at a common step, or they all came out alike: nothing can be said."
    weak = " Below 0.2 the bars are not worth reading: more trials are needed." if found.explained < _WEAK else ""
    return (
        f"Permutation importance of a random forest fitted to {found.trials} trials at step {found.step}, the last "
        f"that all of them reached; on trials that a tree has not seen it explains R² = {found.explained:.2f} of the "
        f"variance.{weak} Whiskers: standard deviation over shuffles."
    )


def publish_sweep(sweep: TuningResult, configuration_yaml: str, out: Path, command: str) -> list[Path]:
    """Writes results.json, results.md, report.html and the figures into a folder; returns what was written."""
    found = importance(sweep)
    data = sweep.to_json() | {"importance": vars(found) if found else None}
    write_json(out / "results.json", data)
    parts = (markdown_code(command), sweep_summary(sweep), sweep_markdown(sweep) + importance_note(sweep, found))
    text = "\n\n".join(parts) + "\n"
    write_atomically(out / "results.md", text.encode())
    write_atomically(out / "report.html", render_sweep(sweep, configuration_yaml, command).encode())
    for name, figure in _figures(sweep, found):
        save_png(figure, out / "figures" / f"{name}.png")
    written = [out / "results.json", out / "results.md", out / "report.html", out / "figures"]
    return [path for path in written if path.exists()]


def render_sweep(sweep: TuningResult, configuration_yaml: str, command: str) -> str:
    """Returns the report as HTML."""
    environment = Environment(
        loader=PackageLoader("metarestore", "reports/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found = importance(sweep)
    # Matplotlib escapes the text of its SVG.
    drawings = {name: Drawing("", Markup(svg(figure))) for name, figure in _figures(sweep, found)}
    return environment.get_template("tuning.html.j2").render(
        sweep=sweep,
        summary=sweep_summary(sweep),
        headings=sweep_headings(sweep),
        rows=sweep_rows(sweep),
        failures=[trial for trial in sweep.trials if trial.error],
        drawings=drawings,
        note=importance_note(sweep, found),
        command=command,
        configuration=configuration_yaml,
    )


def _figures(sweep: TuningResult, found: Importance | None) -> Iterator[tuple[str, Figure]]:
    if sweep.ranked:
        yield "trials", trial_curves(sweep)
        yield "parallel-coordinates", parallel_coordinates(sweep)
    if found is not None:
        yield "importance", importance_bars(found)


def _row(sweep: TuningResult, trial: TrialResult) -> tuple[str, ...]:
    metric = f"{trial.metric:.2f}" if trial.history else _NOTHING
    values = [_cell(trial.values[key]) if key in trial.values else _NOTHING for key in sweep.keys]
    return (str(trial.number), metric, str(trial.step), trial.state, *values)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
