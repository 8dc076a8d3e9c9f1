"""The report of a study: one self-contained HTML file."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from metarestore.evaluation.results import Example, StudyResult
from metarestore.files import write_atomically
from metarestore.reports.pages import page_templates
from metarestore.reports.pictures import Pixels, png_bytes, tile_note
from metarestore.reports.study.figures import (
    adaptation_curves,
    arms_by_relations,
    arms_with_weights,
    group_figures,
    result_bars,
    training_curves,
    weights_over_time,
)
from metarestore.reports.study.findings import findings
from metarestore.reports.study.table import best_arm, detail_cells, learned_arms, statements, summary_text, table_cells
from metarestore.reports.style import svg


@dataclass(frozen=True)
class Drawing:
    """A figure on the page, with its caption."""

    caption: str
    svg: Markup


@dataclass(frozen=True)
class Tile:
    """One image of an example."""

    label: str
    note: str
    source: str


def write_report(study: StudyResult, configuration_yaml: str, path: Path, command: str) -> None:
    """Writes the report of a study as one self-contained HTML file; sections without data are omitted.

    Args:
        study: The results.
        configuration_yaml: The resolved configuration.
        path: The output file; its folder is created if needed.
        command: The command that ran the study.

    Raises:
        UserError: The file is not writable.
    """
    write_atomically(path, render_report(study, configuration_yaml, command))


def render_report(study: StudyResult, configuration_yaml: str, command: str) -> str:
    """Returns the report of a study as HTML."""
    environment = page_templates()
    best = best_arm(study)
    return environment.get_template("report.html.j2").render(
        study=study,
        summary=summary_text(study),
        best=best.name if best else None,
        table=table_cells(study),
        details=detail_cells(study),
        statements=statements(study),
        findings=findings(study),
        results=_results(study),
        relations=_relations(study),
        weights=_weights(study),
        adaptation=_adaptation(study),
        training=_training(study),
        examples=[(example.caption, _tiles(example)) for example in study.examples],
        arm_count=len(learned_arms(study)),
        duration=duration(study.seconds),
        command=command,
        configuration=configuration_yaml,
    )


def duration(seconds: float) -> str:
    """Formats a wall time, e.g. `2 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _drawing(figure: Figure, caption: str) -> Drawing:
    # Matplotlib escapes the text of its SVG.
    return Drawing(caption, Markup(svg(figure)))


def _results(study: StudyResult) -> list[Drawing]:
    return [_drawing(result_bars(study), "")] if learned_arms(study) else []


def _adaptation(study: StudyResult) -> list[Drawing]:
    if not any(len(arm.main.psnr_y) > 1 or arm.alternatives for arm in learned_arms(study)):
        return []
    return [_drawing(adaptation_curves(study), "")]


def _training(study: StudyResult) -> list[Drawing]:
    if not any(arm.history and len(arm.history.steps) for arm in study.arms):
        return []
    return [_drawing(training_curves(study.arms), "")]


def _relations(study: StudyResult) -> list[Drawing]:
    return [
        _drawing(figure, ", ".join(arm.name for arm in group))
        for group in arms_by_relations(study)
        for _, figure in group_figures(group[0])
    ]


def _weights(study: StudyResult) -> list[Drawing]:
    return [_drawing(weights_over_time(arm.history), arm.name) for arm in arms_with_weights(study) if arm.history]


def _tiles(example: Example) -> list[Tile]:
    pictures = {**example.images, "HR": example.hr}
    return [Tile(label, tile_note(example, label), _data_uri(image)) for label, image in pictures.items()]


def _data_uri(image: Pixels) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode("ascii")
