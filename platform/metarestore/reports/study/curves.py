"""Figures of a study's arms: training, gradient weights, adaptation, and the gain over the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from metarestore.evaluation.results import ArmResult, Curve, History, StudyResult
from metarestore.evaluation.statistics import paired_difference
from metarestore.reports.study.table import baseline_arm, learned_arms
from metarestore.reports.style import (
    GREY,
    SMALL,
    WIDTH,
    EndLabel,
    LineStyle,
    arm_styles,
    distribution_styles,
    house_style,
    label_ends,
    signed,
    smoothed,
)

Floats = NDArray[np.float64]

_SMOOTHING = 12
"""Smoothed curves average over 1/12 of the steps, since the metrics of a few tasks have a high variance."""
_DEPTH = 4.0
"""Maximum depth below the lowest reference down to which a diverging curve is drawn, in dB."""


class _Line(NamedTuple):
    label: str
    steps: Sequence[int] | NDArray[np.int64]
    values: Floats
    style: LineStyle


@house_style
def weights_over_time(history: History) -> Figure:
    """Draws gradient weights, smoothed shares of the weighted gradient norm, and the effective number of tasks."""
    figure = Figure(figsize=(WIDTH, 7.6), layout="constrained")
    weights, shares, effective = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.2))
    steps, count = history.steps, len(history.distributions)
    names = tuple(name if k < count else f"{name} (shots)" for k, name in enumerate(history.sources))
    styles = distribution_styles(names)
    window = _window(steps)
    weights.set_ylim(0, 1.08 * float(np.nanmax(history.weights, initial=1.0)))
    labels = [f"{name} {_at(column, -1):.2f}" for name, column in zip(names, history.weights.T, strict=True)]
    _draw(weights, [_Line(labels[i], steps, history.weights[:, i], styles[n]) for i, n in enumerate(names)])
    percent = 100 * smoothed(history.shares, window)
    _draw(shares, [_Line(n, steps, percent[:, i], styles[n]) for i, n in enumerate(names)])
    weights.set_title("Gradient weight (mean 1)")
    shares.set_title(f"Share of the weighted gradient norm, % (mean over {window} logged steps)")
    effective.plot(steps, history.effective, color="#222222")
    effective.set_ylim(0, max(1.0, 1.1 * count))
    effective.set_title(f"Effective number of distributions, of {count}: {_at(history.effective, -1):.1f} at the end")
    effective.set_xlabel("outer step")
    return figure


@house_style
def relations_over_time(history: History) -> Figure:
    """Draws the relation of each distribution to the target over time, with a band of one standard error."""
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes = figure.add_subplot()
    steps = np.asarray([step for step, _, _ in history.related])
    values = np.stack([relations for _, relations, _ in history.related])
    errors = np.nan_to_num(np.stack([error for _, _, error in history.related]))
    styles = distribution_styles(history.distributions)
    for column, name in enumerate(history.distributions):
        low, high = values[:, column] - errors[:, column], values[:, column] + errors[:, column]
        axes.fill_between(steps, low, high, color=styles[name].colour, alpha=0.08, lw=0)
    axes.set_ylim(*_padded(np.concatenate([values - errors, values + errors])))
    labels = [f"{name} {signed(_at(column, -1))}" for name, column in zip(history.distributions, values.T, strict=True)]
    lines = zip(labels, values.T, history.distributions, strict=True)
    _draw(axes, [_Line(label, steps, column, styles[name]) for label, column, name in lines])
    axes.set_title(f"Relation to the target, estimated {len(steps)} times (band: ± standard error)")
    axes.set_xlabel("outer step")
    return figure


def _padded(values: Floats) -> tuple[float, float]:
    low, high = float(np.nanmin(values, initial=0.0)), float(np.nanmax(values, initial=0.0))
    margin = 0.04 * max(high - low, 0.1)
    return low - margin, high + margin


@house_style
def training_curves(arms: Sequence[ArmResult]) -> Figure:
    """Draws smoothed training loss and PSNR over the outer steps; circles are validation PSNR.

    Arms without a history, such as the baseline, are omitted.
    """
    figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    loss, psnr = figure.subplots(2, 1, sharex=True)
    styles = arm_styles([arm.name for arm in arms if arm.history])
    for axes, values in ((loss, "loss"), (psnr, "psnr")):
        labels = []
        for arm in arms:
            history = arm.history
            if history is None or not len(history.steps):
                continue
            style = styles[arm.name]
            curve = smoothed(getattr(history, values), _window(history.steps))
            axes.plot(history.steps, curve, color=style.colour, ls=style.dashes)
            labels.append(EndLabel(arm.name, style, float(history.steps[-1]), _at(curve, -1)))
            if values == "psnr" and history.validation:
                axes.plot(
                    *zip(*history.validation, strict=True), ls="", marker="o", ms=4, mfc="none", color=style.colour
                )
        label_ends(axes, labels)
    loss.set_title("Training loss (smoothed)")
    psnr.set_title("PSNR of training query patches, dB (smoothed); circles: validation, without adaptation")
    psnr.set_xlabel("outer step")
    return figure


@house_style
def adaptation_curves(study: StudyResult) -> Figure:
    """Draws each arm's mean PSNR-Y over the adaptation steps, in one panel for each optimizer, the main one first.

    The baseline is a horizontal line. A diverging curve is cut off a few dB below the others.
    """
    arms = learned_arms(study)
    styles = arm_styles([arm.name for arm in arms])
    labels = dict.fromkeys(curve.label for arm in arms for curve in arm.alternatives)
    panels: list[tuple[str, dict[str, Curve]]] = [(_main_label(arms), {arm.name: arm.main for arm in arms})]
    panels += [(label, {arm.name: c for arm in arms for c in arm.alternatives if c.label == label}) for label in labels]
    figure = Figure(figsize=(WIDTH, 3.3 * len(panels) + 0.2), layout="constrained")
    baseline = baseline_arm(study)
    for axes, (title, curves) in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        _adaptation_panel(axes, curves, styles, baseline)
        axes.set_title(f"Adaptation with {title}")
        axes.set_ylabel("PSNR-Y, dB")
    axes.set_xlabel("adaptation step")
    return figure


@house_style
def result_bars(study: StudyResult) -> Figure:
    """Draws each arm's mean gain over the baseline with its standard error; dots are single photographs.

    If the study has no baseline arm, PSNR-Y itself is drawn.
    """
    baseline = baseline_arm(study)
    reference = 0.0 if baseline is None else baseline.psnr_y
    arms = sorted(learned_arms(study), key=lambda arm: -float(np.mean(arm.psnr_y)))
    styles = arm_styles([arm.name for arm in learned_arms(study)])
    figure = Figure(figsize=(WIDTH, 1.3 + 0.36 * len(arms)), layout="constrained")
    axes = figure.add_subplot()
    labels = []
    for row, arm in enumerate(arms):
        gains = arm.psnr_y - reference
        result = paired_difference(gains, np.zeros(len(gains)))
        error = result.standard_error if math.isfinite(result.standard_error) else 0.0
        axes.barh(row, result.mean, height=0.62, color=styles[arm.name].colour, alpha=0.45)
        axes.plot(gains, np.full(len(gains), row), "o", ms=3.5, mfc="white", mew=0.9, color=styles[arm.name].colour)
        axes.errorbar(result.mean, row, xerr=error, color="#222222", capsize=3, lw=1.3)
        labels.append(f"{signed(result.mean)} ± {error:.2f}" if error else signed(result.mean))
    axes.axvline(0, color="#444444", lw=0.9)
    axes.set_yticks(range(len(arms)), [arm.name for arm in arms])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    for row, label in enumerate(labels):
        axes.annotate(label, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL)
    gained = "PSNR-Y, dB" if baseline is None else f"gain over {baseline.name} in PSNR-Y, dB"
    axes.set_xlabel(f"{gained} (mean ± standard error; dots: photographs)")
    return figure


def _adaptation_panel(
    axes: Axes, curves: dict[str, Curve], styles: dict[str, LineStyle], baseline: ArmResult | None
) -> None:
    lines = []
    for name, curve in curves.items():
        means = curve.psnr_y.mean(axis=1)
        lines.append(_Line(f"{name} {means[-1]:.2f}", curve.steps, means, styles[name]))
    level = None if baseline is None else float(np.mean(baseline.psnr_y))
    extra = []
    if baseline is not None and level is not None:
        axes.axhline(level, color=GREY, lw=1.2)
        steps = max((line.steps[-1] for line in lines), default=0)
        extra = [EndLabel(f"{baseline.name} {level:.2f}", LineStyle(GREY, "-"), steps, level)]
    finite = [float(value) for line in lines for value in line.values if math.isfinite(value)]
    starts = [float(line.values[0]) for line in lines] + ([] if level is None else [level])
    references = [value for value in starts if math.isfinite(value)]
    if finite and references:
        low = max(min(finite + references), min(references) - _DEPTH)
        high = max(finite + references)
        margin = 0.06 * max(high - low, 0.1)
        axes.set_ylim(low - margin, high + margin)
    _draw(axes, lines, extra)


def _draw(axes: Axes, lines: Sequence[_Line], extra: Sequence[EndLabel] = ()) -> None:
    """Draws lines with labels at their ends."""
    labels = list(extra)
    for line in lines:
        x = line.steps
        axes.plot(x, line.values, color=line.style.colour, ls=line.style.dashes, marker="o" if len(x) == 1 else "")
        if len(x):
            labels.append(EndLabel(line.label, line.style, float(x[-1]), _at(line.values, -1)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    label_ends(axes, labels)


def _at(values: Floats, index: int) -> float:
    """Returns one value, or 0 for NaN, so that the position of its label is defined."""
    return float(np.nan_to_num(values[index])) if len(values) else 0.0


def _window(steps: NDArray[np.int64]) -> int:
    """Returns the smoothing window: an odd number of logged steps."""
    return 2 * (max(1, len(steps) // _SMOOTHING) // 2) + 1


def _main_label(arms: Sequence[ArmResult]) -> str:
    return ", ".join(dict.fromkeys(arm.main.label for arm in arms)) or "nothing"
