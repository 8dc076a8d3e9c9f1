"""The report of a learning curve: a table, a figure, and whether more pairs are worth taking."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from metarestore.evaluation.ablation import AblationResult
from metarestore.evaluation.learning_curve import CurvePoint, LearningCurve
from metarestore.evaluation.results import write_json
from metarestore.evaluation.statistics import Difference
from metarestore.files import write_atomically
from metarestore.reports.ablation.report import interval, markdown_table
from metarestore.reports.markdown import markdown_code, markdown_text
from metarestore.reports.pictures import save_png
from metarestore.reports.study.table import Cells
from metarestore.reports.style import GREY, PALETTE, house_style, signed

FILES = ("shots.md", "shots.json", "learning_curve.png")


def curve_cells(curve: LearningCurve) -> Cells:
    """Formats the gains over bicubic upscaling for each number of pairs."""
    headings = ("pairs", "adapted, dB", "95%", "unadapted, dB", "95%", "folds")
    rows = tuple(
        (
            str(point.shots),
            signed(point.adapted.mean),
            interval(point.adapted),
            signed(point.unadapted.mean),
            interval(point.unadapted),
            str(point.folds),
        )
        for point in curve.points
    )
    return Cells(headings, rows, "Gain in PSNR-Y over bicubic upscaling.")


def curve_table(curve: LearningCurve) -> Table:
    """Returns the table for a terminal."""
    cells = curve_cells(curve)
    table = Table(title=Text(cells.caption), title_justify="left", box=None, pad_edge=False)
    for heading in cells.headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in cells.rows:
        table.add_row(*map(Text, row))
    return table


def curve_statement(curve: LearningCurve) -> str:
    """States whether more pairs are worth taking, from the two largest numbers of pairs."""
    step = curve.last
    if step is None:
        return (
            "Two numbers of pairs have no finished cells in common, so it cannot be told whether more are worth taking."
        )
    verdicts = {
        "worth": "so more pairs are worth taking",
        "not worth": f"so more pairs are not worth taking (less than {curve.worth:g} dB)",
        "unknown": "so it cannot be told whether more pairs are worth taking; more folds, seeds or test photographs "
        "narrow the interval",
    }
    given = f" {interval(step.difference)}" if math.isfinite(step.difference.low) else ", interval unknown"
    return (
        f"From {step.fewer} to {step.more} pairs: {signed(step.difference.mean)} dB{given}, {verdicts[step.verdict]}."
    )


def curve_notes(curve: LearningCurve) -> list[str]:
    """Returns notes on what the intervals cover."""
    if not curve.points:
        return []
    seeds = max(point.seeds for point in curve.points)
    folds = max(point.folds for point in curve.points)
    counts = [
        f"{count} {what}{'' if count == 1 else 's'}"
        for count, what in ((curve.photographs, "test photograph"), (folds, "fold"), (seeds, "seed"))
    ]
    notes = [
        f"95% t intervals over {counts[0]}, {counts[1]} (choices of the pairs) and {counts[2]}; what there is only one "
        "of is not covered.",
        *filter(None, map(_shared_note, curve.points)),
    ]
    if curve.trainings > seeds:
        notes.append(
            f"The training depends on the shots, so it was repeated ({curve.trainings} trainings), and the unadapted "
            "network is another one for each choice of the pairs. With graph.estimator: {kind: uniform} it is shared."
        )
    return notes


def curve_markdown(curve: LearningCurve, ablation: AblationResult, command: str) -> str:
    """Returns the table, the statement and the notes in Markdown."""
    cells = curve_cells(curve)
    failures = [f"{name} failed: {error}" for name, error in ablation.failures.items()]
    notes = [*curve_notes(curve), *ablation.notes, *failures]
    parts = [
        markdown_code(command),
        markdown_text(cells.caption),
        markdown_table(cells),
        markdown_text(curve_statement(curve)),
        "\n".join(f"- {markdown_text(note)}" for note in notes),
    ]
    return "\n\n".join(parts) + "\n"


@house_style
def curve_figure(curve: LearningCurve) -> Figure:
    """Draws the gain over the number of pairs with its 95% interval, and that of the unadapted network as a line."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    shots = [point.shots for point in curve.points]
    before, after = ([getattr(point, key) for point in curve.points] for key in ("unadapted", "adapted"))
    low, high = zip(*map(_finite_ends, before), strict=True)
    axes.axhline(0, color=GREY, lw=1.0, label="bicubic")
    axes.fill_between(shots, low, high, color=PALETTE[1], alpha=0.15, lw=0)
    axes.plot(shots, [one.mean for one in before], "--", color=PALETTE[1], label="unadapted")
    means = [one.mean for one in after]
    lengths = [(one.mean - low, high - one.mean) for one in after for low, high in [_finite_ends(one)]]
    below_above = list(zip(*lengths, strict=True))
    axes.errorbar(shots, means, yerr=below_above, fmt="o-", ms=4.5, capsize=3, color=PALETTE[0], label="adapted")
    axes.set_xticks(shots)
    axes.set_xlabel("pairs")
    axes.set_ylabel("gain over bicubic, dB PSNR-Y")
    axes.legend()
    return figure


def publish_curve(curve: LearningCurve, ablation: AblationResult, out: Path, command: str) -> list[Path]:
    """Writes shots.md, shots.json and learning_curve.png into a folder; returns the written paths."""
    text, data, picture = (out / name for name in FILES)
    write_atomically(text, curve_markdown(curve, ablation, command).encode())
    write_json(data, curve_json(curve))
    if not curve.points:
        return [text, data]
    save_png(curve_figure(curve), picture)
    return [text, data, picture]


def curve_json(curve: LearningCurve) -> dict[str, object]:
    """Returns the curve and its statement as JSON data."""
    return {**curve.to_json(), "statement": curve_statement(curve), "notes": curve_notes(curve)}


def _shared_note(point: CurvePoint) -> str | None:
    if point.shared >= 1:
        return f"{point.shots} pairs are the whole support pool, so the interval does not cover their choice."
    if point.shared > 0:
        return f"With {point.shots} pairs, two folds share {point.shared:.0%} of them; the interval is wider for that."
    return None


def _finite_ends(difference: Difference) -> tuple[float, float]:
    """Returns the ends of an interval; an unknown one has no length."""
    if math.isfinite(difference.low):
        return difference.low, difference.high
    return difference.mean, difference.mean
