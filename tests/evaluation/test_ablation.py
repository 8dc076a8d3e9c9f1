"""Arms of a grid are compared by seed and photograph, in every group, and written down as they are."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from metarestore.config.grid import Grid
from metarestore.decibels import CAP
from metarestore.evaluation.ablation import AblationResult, CellResult, Metrics, paired_table
from metarestore.evaluation.statistics import crossed_difference
from metarestore.project import read_experiment
from metarestore.reports.ablation.figure import ablation_figure
from metarestore.reports.ablation.report import (
    ablation_markdown,
    group_cells,
    group_details,
    group_title,
    publish_ablation,
)

REPOSITORY = Path(__file__).parents[2]
PHOTOGRAPHS = ["sea", "hill", "town"]
BICUBIC = np.asarray([25.0, 27.0, 29.0])
GAINS = {
    "uniform": [[0.1, 0.2, 0.3], [0.3, 0.4, 0.5]],
    "response": [[0.5, 0.6, 0.7], [0.8, 0.9, 1.0]],
}
"""By seed and photograph."""


def cell(arm: str, shots: str, seed: int, gains: list[float]) -> CellResult:
    def figures(values: np.ndarray) -> Metrics:
        return Metrics(values.tolist(), [0.7, 0.8, 0.9], (values - 1).tolist(), [1.0] * 3, (values + 1).tolist())

    # Seeds differ by far more than arms do, as the noise of other test crops.
    bicubic = BICUBIC + 5 * seed
    return CellResult(
        name=f"{arm},shots={shots},seed={seed}",
        arm=arm,
        labels={"adaptation.shots": shots, "seed": str(seed)},
        study="",
        trained=f"{arm}{seed}",
        photographs=PHOTOGRAPHS,
        bicubic=figures(bicubic),
        before=figures(bicubic - 1),
        after=figures(bicubic + gains),
        alternatives={},
        relations={"jpeg": 0.5},
        standard_errors={"jpeg": None},
        reliability=None,
        weights={"jpeg": 1.0},
        effective_tasks=1.0,
        training_seconds=30.0 * (1 + seed),
        relating_seconds=1.0,
    )


@pytest.fixture
def grid() -> AblationResult:
    cells = [cell(a, s, n, g) for a, rows in GAINS.items() for s in ("1", "5") for n, g in enumerate(rows)]
    lost = cells.pop()
    planned = {one.name: (one.arm, one.group) for one in [*cells, lost]}
    return AblationResult(
        name="mine",
        arms=tuple(GAINS),
        names={"adaptation.shots": "shots", "seed": "seed"},
        reference="uniform",
        planned=planned,
        cells=tuple(cells),
        failures={lost.name: "its process died"},
        notes=("a note",),
        seconds=90.0,
    )


def test_differences_are_paired_by_seed_and_photograph(grid: AblationResult) -> None:
    one, five = grid.groups()
    assert [group_title(grid, group) for group in (one, five)] == ["shots 1", "shots 5"]
    uniform, response = one.rows
    assert uniform.difference is None
    assert uniform.gain.mean == pytest.approx(0.3)
    assert response.difference is not None
    assert response.difference.mean == pytest.approx(0.45)
    # All photographs differ alike, by 0.4 with one seed and 0.5 with the other.
    assert (response.difference.low, response.difference.high) == pytest.approx((0.4, 0.5))
    table = np.asarray([[0.4] * 3, [0.5] * 3])
    assert response.crossed is not None
    assert response.crossed.mean == pytest.approx(crossed_difference(table).mean)
    assert response.crossed.low == pytest.approx(crossed_difference(table).low, abs=1e-9)
    assert response.gain_before == pytest.approx(-1)
    assert response.minutes == pytest.approx(0.75)
    assert one.bicubic_psnr_y == pytest.approx(BICUBIC.mean() + 2.5)


def test_a_lost_seed_is_left_out_of_both_sides(grid: AblationResult) -> None:
    _, five = grid.groups()
    uniform, response = five.rows
    assert (uniform.seeds, uniform.missing) == (("0", "1"), 0)
    assert (response.seeds, response.missing) == (("0",), 1)
    assert response.difference is not None
    assert response.difference.mean == pytest.approx(0.4)
    assert response.crossed is not None
    assert response.crossed.high == np.inf


def test_figures_of_other_photographs_are_not_compared() -> None:
    first, second = cell("a", "1", 0, [0.1] * 3), cell("b", "1", 0, [0.2] * 3)
    second = replace(second, photographs=["sea", "hill", "lake"])
    with pytest.raises(ValueError, match="not measured on the same photographs"):
        paired_table({"0": first}, {"0": second})


def test_cells_are_read_as_they_were_written() -> None:
    one = cell("a", "1", 0, [0.1] * 3)
    assert CellResult.from_json(one.to_json()) == one


def test_tables_hold_bicubic_every_arm_and_every_failure(grid: AblationResult, tmp_path: Path) -> None:
    one, five = grid.groups()
    assert [row[0] for row in group_cells(grid, one).rows] == ["bicubic", "uniform", "response"]
    assert [row[0] for row in group_cells(grid, five).rows] == ["bicubic", "uniform", "response (1 of 2 seeds)"]
    assert group_cells(grid, one).rows[2][2:6] == ("+0.75", "+0.45", "[+0.40, +0.50]", "[−0.19, +1.09]")
    assert group_cells(grid, five).rows[2][5] == "–"
    text = ablation_markdown(grid, "metarestore ablate")
    for part in ("## shots 1", "## shots 5", "response,shots=5,seed=1 failed: its process died", "- a note"):
        assert part in text
    written = publish_ablation(grid, "seed: 0", tmp_path, "metarestore ablate <mine>")
    assert {path.name for path in written} == {"results.json", "results.md", "report.html", "figures"}
    page = (tmp_path / "report.html").read_text()
    assert "metarestore ablate &lt;mine&gt;" in page
    assert "response (1 of 2 seeds)" in page
    assert "<svg" in page


def test_the_figure_sorts_arms_and_marks_bicubic_and_reference(grid: AblationResult) -> None:
    first, second = ablation_figure(grid).axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["uniform", "response"]
    assert (first.get_title("left"), second.get_title("left")) == ("shots 1", "shots 5")
    ends = [list(line.get_xdata()) for line in first.lines]
    assert sorted(one[0] for one in ends if one == [one[0]] * 2) == pytest.approx([0, 0.3])


def test_titles_of_many_axes_stay_in_their_panels(grid: AblationResult) -> None:
    """Two more axes with long values, a panel for each: no title leaves the figure or meets its neighbour."""
    more = [{"graph.target": f"camera_of_a_long_name_{k}", "evaluation.self_ensemble": str(k > 1)} for k in range(3)]
    cells = [replace(one, labels={**extra, **one.labels}) for one in grid.cells for extra in more]
    cells = [replace(one, name=f"{one.name},{one.labels['graph.target']}") for one in cells]
    wide = replace(
        grid,
        names={"graph.target": "target", "evaluation.self_ensemble": "self_ensemble", **grid.names},
        planned={one.name: (one.arm, one.group) for one in cells},
        cells=tuple(cells),
        failures={},
    )
    figure = ablation_figure(wide)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    titles = {panel.get_title("left") for panel in figure.axes} - {""}
    boxes = [text.get_window_extent() for text in figure.findobj(Text) if text.get_text() in titles]
    assert len(boxes) == 6
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[k + 1 :])


def test_the_shipped_ablation_has_the_cells_that_it_promises() -> None:
    experiment = read_experiment(REPOSITORY / "experiments/ablation.yaml")
    grid = Grid(experiment)
    cells = grid.cells()
    assert len(experiment.arms) == 15
    assert len(cells) == 15 * 3 * 3 * 3 - 9
    learners = {grid.cell_experiment(cell).learner.kind for cell in cells if cell.arm == "response"}
    assert learners == {"pretrain", "fomaml", "maml"}
    assert {grid.cell_experiment(cell).learner.kind for cell in cells if cell.arm == "target_only"} == {"pretrain"}
    assert {key for cell in cells for key in grid.pinned(cell)} == {"learner"}


def leaves(data: object) -> list[object]:
    """Returns all leaves of nested data by their key or place."""
    values = data.values() if isinstance(data, dict) else data if isinstance(data, list) else None
    return [data] if values is None else [leaf for value in values for leaf in leaves(value)]


@pytest.mark.parametrize("exact", [["sea"], ["sea", "town"], PHOTOGRAPHS])
@pytest.mark.parametrize("alone", [False, True])
def test_exact_restorations_and_single_seeds_leave_everything_finite(
    grid: AblationResult, exact: list[str], alone: bool, tmp_path: Path
) -> None:
    def capped(figures: Metrics) -> Metrics:
        values = [CAP if n in exact else v for n, v in zip(PHOTOGRAPHS, figures.psnr_y, strict=True)]
        return replace(figures, psnr_y=values)

    cells = [replace(one, after=capped(one.after), bicubic=capped(one.bicubic)) for one in grid.cells]
    found = replace(grid, cells=tuple(one for one in cells if not alone or one.repetition == "0"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        publish_ablation(found, "seed: 0\n", tmp_path, "metarestore ablate x.yaml")
    data = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    numbers = [leaf for leaf in leaves(data) if isinstance(leaf, float)]
    assert np.isfinite(numbers).all()
    intervals = [row["gain"] for group in data["groups"] for row in group["rows"]]
    assert all(None not in one.values() for one in intervals)
    [text] = [line for line in found.findings() if "counted as 100 dB" in line]
    assert f"{cells[0].name}: {', '.join(exact)}" in text
    assert not re.search(r"\b(nan|inf|undefined)\b", (tmp_path / "results.md").read_text())


def test_colour_stands_beside_luma_and_shifts_are_named(grid: AblationResult) -> None:
    spoilt = replace(grid.cells[0].after, colour_error=[1.0, 9.0, 1.0])
    found = replace(grid, cells=(replace(grid.cells[0], after=spoilt), *grid.cells[1:]))
    [line] = found.findings()
    assert line.startswith(f"{grid.cells[0].name} shifts the colour")
    assert "hill (9.0, bicubic 1.0)" in line
    group = found.groups()[0]
    cells = group_details(found, group)
    assert [row[0] for row in cells.rows] == ["bicubic", *(row.arm for row in group.rows)]
    own = [cell.after.psnr_y_matched for cell in found.cells if (cell.arm, cell.group) == ("uniform", group.labels)]
    mean = np.mean(own)
    assert cells.rows[1][3] == f"{mean:.2f}"
    assert cells.rows[1][4].replace("−", "-") == f"{mean - group.bicubic_psnr_y_matched:+.2f}"
    assert ablation_markdown(found, "x").count("colour error, grey levels") == len(found.groups())
