"""The report of an ablation: a table for each group, Markdown, a figure, and an HTML file."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from metarestore.config.grid import FIRST_SHOT
from metarestore.evaluation.ablation import AblationResult, ArmRow, Group
from metarestore.evaluation.results import write_json
from metarestore.evaluation.statistics import Difference
from metarestore.files import write_atomically
from metarestore.reports.ablation.figure import ablation_figure
from metarestore.reports.markdown import markdown_code, markdown_text
from metarestore.reports.pages import page_templates
from metarestore.reports.pictures import save_png
from metarestore.reports.study.html import Drawing, duration
from metarestore.reports.study.table import DETAILS, DETAILS_CAPTION, Cells
from metarestore.reports.style import signed, svg

_NOTHING = "–"
_SHOWN = 5
"""Number of columns that fit a terminal."""
_HEADING = 9
"""Characters in a line of a heading on a terminal."""


def group_title(ablation: AblationResult, group: Group) -> str:
    """Returns the title of a group: its labels on all axes except those of repetitions."""
    return ", ".join(f"{ablation.names[key]} {label}" for key, label in group.labels) or ablation.name


def group_cells(ablation: AblationResult, group: Group) -> Cells:
    """Formats the comparison of a group's arms, in the order of the configuration, after bicubic upscaling."""
    headings = (
        "arm",
        "PSNR-Y, dB",
        "gain over bicubic, dB",
        f"minus {ablation.reference}, dB",
        "95% bootstrap",
        "95% t",
        "gain before adaptation, dB",
        "SSIM-Y",
        "effective tasks",
        "minutes",
    )
    bicubic = ("bicubic", f"{group.bicubic_psnr_y:.2f}", *[_NOTHING] * 5, f"{group.bicubic_ssim_y:.4f}")
    rows = [(*bicubic, _NOTHING, _NOTHING), *(_row(row, _repetitions(ablation)) for row in group.rows)]
    return Cells(headings, tuple(rows), _caption(ablation, group))


def group_details(ablation: AblationResult, group: Group) -> Cells:
    """Formats the additional metrics of a group's arms: colour, and luma after exposure matching."""
    headings = ("arm", *DETAILS, "gain over bicubic after matching, dB")
    bicubic = _details("bicubic", group.bicubic_psnr_rgb, group.bicubic_colour_error, group.bicubic_psnr_y_matched)
    rows = [
        (*_details(row.arm, row.psnr_rgb, row.colour_error, row.psnr_y_matched), signed(row.gain_matched))
        for row in group.rows
    ]
    return Cells(headings, ((*bicubic, _NOTHING), *rows), "")


def group_table(ablation: AblationResult, group: Group) -> Table:
    """Returns the table of a group for a terminal; the best arm is bold."""
    cells = group_cells(ablation, group)
    best = max(group.rows, key=lambda row: row.gain.mean).arm
    table = Table(
        title=Text(group_title(ablation, group), style="bold"), title_justify="left", box=None, pad_edge=False
    )
    for index, heading in enumerate(cells.headings[:_SHOWN]):
        lines = "\n".join(textwrap.wrap(heading, _HEADING, break_long_words=False))
        table.add_column(Text(lines), justify="right" if index else "left", vertical="bottom", no_wrap=True)
    for row in cells.rows:
        style = "bold" if row[0].split(" (")[0] == best else ""
        table.add_row(*map(Text, row[:_SHOWN]), style=style)
    return table


def ablation_summary(ablation: AblationResult) -> str:
    """Summarises how many cells and trainings were run."""
    failed = f", {len(ablation.failures)} failed" if ablation.failures else ""
    trainings = len({cell.trained for cell in ablation.cells})
    return (
        f"{len(ablation.cells)} of {len(ablation.planned)} cells finished{failed}; {trainings} trainings took "
        f"{duration(ablation.seconds)} in total, on one thread each."
    )


def ablation_notes(ablation: AblationResult) -> list[str]:
    """Returns notes on how to read the tables."""
    return [
        f"Differences are paired by seed and photograph: arm minus {ablation.reference}, after adaptation.",
        "Bootstrap: percentile interval over resampled seeds and photographs; it is anti-conservative for few seeds "
        "and covers only photographs for a single seed. t: the wider Student-t interval for another training on other "
        "photographs (two-way, Satterthwaite).",
        DETAILS_CAPTION,
        "Minutes: wall time of one training, including relation estimates; cells may share a training.",
        *ablation.notes,
        *(f"{name} failed: {error}" for name, error in ablation.failures.items()),
    ]


def ablation_markdown(ablation: AblationResult, command: str) -> str:
    """Returns all tables in Markdown."""
    parts = [markdown_code(command), ablation_summary(ablation)]
    for group in ablation.groups():
        cells = group_cells(ablation, group)
        parts += [f"## {markdown_text(group_title(ablation, group))}", markdown_table(cells), cells.caption]
        parts.append(markdown_table(group_details(ablation, group)))
    return "\n\n".join([*parts, "\n".join(f"- {markdown_text(note)}" for note in ablation_notes(ablation))]) + "\n"


def publish_ablation(ablation: AblationResult, configuration_yaml: str, out: Path, command: str) -> list[Path]:
    """Writes results.json, results.md, report.html and the figure into a folder; returns the written paths."""
    write_json(out / "results.json", ablation.to_json())
    write_atomically(out / "results.md", ablation_markdown(ablation, command).encode())
    write_atomically(out / "report.html", render_ablation(ablation, configuration_yaml, command).encode())
    written = [out / "results.json", out / "results.md", out / "report.html"]
    if ablation.cells:
        save_png(ablation_figure(ablation), out / "figures" / "grid.png")
        written.append(out / "figures")
    return written


def render_ablation(ablation: AblationResult, configuration_yaml: str, command: str) -> str:
    """Returns the report as HTML."""
    # Matplotlib escapes the text of its SVG.
    drawing = Drawing("", Markup(svg(ablation_figure(ablation)))) if ablation.cells else None
    return (
        page_templates()
        .get_template("grid.html.j2")
        .render(
            ablation=ablation,
            summary=ablation_summary(ablation),
            tables=[
                (group_title(ablation, group), [group_cells(ablation, group), group_details(ablation, group)])
                for group in ablation.groups()
            ],
            drawing=drawing,
            notes=ablation_notes(ablation),
            command=command,
            configuration=configuration_yaml,
        )
    )


def _repetitions(ablation: AblationResult) -> str:
    """Returns what the repetitions of a cell are called."""
    return "repetitions" if FIRST_SHOT in ablation.names else "seeds"


def _row(row: ArmRow, repetitions: str) -> tuple[str, ...]:
    missing = f" ({len(row.seeds)} of {len(row.seeds) + row.missing} {repetitions})" if row.missing else ""
    return (
        row.arm + missing,
        f"{row.psnr_y:.2f}",
        signed(row.gain.mean),
        _NOTHING if row.difference is None else signed(row.difference.mean),
        interval(row.difference),
        interval(row.crossed),
        signed(row.gain_before),
        f"{row.ssim_y:.4f}",
        _NOTHING if row.effective_tasks is None else f"{row.effective_tasks:.1f}",
        f"{row.minutes:.1f}",
    )


def _details(name: str, rgb: float, error: float, matched: float) -> tuple[str, ...]:
    return (name, f"{rgb:.2f}", f"{error:.1f}", f"{matched:.2f}")


def interval(difference: Difference | None) -> str:
    """Formats an interval, or a dash if it is unknown."""
    if difference is None or not math.isfinite(difference.low):
        return _NOTHING
    # An end close to 0 needs a third decimal to show its sign.
    decimals = 3 if min(abs(difference.low), abs(difference.high)) < 0.005 else 2
    return f"[{signed(difference.low, decimals)}, {signed(difference.high, decimals)}]"


def _caption(ablation: AblationResult, group: Group) -> str:
    count, words = max((len(row.seeds) for row in group.rows), default=0), _repetitions(ablation)
    return f"{count} {words if count != 1 else words.removesuffix('s')}, {group.photographs} test photographs."


def markdown_table(cells: Cells) -> str:
    """Formats a table in Markdown."""

    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(markdown_text(text) for text in texts) + " |"

    rule = [":--"] + ["--:"] * (len(cells.headings) - 1)
    return "\n".join([line(cells.headings), line(rule), *map(line, cells.rows)])
