"""Figures of a tuning run: metric over steps, parallel coordinates of the trials, parameter importances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarestore.decibels import FLOOR
from metarestore.evaluation.importance import Importance
from metarestore.evaluation.tuning import TrialResult, TuningResult, columns, is_number
from metarestore.reports.style import GREY, PALETTE, SMALL, WIDTH, house_style

Floats = NDArray[np.float64]
_COLOURS = "viridis"
_ABSENT = -0.12
"""Height on the axis of a parameter that a trial does not have."""


@house_style
def trial_curves(tuning: TuningResult) -> Figure:
    """Draws the metric of every trial over its steps; the best is thick, and dots mark the last measurements."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for trial in reversed(tuning.ranked):
        best = trial is tuning.best
        colour = PALETTE[1] if best else PALETTE[0]
        # Measurements of a trial that diverged and recovered would compress all other curves.
        steps, values = zip(*((step, value) for step, value in trial.history if value > FLOOR), strict=True)
        axes.plot(steps, values, color=colour, lw=2.4 if best else 1.0, alpha=1.0 if best else 0.55)
        axes.plot(steps[-1:], values[-1:], "o", ms=4, color=colour, alpha=1.0 if best else 0.55)
    axes.set_xlabel("outer step")
    axes.set_ylabel(f"{tuning.metric}, dB")
    if tuning.best is not None:
        axes.set_title(f"{len(tuning.ranked)} trials; the best, trial {tuning.best.number}, is thick")
    return figure


@house_style
def parallel_coordinates(tuning: TuningResult) -> Figure:
    """Draws every trial as a line across one axis per parameter and the metric at a step that all have reached."""
    step = tuning.common_step
    # The best trial is drawn last, on top of the others.
    trials = tuning.ranked[::-1]
    table = columns(tuning, trials)
    metric = np.asarray([trial.metric if step is None else trial.at(step) for trial in trials])
    table["metric"] = np.where(metric > FLOOR, metric, -np.inf)
    figure = Figure(figsize=(max(WIDTH, 1.5 * len(table)), 4.0), layout="constrained")
    axes = figure.add_subplot()
    heights = np.stack([_heights(column) for column in table.values()])
    # Coloured by rank: with colours by value, one diverged trial would make all others look the same.
    ranks = metric.argsort().argsort() / max(len(metric) - 1, 1)
    for index, trial in enumerate(trials):
        best = trial is tuning.best
        colour = PALETTE[1] if best else colormaps[_COLOURS](ranks[index])
        axes.plot(heights[:, index], color=colour, lw=2.6 if best else 1.2, alpha=1.0 if best else 0.7)
    label = f"{tuning.metric}, dB" + (f"\nat step {step}" if step else "")
    _label_axes(axes, table, [*tuning.keys, label], tuning, trials)
    return figure


@house_style
def importance_bars(importance: Importance) -> Figure:
    """Draws parameter importances, largest on top, with their standard deviation over shuffles."""
    order = sorted(importance.values, key=lambda key: importance.values[key])
    figure = Figure(figsize=(WIDTH, 0.9 + 0.34 * len(order)), layout="constrained")
    axes = figure.add_subplot()
    rows = np.arange(len(order))
    values = [importance.values[key] for key in order]
    axes.barh(rows, values, xerr=[importance.errors[key] for key in order], color=PALETTE[0], ecolor=GREY, height=0.6)
    axes.set_yticks(rows, order)
    axes.set_xlabel("decrease of R² when shuffled")
    axes.grid(axis="y", visible=False)
    return figure


def _heights(column: Floats) -> Floats:
    """Scales a column to 0..1, with missing values below 0."""
    known = column[np.isfinite(column)]
    if not len(known):
        return np.full(len(column), _ABSENT)
    low, span = float(known.min()), float(np.ptp(known)) or 1.0
    return np.where(np.isfinite(column), (column - low) / span, _ABSENT)


def _label_axes(
    axes: Axes,
    table: dict[str, Floats],
    labels: Sequence[str],
    tuning: TuningResult,
    trials: Sequence[TrialResult],
) -> None:
    axes.set_axis_off()
    axes.set_ylim(_ABSENT - 0.06, 1.2)
    for position, (label, (key, column)) in enumerate(zip(labels, table.items(), strict=True)):
        axes.vlines(position, _ABSENT, 1.0, color=GREY, lw=0.8)
        axes.text(position, 1.06, label, ha="center", va="bottom", fontsize=SMALL, fontweight="bold")
        for height, text in _ticks(key, column, tuning, trials):
            axes.text(position + 0.03, height, text, va="center", fontsize=SMALL, bbox=_BOX)


_BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}


def _ticks(key: str, column: Floats, tuning: TuningResult, trials: Sequence[TrialResult]) -> list[tuple[float, str]]:
    """Returns the tick labels of an axis: the ends of a range, or every choice."""
    written = [trial.values.get(key) for trial in trials]
    heights = _heights(column)
    absent = [(_ABSENT, "none")] if key in tuning.keys and not np.isfinite(column).all() else []
    if key in tuning.keys and not all(is_number(value) or value is None for value in written):
        named = {float(heights[i]): str(value) for i, value in enumerate(written) if value is not None}
        return [*absent, *named.items()]
    known = column[np.isfinite(column)]
    if not len(known):
        return absent
    ends = sorted({float(known.min()), float(known.max())})
    back = 10.0 ** np.asarray(ends) if key in tuning.logarithmic else np.asarray(ends)
    return [*absent, *((float(i), f"{value:.4g}") for i, value in enumerate(back.tolist()))]
