"""The figure of an ablation: the arms of every group by their gain."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarestore.evaluation.ablation import AblationResult, ArmRow, Group
from metarestore.evaluation.statistics import Difference
from metarestore.reports.style import GREY, PALETTE, SMALL, WIDTH, house_style

_MOST = 3
"""Maximum number of groups side by side."""


@house_style
def ablation_figure(ablation: AblationResult) -> Figure:
    """Draws the gain over bicubic of each group's arms, sorted, with 95% intervals.

    The intervals are those of the difference to the reference arm: the bar is the bootstrap interval, the thin line
    the wider t interval, clipped to the panel.
    """
    groups = ablation.groups()
    varying = [key for key, _ in groups[0].labels if len({dict(group.labels)[key] for group in groups}) > 1]
    last = len({dict(group.labels)[varying[-1]] for group in groups}) if varying else 1
    columns = last if last <= _MOST else min(_MOST, len(groups))
    rows = math.ceil(len(groups) / columns)
    height = 0.75 + 0.19 * max(len(group.rows) for group in groups) + 0.17 * max(len(varying) - 1, 0)
    # Panels are wider for long names, which take space from the plot.
    width = 2.2 + 0.07 * max(len(arm) for arm in ablation.arms)
    figure = Figure(figsize=(max(WIDTH, width * columns), height * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, group in zip(panels, groups, strict=False):
        _draw(panel, ablation, group)
        # One line for each label, because a panel is narrower than all of them together.
        title = "\n".join(f"{ablation.names[key]} {dict(group.labels)[key]}" for key in varying)
        panel.set_title(title or ablation.name)
    for panel in panels[len(groups) :]:
        panel.set_axis_off()
    for panel in panels[max(len(groups) - columns, 0) : len(groups)]:
        panel.set_xlabel("gain over bicubic, dB PSNR-Y")
    return figure


def _draw(axes: Axes, ablation: AblationResult, group: Group) -> None:
    rows = sorted(group.rows, key=lambda row: row.gain.mean)
    reference = next((row.gain.mean for row in rows if row.arm == ablation.reference), None)
    ends = [0.0]
    for position, row in enumerate(rows):
        ends += _dot(axes, position, row, is_reference=row.arm == ablation.reference)
    room = 0.06 * (max(ends) - min(ends)) + 1e-3
    axes.set_xlim(min(ends) - room, max(ends) + room)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.axvline(0, color=GREY, lw=1.0)
    if reference is not None:
        axes.axvline(reference, color=PALETTE[1], lw=1.0, ls="--")
    axes.set_yticks(range(len(rows)), [row.arm for row in rows], fontsize=SMALL)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", visible=False)


def _dot(axes: Axes, position: int, row: ArmRow, *, is_reference: bool) -> list[float]:
    """Draws an arm; returns the x values that must be visible."""
    colour = PALETTE[1] if is_reference else PALETTE[0]
    gain, ends = row.gain.mean, [row.gain.mean]
    # The interval of the difference is shifted to the arm's dot: it reaches the dashed line if it contains 0.
    for difference, width in ((row.crossed, 0.8), (row.difference, 3.0)):
        interval = _shifted(difference, gain)
        if interval is not None:
            axes.plot(interval, [position, position], color=colour, lw=width, alpha=0.8, solid_capstyle="butt")
            ends += interval if difference is row.difference else ()
    axes.plot([gain], [position], "o", ms=4.5, color=colour)
    return ends


def _shifted(difference: Difference | None, gain: float) -> tuple[float, float] | None:
    if difference is None or not math.isfinite(difference.low):
        return None
    return gain + difference.low - difference.mean, gain + difference.high - difference.mean
