"""The report of a tuning run: table, Markdown, figures, and one self-contained HTML file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from metarestore.evaluation.importance import Importance, importance
from metarestore.evaluation.results import write_json
from metarestore.evaluation.tuning import TrialResult, TuningResult
from metarestore.files import write_atomically
from metarestore.reports.markdown import markdown_code, markdown_text
from metarestore.reports.pages import page_templates
from metarestore.reports.pictures import save_png
from metarestore.reports.study.html import Drawing, duration
from metarestore.reports.style import svg
from metarestore.reports.tuning.figures import importance_bars, parallel_coordinates, trial_curves

_NOTHING = "–"
_FIXED = 4
"""Number of columns of the table before those of the parameters."""
_WEAK = 0.2
"""Explained variance below which importances are not reliable."""


def trial_headings(tuning: TuningResult) -> tuple[str, ...]:
    """Returns the headings of the table of trials."""
    return ("trial", f"{tuning.metric}, dB", "step", "state", *tuning.keys)


def trial_rows(tuning: TuningResult) -> list[tuple[str, ...]]:
    """Formats all trials: ranked ones first, then those that failed or have no measurement."""
    rest = [trial for trial in tuning.trials if trial not in tuning.ranked]
    return [_row(tuning, trial) for trial in (*tuning.ranked, *rest)]


def trial_table(tuning: TuningResult) -> Table:
    """Returns the table of trials for a terminal; the best is bold."""
    table = Table(title=Text(tuning.name, style="bold"), title_justify="left", box=None)
    headings = trial_headings(tuning)
    for heading in (*headings[:_FIXED], "values"):
        table.add_column(Text(heading), overflow="fold")
    for index, row in enumerate(trial_rows(tuning)):
        style = "bold" if index == 0 and tuning.best is not None else ""
        # A terminal is too narrow for a column per key.
        named = zip(tuning.keys, row[_FIXED:], strict=True)
        values = ", ".join(f"{key} {cell}" for key, cell in named if cell != _NOTHING)
        table.add_row(*(Text(cell) for cell in (*row[:_FIXED], values)), style=style)
    return table


def tuning_markdown(tuning: TuningResult) -> str:
    """Returns the table of trials in Markdown."""
    headings = trial_headings(tuning)
    lines = [headings, ("---",) * len(headings), *trial_rows(tuning)]
    return "".join("| " + " | ".join(markdown_text(cell) for cell in line) + " |\n" for line in lines)


def tuning_summary(tuning: TuningResult) -> str:
    """Summarises the results in one or two sentences."""
    states = [trial.state for trial in tuning.trials]
    counts = ", ".join(
        f"{states.count(state)} {state}" for state in ("finished", "stopped", "failed") if state in states
    )
    text = f"{len(tuning.trials)} trials ({counts}) in {duration(tuning.seconds)}."
    if tuning.best is None:
        return f"{text} None of them was evaluated."
    return f"{text} The best, trial {tuning.best.number}, reaches {tuning.best.metric:.2f} dB ({tuning.metric})."


def unmeasured_trials(tuning: TuningResult) -> str:
    """Returns the error message of a tuning run without any measured trial."""
    errors = Counter(trial.error or trial.state for trial in tuning.trials)
    reasons = "; ".join(f"{count} x {error}" for error, count in errors.most_common(3))
    return f"search: none of {len(tuning.trials)} trials could be evaluated ({reasons}); lower the learning rates"


def importance_note(tuning: TuningResult, importances: Importance | None) -> str:
    """Explains the importances, or why there are none."""
    if tuning.changing:
        return "PBT changes values during a trial, so the result cannot be attributed to single values."
    if importances is None:
        return "Importances are unavailable: too few trials were measured at a common step, or their results are equal."
    explained = importances.explained
    weak = " Importances are unreliable below 0.2: run more trials." if explained < _WEAK else ""
    return (
        f"Permutation importance of a random forest fitted to {importances.trials} trials at step {importances.step}, "
        f"the last step that all of them reached. Its out-of-bag R² is {explained:.2f}.{weak} "
        "Error bars: standard deviation over shuffles."
    )


def publish_tuning(tuning: TuningResult, configuration_yaml: str, out: Path, command: str) -> list[Path]:
    """Writes results.json, results.md, report.html and the figures into a folder; returns the written paths."""
    importances = importance(tuning)
    data = tuning.to_json() | {"importance": vars(importances) if importances else None}
    write_json(out / "results.json", data)
    notes = ["".join(f"- {markdown_text(note)}\n" for note in tuning.notes)] if tuning.notes else []
    table = tuning_markdown(tuning) + importance_note(tuning, importances)
    parts = (markdown_code(command), tuning_summary(tuning), *notes, table)
    text = "\n\n".join(parts) + "\n"
    write_atomically(out / "results.md", text.encode())
    write_atomically(out / "report.html", render_tuning(tuning, configuration_yaml, command).encode())
    for name, figure in _figures(tuning, importances):
        save_png(figure, out / "figures" / f"{name}.png")
    written = [out / "results.json", out / "results.md", out / "report.html", out / "figures"]
    return [path for path in written if path.exists()]


def render_tuning(tuning: TuningResult, configuration_yaml: str, command: str) -> str:
    """Returns the report as HTML."""
    importances = importance(tuning)
    # Matplotlib escapes the text of its SVG.
    drawings = {name: Drawing("", Markup(svg(figure))) for name, figure in _figures(tuning, importances)}
    page = page_templates().get_template("tuning.html.j2")
    return page.render(
        tuning=tuning,
        summary=tuning_summary(tuning),
        headings=trial_headings(tuning),
        rows=trial_rows(tuning),
        failures=[trial for trial in tuning.trials if trial.error],
        drawings=drawings,
        note=importance_note(tuning, importances),
        command=command,
        configuration=configuration_yaml,
    )


def _figures(tuning: TuningResult, importances: Importance | None) -> Iterator[tuple[str, Figure]]:
    if tuning.ranked:
        yield "trials", trial_curves(tuning)
        yield "parallel-coordinates", parallel_coordinates(tuning)
    if importances is not None:
        yield "importance", importance_bars(importances)


def _row(tuning: TuningResult, trial: TrialResult) -> tuple[str, ...]:
    metric = f"{trial.metric:.2f}" if trial.history else _NOTHING
    values = [_cell(trial.values[key]) if key in trial.values else _NOTHING for key in tuning.keys]
    return (str(trial.number), metric, str(trial.step), trial.state, *values)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
