"""Results of a study as tables, and statements on the significance of differences."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from rich.text import Text

from metarestore.evaluation.results import ArmResult, StudyResult
from metarestore.evaluation.statistics import Difference, Estimate, mean_and_error, paired_difference
from metarestore.reports.markdown import markdown_text
from metarestore.reports.study.comparisons import control_pairs, learns_from_target
from metarestore.reports.style import signed

DETAILS = ("PSNR-RGB, dB", "colour error, grey levels", "PSNR-Y after exposure matching, dB")
"""Headings of the additional metrics."""
DETAILS_CAPTION = (
    "Colour error: mean absolute difference of the means of R, G and B. Exposure matching: a linear map of luma for "
    "each photograph, fitted to the HR image by least squares."
)
_NOTHING = "–"
_HEADING = 16
"""Characters in a line of a heading, so that a table fits a terminal of 80 columns."""


@dataclass(frozen=True)
class Cells:
    """A table as plain text: arms in the study's order, metrics as mean ± standard error over photographs."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str


def baseline_arm(study: StudyResult) -> ArmResult | None:
    """Returns the baseline arm, if the study has one."""
    return next((arm for arm in study.arms if arm.name == study.baseline), None)


def learned_arms(study: StudyResult) -> tuple[ArmResult, ...]:
    """Returns all arms but the baseline."""
    return tuple(arm for arm in study.arms if arm.name != study.baseline)


def best_arm(study: StudyResult) -> ArmResult | None:
    """Returns the learned arm with the highest mean PSNR-Y, if there is a learned arm."""
    return max(learned_arms(study), key=lambda arm: float(np.mean(arm.psnr_y)), default=None)


def difference(first: ArmResult, second: ArmResult) -> Difference:
    """Returns the paired difference in PSNR-Y of two arms over photographs.

    Raises:
        ValueError: They were not evaluated on the same photographs.
    """
    if first.photographs != second.photographs:
        raise ValueError(f"{first.name} and {second.name} were not evaluated on the same photographs")
    return paired_difference(first.psnr_y, second.psnr_y)


def table_cells(study: StudyResult) -> Cells:
    """Formats the metrics of all arms: PSNR-Y, SSIM-Y, gain over the baseline, PSNR-Y of the alternatives."""
    baseline = baseline_arm(study)
    others = tuple(dict.fromkeys(curve.label for arm in study.arms for curve in arm.alternatives))
    headings = ["arm", "PSNR-Y, dB", "SSIM-Y"]
    headings += [f"gain over {baseline.name}, dB"] if baseline else []
    headings += [f"PSNR-Y, {label}" for label in others]
    return Cells(tuple(headings), tuple(_row(arm, baseline, others) for arm in study.arms), _caption(study))


def detail_cells(study: StudyResult) -> Cells | None:
    """Formats the colour metrics of all arms; returns None if there are none."""
    arms = [(arm, arm.main.colour) for arm in study.arms if arm.main.colour is not None]
    if not arms:
        return None
    baseline = baseline_arm(study)
    reference = baseline.main.colour if baseline is not None else None
    headings = ["arm", *DETAILS] + ([f"gain over {baseline.name} after matching, dB"] if baseline and reference else [])
    rows = []
    for arm, colour in arms:
        row = [
            arm.name,
            _with_error(mean_and_error(colour.psnr_rgb), 2),
            _with_error(mean_and_error(colour.colour_error), 1),
            _with_error(mean_and_error(colour.psnr_y_matched), 2),
        ]
        if reference is not None:
            gain = paired_difference(colour.psnr_y_matched, reference.psnr_y_matched)
            row.append(_NOTHING if arm is baseline else _gain(gain))
        rows.append(tuple(row))
    return Cells(tuple(headings), tuple(rows), DETAILS_CAPTION)


def result_table(study: StudyResult) -> Table:
    """Returns the table of all arms' metrics for a terminal; the best arm is bold."""
    return _laid_out(table_cells(study), study.name, best_arm(study))


def detail_table(study: StudyResult) -> Table | str:
    """Returns the table of all arms' colour metrics for a terminal, or an empty string if there are none."""
    cells = detail_cells(study)
    return "" if cells is None else _laid_out(cells, "", best_arm(study))


def _laid_out(cells: Cells, title: str, best: ArmResult | None) -> Table:
    table = Table(
        title=Text(title, style="bold") if title else None,
        caption=Text(cells.caption),
        title_justify="left",
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    for column, heading in enumerate(cells.headings):
        lines = "\n".join(textwrap.wrap(heading, _HEADING))
        table.add_column(Text(lines), justify="right" if column else "left", vertical="bottom", no_wrap=True)
    for row in cells.rows:
        style = "bold" if best is not None and row[0] == best.name else ""
        table.add_row(*(Text(cell) for cell in row), style=style)
    return table


def markdown_table(study: StudyResult) -> str:
    """Returns the metrics of all arms as Markdown tables."""
    details = detail_cells(study)
    return _markdown(table_cells(study)) + ("" if details is None else f"\n{_markdown(details)}")


def _markdown(cells: Cells) -> str:
    rule = [":--"] + ["--:"] * (len(cells.headings) - 1)
    lines = [" | ".join(markdown_text(text) for text in row) for row in (cells.headings, *cells.rows)]
    return "\n".join(
        ["| " + line + " |" for line in (lines[0], " | ".join(rule), *lines[1:])] + ["", cells.caption, ""]
    )


def statements(study: StudyResult) -> list[str]:
    """States which differences are significant: 95% intervals of paired differences over photographs exclude 0.

    The best learned arm is compared with the baseline and with training on the target only (or, if that is the best,
    with the runner-up). Each arm that estimates relations is compared with the controls (uniform, random, inverted,
    best_single) whose configuration differs from its own only in the estimator.
    """
    return [_statement(first, second) for first, second in compared_pairs(study)]


def compared_pairs(study: StudyResult) -> tuple[tuple[ArmResult, ArmResult], ...]:
    """Returns the pairs of arms that `statements` compares, in the same order."""
    pairs = {(a.name, b.name): (a, b) for a, b in (*_best_pairs(study), *control_pairs(learned_arms(study)))}
    return tuple(pairs.values())


def summary_text(study: StudyResult) -> str:
    """Summarises in one paragraph which arm is best, by how much, and whether the difference is significant."""
    best = best_arm(study)
    if best is None:
        return "This study has no learned arms."
    count, arms = len(best.photographs), len(learned_arms(study))
    opening = f"On {_photographs(count)}, {best.name} reached {float(np.mean(best.psnr_y)):.2f} dB PSNR-Y"
    opening += f", the best of {arms} learned arms" if arms > 1 else ""
    comparisons = [f"{_amount(difference(best, other))} against {other.name}" for _, other in _best_pairs(study)]
    return f"{opening}: {' and '.join(comparisons)}." if comparisons else f"{opening}."


def _best_pairs(study: StudyResult) -> Iterator[tuple[ArmResult, ArmResult]]:
    best, baseline = best_arm(study), baseline_arm(study)
    if best is None:
        return
    if baseline is not None:
        yield best, baseline
    others = sorted(
        (arm for arm in learned_arms(study) if arm is not best), key=lambda arm: -float(np.mean(arm.psnr_y))
    )
    rivals = others if learns_from_target(best) else [arm for arm in others if learns_from_target(arm)]
    if rivals:
        yield best, rivals[0]


def _statement(first: ArmResult, second: ArmResult) -> str:
    paired = difference(first, second)
    opening = f"{first.name} − {second.name}"
    if not math.isfinite(paired.low):
        return f"{opening}: {_decibels(paired.mean)}, significance unknown ({_n(paired)})"
    # An end close to 0 needs a third decimal to show its sign.
    decimals = 3 if min(abs(paired.low), abs(paired.high)) < 0.005 else 2
    interval = f"[{signed(paired.low, decimals)}, {signed(paired.high, decimals)}]"
    return f"{opening}: {_decibels(paired.mean, decimals)} {interval}, {_verdict(paired)} ({_n(paired)})"


def _amount(paired: Difference) -> str:
    verdict = _verdict(paired) if math.isfinite(paired.low) else "significance unknown"
    return f"{_decibels(paired.mean)} ({verdict})"


def _verdict(paired: Difference) -> str:
    return "significant" if paired.beyond_noise else "not significant"


def _decibels(value: float, decimals: int = 2) -> str:
    return f"{signed(value, decimals)} dB"


def _n(paired: Difference) -> str:
    return f"n = {_photographs(paired.count, '')}"


def _photographs(count: int, kind: str = "test ") -> str:
    return f"{count} {kind}photograph{'s' if count != 1 else ''}"


def _caption(study: StudyResult) -> str:
    arm = best_arm(study) or baseline_arm(study)
    count = len(arm.photographs) if arm else 0
    methods = dict.fromkeys(one.main.label for one in learned_arms(study))
    adapted = f"; adapted with {', '.join(methods)}" if methods else ""
    return f"Mean ± standard error over {_photographs(count)}{adapted}."


def _row(arm: ArmResult, baseline: ArmResult | None, others: Sequence[str]) -> tuple[str, ...]:
    cells = [arm.name, _with_error(mean_and_error(arm.psnr_y), 2), _with_error(mean_and_error(arm.main.ssim_y), 4)]
    if baseline is not None:
        cells.append(_NOTHING if arm is baseline else _gain(difference(arm, baseline)))
    finals = {curve.label: curve.psnr_y[-1] for curve in arm.alternatives}
    cells += [_with_error(mean_and_error(finals[label]), 2) if label in finals else _NOTHING for label in others]
    return tuple(cells)


def _with_error(estimate: Estimate, decimals: int) -> str:
    mean = f"{estimate.mean:.{decimals}f}"
    return f"{mean} ± {estimate.standard_error:.{decimals}f}" if math.isfinite(estimate.standard_error) else mean


def _gain(paired: Difference) -> str:
    mean = signed(paired.mean)
    return f"{mean} ± {paired.standard_error:.2f}" if math.isfinite(paired.standard_error) else mean
