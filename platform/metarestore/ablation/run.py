"""Runs an ablation: check, run unfinished cells, track, compare, report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from metarestore import __version__
from metarestore.ablation.execute import execute
from metarestore.ablation.plan import CellPlan, Unit, cell_folder, plan_cells, plan_units, reference_arm
from metarestore.ablation.unit import Failed, Outcome, read_result
from metarestore.config.affects import MEASURED, unaffecting
from metarestore.config.dump import dump_yaml
from metarestore.config.experiment import Experiment
from metarestore.config.grid import Grid
from metarestore.errors import UserError
from metarestore.evaluation.ablation import AblationResult, CellResult
from metarestore.files import holds_run, occupied, write_atomically
from metarestore.journal import Journal
from metarestore.reports.ablation.progress import AblationDisplay
from metarestore.reports.ablation.report import publish_ablation
from metarestore.revision import revision
from metarestore.tasks.fitted_on import pair_warnings
from metarestore.tracking import Run, Store, ended
from metarestore.tracking_records import NOTE
from metarestore.training.identity import portable
from metarestore.training.interrupt import Interrupted
from metarestore.workspace.workspace import Workspace

RECORD = "grid.json"
Publish = Callable[[AblationResult, str, Path, str], list[Path]]


def run_ablation(
    experiment: Experiment,
    root: Path,
    out: Path,
    display: AblationDisplay,
    *,
    name: str,
    command: str,
    against: str | None = None,
    keep: bool = False,
    resume: bool = False,
    publish: Publish = publish_ablation,
) -> AblationResult:
    """Runs every cell of an ablation, writes the results into a folder, and compares the arms.

    Args:
        experiment: The checked experiment.
        root: The project's folder.
        out: The ablation's folder.
        display: Shows progress.
        name: Name of the MLflow experiment.
        command: Command that reproduces the ablation, for the report.
        against: The reference arm; by default the first arm that weights all distributions equally.
        keep: Whether to keep the trainings and the adapted networks.
        resume: Whether to continue the ablation in `out`; cells added to the grid since then are run too.
        publish: Writes the results, given the configuration, the folder and the command; returns the written paths.

    Returns:
        The results; `failures` lists the cells that could not be run.

    Raises:
        UserError: The configuration is invalid, or the folder contains another ablation.
        Interrupted, KeyboardInterrupt: The user asked to stop; all finished work is saved.
    """
    reference = reference_arm(experiment, against)
    plans = plan_cells(experiment, root)
    _claim(out, root, resume=resume)
    finished = _finished(plans, out)
    configuration = portable(experiment.model_dump(mode="json", by_alias=True), root)
    dump_yaml(configuration, out / "config.yaml", header="The resolved configuration of this ablation.")
    store = Store(root, name, display.warning, required=not resume, command=command)
    parent = store.run(name, folder=out)
    with ended(parent, display.warning, Interrupted):
        parent.artifact(out / "config.yaml")
        parent.tag(NOTE, f"{len(plans)} cells over {', '.join(experiment.grid)}.\n\nFolder: `{out}`")
        parent.params({"arms": ", ".join(experiment.arms), "reference": reference, "grid": experiment.grid})
        driver = _Driver(out, display, store, parent)
        driver.restore_finished(plans, finished)
        units = plan_units([plan for plan in plans if plan.cell.name not in finished], out, keep=keep)
        notes = (*pair_warnings((plan.study.auxiliary, plan.study.target) for plan in plans), *_shot_notes(plans))
        for note in notes:
            display.warning(note)
        display.start(len(plans), len(finished), len(units))
        execute(units, experiment.engine, driver)
        result = ablation_result(experiment, name, reference, plans, driver.results, driver.failures)
        result = replace(result, notes=(*notes, *result.notes))
        parent.metrics(_best(result), len(result.cells))
        for path in publish(result, (out / "config.yaml").read_text(encoding="utf-8"), out, command):
            parent.artifact(path)
    return result


def ablation_result(
    experiment: Experiment,
    name: str,
    reference: str,
    plans: Sequence[CellPlan],
    results: Mapping[str, CellResult],
    failures: Mapping[str, str],
) -> AblationResult:
    """Collects the results of an ablation's cells."""
    grid = Grid(experiment)
    trainings = {result.trained: result.training_seconds for result in results.values()}
    result = AblationResult(
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
    return replace(result, notes=(*result.notes, *result.findings()))


def _shot_notes(plans: Sequence[CellPlan]) -> tuple[str, ...]:
    """Reports shots whose colour differs from that of the others; each selection of shots is opened once."""
    chosen: dict[tuple[object, ...], CellPlan] = {}
    for plan in plans:
        target, options = plan.study.experiment.graph.target, plan.study.experiment.adaptation
        shots = (options.shots, options.first_shot, options.shot_size, options.off_colour_shots)
        chosen.setdefault((target, *shots), plan)
    return tuple(dict.fromkeys(note for plan in chosen.values() for note in Workspace(plan.study).notes()))


def _notes(grid: Grid) -> tuple[str, ...]:
    """Reports keys that an arm sets itself, regardless of the group's heading, and combinations that were excluded."""
    pinned: dict[str, list[str]] = {}
    for cell in grid.cells():
        for key in grid.pinned(cell):
            arms = pinned.setdefault(key, [])
            arms += [cell.arm] if cell.arm not in arms else []
    notes = [f"{', '.join(arms)}: sets {key} itself, so it is the same in all groups" for key, arms in pinned.items()]
    planned = {(cell.arm, cell.group) for cell in grid.cells()}
    absent = dict.fromkeys((cell.arm, cell.group) for cell in grid.all_cells() if (cell.arm, cell.group) not in planned)
    for arm, group in absent:
        where = ", ".join(f"{grid.names[key]} {label}" for key, label in group)
        notes.append(f"{arm} is excluded at {where}" if where else f"{arm} is excluded")
    return tuple(notes)


class _Driver:
    """Collects the results of cells and passes them to MLflow and the display. The only writer of MLflow."""

    def __init__(self, out: Path, display: AblationDisplay, store: Store, parent: Run) -> None:
        self._out, self._display, self._store, self._parent = out, display, store, parent
        self.results: dict[str, CellResult] = {}
        self.failures: dict[str, str] = {}

    def restore_finished(self, plans: Sequence[CellPlan], finished: Mapping[str, CellResult]) -> None:
        """Adds the cells of earlier sessions; after a kill, some of them may still be missing in MLflow."""
        self.results |= finished
        for plan in plans:
            if plan.cell.name in finished and not Journal(cell_folder(self._out, plan.cell)).settled:
                self._track(plan, finished[plan.cell.name])

    def started(self, unit: Unit) -> None:
        """Called when a unit starts."""
        self._display.started(unit.key, [plan.cell.name for plan in unit.cells])

    def ended(self, unit: Unit, outcomes: Sequence[Outcome]) -> None:
        """Called with the outcomes of a unit's cells when it ends."""
        for plan, outcome in zip(unit.cells, outcomes, strict=True):
            if isinstance(outcome, Failed):
                self.failures[outcome.name] = outcome.error
            else:
                self.results[outcome.name] = outcome
            self._track(plan, outcome)
            self._display.ended(plan.cell.name, outcome if isinstance(outcome, CellResult) else outcome.error)
        self._display.finished(unit.key)

    def _track(self, plan: CellPlan, outcome: Outcome) -> None:
        """Logs a cell to MLflow, all at once."""
        folder = cell_folder(self._out, plan.cell)
        folder.mkdir(parents=True, exist_ok=True)
        run = self._store.run(plan.cell.name, folder=folder, parent=self._parent)
        left_out = unaffecting(Experiment, MEASURED)
        described = plan.study.experiment.model_dump(mode="json", by_alias=True, exclude=left_out)
        run.params({"arm": plan.cell.arm, **described})
        for key, label in plan.cell.labels.items():
            run.tag(f"grid.{key}", label)
        if isinstance(outcome, Failed):
            run.tag("error", outcome.error)
            run.end("FAILED")
            return
        run.metrics(_metrics(outcome), 0)
        run.end()


def _best(result: AblationResult) -> dict[str, float]:
    """Returns the best arm's gain over bicubic upscaling and the mean PSNR-Y of both, in dB."""
    rows = [(row, group) for group in result.groups() for row in group.rows]
    if not rows:
        return {}
    row, group = max(rows, key=lambda one: one[0].psnr_y - one[1].bicubic_psnr_y)
    gain = row.psnr_y - group.bicubic_psnr_y
    return {"gain": gain, "psnr_y": row.psnr_y, "psnr_y_bicubic": group.bicubic_psnr_y}


def _metrics(cell: CellResult) -> dict[str, float]:
    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    metrics = {
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
    return {key: value for key, value in {**metrics, **relations, **weights}.items() if value is not None}


def _claim(out: Path, root: Path, *, resume: bool) -> None:
    """Creates the ablation's record, or checks that one exists to resume.

    Raises:
        UserError: The folder contains a run and `resume` is off, or none and it is on, or it cannot be written.
    """
    record = out / RECORD
    if resume and not record.is_file():
        raise UserError(f"--resume: {out} contains no ablation to continue; remove --resume to start one")
    if not resume and holds_run(out):
        raise occupied(out)
    if not resume:
        commit = revision(root, Path.cwd())
        data = {"metarestore": __version__, "git": commit.to_json() if commit else None}
        write_atomically(record, json.dumps(data).encode())


def _finished(plans: Sequence[CellPlan], out: Path) -> dict[str, CellResult]:
    """Reads the results of the finished cells.

    Raises:
        UserError: A cell of the same name was run with another configuration.
    """
    results = {plan.cell.name: read_result(cell_folder(out, plan.cell)) for plan in plans}
    finished = {name: result for name, result in results.items() if result is not None}
    others = [p.cell.name for p in plans if p.cell.name in finished and finished[p.cell.name].study != p.digest]
    if others:
        raise UserError(
            f"{out}: {len(others)} cells were run with another configuration, e.g. {others[0]}; --resume can add "
            "cells but not change them; choose another --out"
        )
    return finished
