"""The report of an ablation grid: a table for each group, Markdown, a figure, and one HTML file."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from metarestore.evaluation.grid import AblationResult, ArmRow, Group
from metarestore.evaluation.results import write_json
from metarestore.evaluation.statistics import Difference
from metarestore.files import write_atomically
from metarestore.reports.grid_figure import grid_figure
from metarestore.reports.html import Drawing, duration
from metarestore.reports.markdown import markdown_code, markdown_text
from metarestore.reports.pages import page_templates
from metarestore.reports.pictures import save_png
from metarestore.reports.style import signed, svg
from metarestore.reports.table import DETAILS, DETAILS_CAPTION, Cells

_NOTHING = "–"
_SHOWN = 5
"""Columns that a terminal has room for."""
_HEADING = 9
"""Letters in a line of a heading on a terminal."""


def group_title(grid: AblationResult, group: Group) -> str:
    """Names a group by its place on all axes but the seed's."""
    return ", ".join(f"{grid.names[key]} {label}" for key, label in group.labels) or grid.name


def group_cells(grid: AblationResult, group: Group) -> Cells:
    """Writes the comparison of a group's arms as text, in the file's order; bicubic upscaling comes first."""
    headings = (
        "arm",
        "PSNR-Y, dB",
        "gain over bicubic, dB",
        f"minus {grid.reference}, dB",
        "95% bootstrap",
        "95% t",
        "gain before adaptation, dB",
        "SSIM-Y",
        "effective tasks",
        "minutes",
    )
    bicubic = ("bicubic", f"{group.bicubic_psnr_y:.2f}", *[_NOTHING] * 5, f"{group.bicubic_ssim_y:.4f}")
    rows = [(*bicubic, _NOTHING, _NOTHING), *(_row(row) for row in group.rows)]
    return Cells(headings, tuple(rows), _caption(grid, group))


def group_details(grid: AblationResult, group: Group) -> Cells:
    """Writes what stands beside PSNR-Y and SSIM-Y as text: colour, and luma apart from exposure."""
    headings = ("arm", *DETAILS, "gain over bicubic after it, dB")
    bicubic = _details("bicubic", group.bicubic_psnr_rgb, group.bicubic_colour_error, group.bicubic_psnr_y_matched)
    rows = [
        (*_details(row.arm, row.psnr_rgb, row.colour_error, row.psnr_y_matched), signed(row.gain_matched))
        for row in group.rows
    ]
    return Cells(headings, ((*bicubic, _NOTHING), *rows), "")


def group_table(grid: AblationResult, group: Group) -> Table:
    """Lays out a group for a terminal; the best arm is bold."""
    cells = group_cells(grid, group)
    best = max(group.rows, key=lambda row: row.gain.mean).arm
    table = Table(title=Text(group_title(grid, group), style="bold"), title_justify="left", box=None, pad_edge=False)
    for index, heading in enumerate(cells.headings[:_SHOWN]):
        lines = "\n".join(textwrap.wrap(heading, _HEADING, break_long_words=False))
        table.add_column(Text(lines), justify="right" if index else "left", vertical="bottom", no_wrap=True)
    for row in cells.rows:
        style = "bold" if row[0].split(" (")[0] == best else ""
        table.add_row(*map(Text, row[:_SHOWN]), style=style)
    return table


def grid_summary(grid: AblationResult) -> str:
    """Says in a sentence how much was run."""
    failed = f", {len(grid.failures)} failed" if grid.failures else ""
    trainings = len({cell.trained for cell in grid.cells})
    return (
        f"{len(grid.cells)} of {len(grid.planned)} cells finished{failed}; {trainings} trainings of together "
        f"{duration(grid.seconds)} on one thread each."
    )


def grid_notes(grid: AblationResult) -> list[str]:
    """Says what a reader of the tables has to know."""
    return [
        f"Differences are paired by seed and photograph: arm minus {grid.reference}, after adaptation.",
        "Bootstrap: percentiles over resampled seeds and photographs; with few seeds it is on the narrow side, with "
        "one it covers photographs only. t: the "
        "wider Student-t interval for another training on other photographs (two-way, Satterthwaite).",
        DETAILS_CAPTION,
        "Minutes are those of one training, estimating relations included; cells may share a training.",
        *grid.notes,
        *(f"{name} failed: {error}" for name, error in grid.failures.items()),
    ]


def grid_markdown(grid: AblationResult, command: str) -> str:
    """Writes all tables in Markdown."""
    parts = [markdown_code(command), grid_summary(grid)]
    for group in grid.groups():
        cells = group_cells(grid, group)
        parts += [f"## {markdown_text(group_title(grid, group))}", _markdown(cells), cells.caption]
        parts.append(_markdown(group_details(grid, group)))
    return "\n\n".join([*parts, "\n".join(f"- {markdown_text(note)}" for note in grid_notes(grid))]) + "\n"


def publish_grid(grid: AblationResult, configuration_yaml: str, out: Path, command: str) -> list[Path]:
    """Writes results.json, results.md, report.html and the figure into a folder; returns what was written."""
    write_json(out / "results.json", grid.to_json())
    write_atomically(out / "results.md", grid_markdown(grid, command).encode())
    write_atomically(out / "report.html", render_grid(grid, configuration_yaml, command).encode())
    written = [out / "results.json", out / "results.md", out / "report.html"]
    if grid.cells:
        save_png(grid_figure(grid), out / "figures" / "grid.png")
        written.append(out / "figures")
    return written


def render_grid(grid: AblationResult, configuration_yaml: str, command: str) -> str:
    """Returns the report as HTML."""
    # Matplotlib escapes the text of its SVG.
    drawing = Drawing("", Markup(svg(grid_figure(grid)))) if grid.cells else None
    return (
        page_templates()
        .get_template("grid.html.j2")
        .render(
            grid=grid,
            summary=grid_summary(grid),
            tables=[
                (group_title(grid, group), [group_cells(grid, group), group_details(grid, group)])
                for group in grid.groups()
            ],
            drawing=drawing,
            notes=grid_notes(grid),
            command=command,
            configuration=configuration_yaml,
        )
    )


def _row(row: ArmRow) -> tuple[str, ...]:
    missing = f" ({len(row.seeds)} of {len(row.seeds) + row.missing} seeds)" if row.missing else ""
    return (
        row.arm + missing,
        f"{row.psnr_y:.2f}",
        signed(row.gain.mean),
        _NOTHING if row.difference is None else signed(row.difference.mean),
        _interval(row.difference),
        _interval(row.crossed),
        signed(row.gain_before),
        f"{row.ssim_y:.4f}",
        _NOTHING if row.effective_tasks is None else f"{row.effective_tasks:.1f}",
        f"{row.minutes:.1f}",
    )


def _details(name: str, rgb: float, error: float, matched: float) -> tuple[str, ...]:
    return (name, f"{rgb:.2f}", f"{error:.1f}", f"{matched:.2f}")


def _interval(found: Difference | None) -> str:
    if found is None or not math.isfinite(found.low):
        return _NOTHING
    # An interval that only just excludes zero needs a third decimal to be seen to do so.
    decimals = 3 if min(abs(found.low), abs(found.high)) < 0.005 else 2
    return f"[{signed(found.low, decimals)}, {signed(found.high, decimals)}]"


def _caption(grid: AblationResult, group: Group) -> str:
    seeds = max((len(row.seeds) for row in group.rows), default=0)
    return f"{seeds} seed{'s' if seeds != 1 else ''}, {group.photographs} test photographs."


def _markdown(cells: Cells) -> str:
    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(markdown_text(text) for text in texts) + " |"

    rule = [":--"] + ["--:"] * (len(cells.headings) - 1)
    return "\n".join([line(cells.headings), line(rule), *map(line, cells.rows)])
