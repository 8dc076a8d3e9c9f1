"""A whole grid: check, run what is not finished, track, compare, report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from metarestore import __version__
from metarestore.ablation.execute import execute
from metarestore.ablation.plan import CellPlan, Unit, cell_place, plan_cells, plan_units, reference_arm
from metarestore.ablation.unit import Failed, Outcome, read_result
from metarestore.config.affects import MEASURED, unaffecting
from metarestore.config.dump import dump_yaml
from metarestore.config.experiment import Experiment
from metarestore.config.grid import Grid
from metarestore.errors import UserError
from metarestore.evaluation.grid import AblationResult, CellResult
from metarestore.files import write_atomically
from metarestore.journal import Journal
from metarestore.learners.workspace import Workspace
from metarestore.reports.grid_progress import GridDisplay
from metarestore.reports.grid_report import publish_grid
from metarestore.revision import revision
from metarestore.tasks.fitted_on import fitted_on_test_pairs
from metarestore.tracking import Run, Store, ended
from metarestore.tracking_records import NOTE
from metarestore.training.identity import portable
from metarestore.training.interrupt import Interrupted

RECORD = "grid.json"
_LONGEST_TAG = 5000
"""Longest value of a tag that MLflow takes, in characters."""


def run_grid(
    experiment: Experiment,
    root: Path,
    out: Path,
    display: GridDisplay,
    *,
    name: str,
    command: str,
    against: str | None = None,
    keep: bool = False,
    resume: bool = False,
) -> AblationResult:
    """Runs every cell of an experiment's grid into a folder, and compares the arms.

    Args:
        experiment: The checked experiment.
        root: The project's folder.
        out: The grid's folder.
        display: Shows progress.
        name: Name of the MLflow experiment.
        command: What repeats the grid, for the report.
        against: The arm that others are compared with, if not the first that weighs all distributions equally.
        keep: Whether to keep the trainings and the adapted networks.
        resume: Whether to go on with what is in `out`; cells that are new since then are added.

    Returns:
        What was found; its `failures` are cells that could not be run.

    Raises:
        UserError: The configuration does not hold together, or the folder holds another grid.
        Interrupted, KeyboardInterrupt: The user asked to stop; everything up to then is saved.
    """
    reference = reference_arm(experiment, against)
    plans = plan_cells(experiment, root)
    for line in fitted_on_test_pairs((plan.study.auxiliary, plan.study.target) for plan in plans):
        display.warning(line)
    _claim(out, root, resume=resume)
    finished = _finished(plans, out)
    written = portable(experiment.model_dump(mode="json", by_alias=True), root)
    dump_yaml(written, out / "config.yaml", header="The resolved configuration of this grid.")
    store = Store(root, name, display.warning, required=not resume, command=command)
    parent = store.run(name, folder=out)
    with ended(parent, display.warning, Interrupted):
        parent.artifact(out / "config.yaml")
        parent.tag(NOTE, f"{len(plans)} cells over {', '.join(experiment.grid)}.\n\nFolder: `{out}`")
        parent.params({"arms": ", ".join(experiment.arms), "reference": reference, "grid": experiment.grid})
        driver = _Driver(out, display, store, parent)
        driver.take_up(plans, finished)
        units = plan_units([plan for plan in plans if plan.cell.name not in finished], out, keep=keep)
        notes = _shot_notes(plans)
        for note in notes:
            display.warning(note)
        display.start(len(plans), len(finished), len(units))
        execute(units, experiment.engine, driver)
        result = grid_result(experiment, name, reference, plans, driver.results, driver.failures)
        result = replace(result, notes=(*notes, *result.notes))
        parent.metrics(_best(result), len(result.cells))
        for path in publish_grid(result, (out / "config.yaml").read_text(encoding="utf-8"), out, command):
            parent.artifact(path)
    return result


def grid_result(
    experiment: Experiment,
    name: str,
    reference: str,
    plans: Sequence[CellPlan],
    results: Mapping[str, CellResult],
    failures: Mapping[str, str],
) -> AblationResult:
    """Gathers what the cells of a grid found."""
    grid = Grid(experiment)
    trainings = {result.trained: result.training_seconds for result in results.values()}
    found = AblationResult(
        name=name,
        arms=tuple(experiment.arms),
        names=grid.names,
        reference=reference,
        planned={plan.cell.name: (plan.cell.arm, plan.cell.group) for plan in plans},
        cells=tuple(results[plan.cell.name] for plan in plans if plan.cell.name in results),
        failures=dict(failures),
        notes=_notes(grid),
        seconds=sum(trainings.values()),
        seed=experiment.seed,
    )
    return replace(found, notes=(*found.notes, *found.findings()))


def _shot_notes(plans: Sequence[CellPlan]) -> tuple[str, ...]:
    """Says which shots have another colour than the others; every choice of shots is opened once."""
    chosen: dict[tuple[object, ...], CellPlan] = {}
    for plan in plans:
        how = plan.study.experiment.adaptation
        chosen.setdefault((plan.study.experiment.graph.target, how.shots, how.shot_size, how.off_colour_shots), plan)
    return tuple(dict.fromkeys(note for plan in chosen.values() for note in Workspace(plan.study).notes()))


def _notes(grid: Grid) -> tuple[str, ...]:
    """Says where an arm does not stand where its group's heading says, and what was left out."""
    pinned: dict[str, list[str]] = {}
    for cell in grid.cells():
        for key in grid.pinned(cell):
            arms = pinned.setdefault(key, [])
            arms += [cell.arm] if cell.arm not in arms else []
    notes = [f"{', '.join(arms)}: sets {key} itself, so it is the same in all groups" for key, arms in pinned.items()]
    planned = {(cell.arm, cell.group) for cell in grid.cells()}
    absent = dict.fromkeys((cell.arm, cell.group) for cell in grid.all_cells() if (cell.arm, cell.group) not in planned)
    for arm, group in absent:
        place = ", ".join(f"{grid.names[key]} {label}" for key, label in group)
        notes.append(f"{arm} is left out where {place}" if place else f"{arm} is left out")
    return tuple(notes)


class _Driver:
    """Takes what cells found: keeps it, tells MLflow and the display. The only writer of MLflow."""

    def __init__(self, out: Path, display: GridDisplay, store: Store, parent: Run) -> None:
        self._out, self._display, self._store, self._parent = out, display, store, parent
        self.results: dict[str, CellResult] = {}
        self.failures: dict[str, str] = {}

    def take_up(self, plans: Sequence[CellPlan], finished: Mapping[str, CellResult]) -> None:
        """Takes over the cells of earlier sessions; a kill may have come before MLflow was told of some."""
        self.results |= finished
        for plan in plans:
            if plan.cell.name in finished and not Journal(cell_place(self._out, plan.cell)).settled:
                self._track(plan, finished[plan.cell.name])

    def begun(self, unit: Unit) -> None:
        """Is told that a unit was begun."""
        self._display.begun(unit.key, [plan.cell.name for plan in unit.cells])

    def ended(self, unit: Unit, outcomes: Sequence[Outcome]) -> None:
        """Is told what the cells of a unit came to."""
        for plan, outcome in zip(unit.cells, outcomes, strict=True):
            if isinstance(outcome, Failed):
                self.failures[outcome.name] = outcome.error
            else:
                self.results[outcome.name] = outcome
            self._track(plan, outcome)
            self._display.ended(plan.cell.name, outcome if isinstance(outcome, CellResult) else outcome.error)
        self._display.left(unit.key)

    def _track(self, plan: CellPlan, outcome: Outcome) -> None:
        """Tells MLflow of a cell, all in one go."""
        place = cell_place(self._out, plan.cell)
        place.mkdir(parents=True, exist_ok=True)
        run = self._store.run(plan.cell.name, folder=place, parent=self._parent)
        left_out = unaffecting(Experiment, MEASURED)
        described = plan.study.experiment.model_dump(mode="json", by_alias=True, exclude=left_out)
        run.params({"arm": plan.cell.arm, **described})
        for key, label in plan.cell.labels.items():
            run.tag(f"grid.{key}", label)
        if isinstance(outcome, Failed):
            run.tag("error", outcome.error[:_LONGEST_TAG])
            run.end("FAILED")
            return
        run.metrics(_metrics(outcome), 0)
        run.end()


def _best(result: AblationResult) -> dict[str, float]:
    """Returns the best arm's mean PSNR-Y, its gain over bicubic upscaling, and that of bicubic, in dB."""
    rows = [(row, group) for group in result.groups() for row in group.rows]
    if not rows:
        return {}
    row, group = max(rows, key=lambda one: one[0].psnr_y - one[1].bicubic_psnr_y)
    gain = row.psnr_y - group.bicubic_psnr_y
    return {"gain": gain, "psnr_y": row.psnr_y, "psnr_y_bicubic": group.bicubic_psnr_y}


def _metrics(cell: CellResult) -> dict[str, float]:
    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    figures = {
        "gain": mean(cell.after.psnr_y) - mean(cell.bicubic.psnr_y),
        "psnr_y": mean(cell.after.psnr_y),
        "ssim_y": mean(cell.after.ssim_y),
        "psnr_rgb": mean(cell.after.psnr_rgb),
        "colour_error": mean(cell.after.colour_error),
        "psnr_y_matched": mean(cell.after.psnr_y_matched),
        "psnr_y_before_adaptation": mean(cell.before.psnr_y),
        "psnr_y_bicubic": mean(cell.bicubic.psnr_y),
        "seconds": cell.training_seconds,
        "seconds_relating": cell.relating_seconds,
        "weight_effective_tasks": cell.effective_tasks,
    }
    relations = {f"relation/{name}": value for name, value in cell.relations.items()}
    weights = {f"weight/{name}": value for name, value in cell.weights.items()}
    return {key: value for key, value in {**figures, **relations, **weights}.items() if value is not None}


def _claim(out: Path, root: Path, *, resume: bool) -> None:
    """Makes the grid's folder, or finds the grid in it.

    Raises:
        UserError: It holds a run and `resume` is off, or none and it is on, or it cannot be written.
    """
    record = out / RECORD
    if resume and not record.is_file():
        raise UserError(f"--resume: there is no grid in {out}; leave --resume out to start one")
    if not resume and any((out / name).exists() for name in (RECORD, "run.json", "sweep.json")):
        raise UserError(f"{out}: holds a run already; continue it with --resume, or choose another --out")
    if not resume:
        commit = revision(root, Path.cwd())
        data = {"metarestore": __version__, "git": commit.to_json() if commit else None}
        write_atomically(record, json.dumps(data).encode())


def _finished(plans: Sequence[CellPlan], out: Path) -> dict[str, CellResult]:
    """Reads the cells that are finished.

    Raises:
        UserError: A cell of this name was run with another configuration.
    """
    found = {plan.cell.name: read_result(cell_place(out, plan.cell)) for plan in plans}
    finished = {name: result for name, result in found.items() if result is not None}
    others = [p.cell.name for p in plans if p.cell.name in finished and finished[p.cell.name].study != p.digest]
    if others:
        raise UserError(
            f"{out}: {len(others)} cells were run with another configuration, {others[0]} among them; cells may be "
            "added on --resume, not changed: choose another --out"
        )
    return finished
