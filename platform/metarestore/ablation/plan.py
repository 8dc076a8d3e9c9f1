"""From a grid to what is run: the study of each cell, and the trainings that cells share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from metarestore.config.affects import TRAINED, Affects, neutral, unaffecting
from metarestore.config.estimators import DescriptorEstimatorSpec, estimate_behind
from metarestore.config.experiment import AdaptationSpec, EvaluationSpec, Experiment, LocalEngineSpec, RayEngineSpec
from metarestore.config.grid import Cell, Grid
from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError
from metarestore.project import Project, resolve
from metarestore.workspace.study import Study

NO_TARGET = "(any target)"
"""Name of the target in a training that knows none."""
_OPENED = Affects.OPENING | Affects.BUILDING
_TARGET_FREE = ("uniform", "random", "expert")
"""Estimators that never look at the target."""


@dataclass(frozen=True)
class CellPlan:
    """A cell, ready to be run.

    Attributes:
        cell: Which.
        study: Its resolved experiment.
        digest: Changes with everything that its figures depend on.
    """

    cell: Cell
    study: Study
    digest: str


@dataclass(frozen=True)
class Unit:
    """A training, and the cells that share it: what one process takes at a time, as plain data.

    Attributes:
        key: Digest of all that the training depends on.
        study: What is trained.
        cells: The cells that are measured on it.
        out: The grid's folder.
        keep: Whether networks and checkpoints are kept.
    """

    key: str
    study: Study
    cells: tuple[CellPlan, ...]
    out: Path
    keep: bool

    @property
    def place(self) -> Path:
        """The training's folder."""
        return self.out / "trained" / self.key


def cell_place(out: Path, cell: Cell) -> Path:
    """Returns the folder of a cell."""
    return out / "cells" / cell.name


def resolve_cells(experiment: Experiment, root: Path) -> list[tuple[Cell, Study]]:
    """Resolves every cell of a checked experiment; takes no time, since no network and no photograph is opened.

    Raises:
        UserError: There is no grid or no arm, cells are wanted on GPUs, or a name, a size or a network of a cell does
            not fit; one line each.
    """
    if not experiment.grid:
        raise UserError("grid: is missing, so there is nothing to ablate; write e.g. grid: {seed: [0, 1, 2]}")
    if not experiment.arms:
        raise UserError("arms: is missing, so there is nothing to compare; name some")
    if isinstance(experiment.engine, RayEngineSpec) and experiment.engine.gpus_per_worker:
        raise UserError("engine.gpus_per_worker: the cells of a grid compute on one CPU thread each; leave it out")
    grid, project, studies = Grid(experiment), Project(root), []
    problems: dict[str, str] = {}
    for cell in grid.cells():
        try:
            studies.append((cell, resolve(grid.cell_experiment(cell), root, project)))
        except UserError as error:
            _add(problems, error, cell)
    _raise(problems)
    if not studies:
        raise UserError("grid_exclude: leaves no cell to run; leave something out of it")
    return studies


def plan_cells(experiment: Experiment, root: Path) -> list[CellPlan]:
    """Resolves every cell of a checked experiment, and opens what it names, before anything is run.

    Raises:
        UserError: As for `resolve_cells`, or photographs, pairs or a network of a cell cannot be used.
    """
    plans = []
    problems: dict[str, str] = {}
    opened: set[str] = set()
    for cell, study in resolve_cells(experiment, root):
        try:
            _open(study, opened)
        except UserError as error:
            _add(problems, error, cell)
        else:
            plans.append(CellPlan(cell, study, digest(study)))
    _raise(problems)
    return plans


def _add(problems: dict[str, str], error: UserError, cell: Cell) -> None:
    """Adds the problems of a cell; what is wrong in one cell is wrong in many, so it is said of the first."""
    problems.update({text: cell.name for text in error.problems if text not in problems})


def _raise(problems: dict[str, str]) -> None:
    if problems:
        raise UserError([f"{text} (cell {name})" for text, name in problems.items()])


def reference_arm(experiment: Experiment, against: str | None) -> str:
    """Returns the arm that others are compared with.

    Raises:
        UserError: There is no such arm.
    """
    if against is not None and against not in experiment.arms:
        raise UserError(f"--against: there is no arm '{against}'{did_you_mean(against, experiment.arms, noun='arms')}")
    if against is not None or not experiment.grid:
        return against or ""
    grid = Grid(experiment)
    for cell in grid.cells():
        one = grid.cell_experiment(cell)
        if one.graph.estimator.kind == "uniform" and one.training.source == "auxiliary":
            return cell.arm
    return next(iter(experiment.arms), "")


def plan_units(plans: Sequence[CellPlan], out: Path, *, keep: bool) -> list[Unit]:
    """Groups cells by what their trainings depend on, in the order of the first cell of each."""
    shared: dict[str, tuple[Study, list[CellPlan]]] = {}
    for plan in plans:
        study = training_study(plan.study)
        shared.setdefault(digest(study), (study, []))[1].append(plan)
    return [Unit(key, study, tuple(cells), out, keep) for key, (study, cells) in shared.items()]


def training_study(study: Study) -> Study:
    """Returns a study with all that its training does not depend on set to the same in every cell.

    The training is run on what is returned, so it cannot depend on anything that was left out. In doubt a setting
    stays: a training too many costs time, one too few would be wrong.
    """
    experiment = neutral(study.experiment, TRAINED)
    graph = experiment.graph.model_copy(update={"auxiliary": tuple(study.auxiliary)})
    adaptation, training = experiment.adaptation, experiment.training
    auxiliary, target = study.auxiliary, study.target
    if experiment.training.source == "target":
        # The shots are all that is seen; the weights' `balance` still acts on them.
        graph = neutral(graph, Affects.TRAINING).model_copy(update={"auxiliary": (graph.target,)})
        adaptation = neutral(adaptation, Affects.TRAINING)
        training = training.model_copy(update={"shot_tasks": 0})
        auxiliary = {}
    elif graph.estimator.kind in _TARGET_FREE and graph.prior is None:
        graph = graph.model_copy(update={"edges": graph.edges if graph.estimator.kind == "expert" else ()})
        if experiment.training.shot_tasks:
            adaptation = neutral(adaptation, Affects.TRAINING)
        else:
            graph, adaptation = graph.model_copy(update={"target": NO_TARGET}), AdaptationSpec()
            # Something has to stand there; of the same scale, and the same in all cells.
            target = next(iter(study.auxiliary.values()))
    trained = experiment.model_copy(
        update={
            "graph": graph,
            "adaptation": adaptation,
            # Test crops are cut, though nobody looks at them: as small as they may be, so that they fit everywhere.
            "evaluation": EvaluationSpec(crop=-(-32 // study.scale) * study.scale, crops=1),
            "engine": LocalEngineSpec(kind="local"),
            "training": training,
        }
    )
    return replace(study, experiment=trained, auxiliary=auxiliary, target=target)


def digest(study: Study) -> str:
    """Returns 16 hex digits that change with everything that a study's result depends on."""
    from metarestore.training.identity import study_record

    record = json.dumps(study_record(study), sort_keys=True, default=str)
    return hashlib.blake2b(record.encode(), digest_size=8).hexdigest()


def _open(study: Study, opened: set[str]) -> None:
    """Opens what a study names and builds its network, unless one that opens the same was opened before."""
    data = study.experiment.model_dump(mode="json", exclude=unaffecting(Experiment, _OPENED))
    estimator = study.experiment.graph.estimator
    if isinstance(estimate_behind(estimator), DescriptorEstimatorSpec):  # it names a network
        data["estimator"] = estimator.model_dump(mode="json")
    key = json.dumps([data, sorted(study.auxiliary)], sort_keys=True)
    if key not in opened:
        from metarestore.workspace.workspace import Workspace

        Workspace(study).open_all()
        opened.add(key)
