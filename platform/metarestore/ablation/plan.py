"""Plans an ablation: resolves the study of each cell and finds the trainings that cells share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from metarestore.config.adaptation import AdaptationSpec
from metarestore.config.affects import TRAINED, Affects, neutral, unaffecting
from metarestore.config.engine import LocalEngineSpec, RayEngineSpec
from metarestore.config.estimators import DescriptorEstimatorSpec, estimate_behind
from metarestore.config.experiment import EvaluationSpec, Experiment
from metarestore.config.grid import Cell, Grid
from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError
from metarestore.project import Project, resolve
from metarestore.workspace.study import Study

NO_TARGET = "(any target)"
"""Placeholder for the target in a training that does not depend on it."""
_OPENED = Affects.OPENING | Affects.BUILDING
_TARGET_FREE = ("uniform", "random", "expert")
"""Estimators that do not use the target."""


@dataclass(frozen=True)
class CellPlan:
    """A cell and its resolved study.

    Attributes:
        cell: The cell.
        study: Its resolved experiment.
        digest: Hash of everything that its results depend on.
    """

    cell: Cell
    study: Study
    digest: str


@dataclass(frozen=True)
class Unit:
    """A training and the cells that share it: the unit of work of one process, as plain data.

    Attributes:
        key: Hash of everything that the training depends on.
        study: The study to train.
        cells: The cells that are evaluated on this training.
        out: The ablation's folder.
        keep: Whether to keep networks and checkpoints.
    """

    key: str
    study: Study
    cells: tuple[CellPlan, ...]
    out: Path
    keep: bool

    @property
    def folder(self) -> Path:
        """The training's folder."""
        return self.out / "trained" / self.key


def cell_folder(out: Path, cell: Cell) -> Path:
    """Returns the folder of a cell."""
    return out / "cells" / cell.name


def resolve_cells(experiment: Experiment, root: Path) -> list[tuple[Cell, Study]]:
    """Resolves every cell of a checked experiment, without opening networks or photographs.

    Raises:
        UserError: The experiment has no grid or no arms, requests GPUs, or a name, a size or a network of a cell is
            invalid; one line for each problem.
    """
    if not experiment.grid:
        raise UserError("grid: is missing, so there is nothing to ablate; add one, e.g. grid: {seed: [0, 1, 2]}")
    if not experiment.arms:
        raise UserError("arms: is missing, so there is nothing to compare; add at least one arm")
    if isinstance(experiment.engine, RayEngineSpec) and experiment.engine.gpus_per_worker:
        raise UserError("engine.gpus_per_worker: the cells of an ablation run on one CPU thread each; remove this key")
    grid, project, studies = Grid(experiment), Project(root), []
    problems: dict[str, str] = {}
    for cell in grid.cells():
        try:
            studies.append((cell, resolve(grid.cell_experiment(cell), root, project)))
        except UserError as error:
            _add(problems, error, cell)
    _raise(problems)
    if not studies:
        raise UserError("grid_exclude: excludes every cell; remove some of its entries")
    return studies


def plan_cells(experiment: Experiment, root: Path) -> list[CellPlan]:
    """Resolves every cell of a checked experiment and opens its data and networks before anything runs.

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
    """Adds the problems of a cell; a problem that several cells share is reported for the first one only."""
    problems.update({text: cell.name for text in error.problems if text not in problems})


def _raise(problems: dict[str, str]) -> None:
    if problems:
        raise UserError([f"{text} (cell {name})" for text, name in problems.items()])


def reference_arm(experiment: Experiment, against: str | None) -> str:
    """Returns the reference arm of the comparison.

    Raises:
        UserError: There is no arm of the given name.
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
    """Groups cells whose trainings are identical, in the order of the first cell of each group."""
    shared: dict[str, tuple[Study, list[CellPlan]]] = {}
    for plan in plans:
        study = training_study(plan.study)
        shared.setdefault(digest(study), (study, []))[1].append(plan)
    return [Unit(key, study, tuple(cells), out, keep) for key, (study, cells) in shared.items()]


def training_study(study: Study) -> Study:
    """Returns a study in which every setting that does not affect the training has a neutral value.

    The training runs on the returned study, so it cannot depend on a neutralised setting. Settings that may affect
    the training are kept: an unnecessary training costs time, a wrongly shared one gives wrong results.
    """
    experiment = neutral(study.experiment, TRAINED)
    graph = experiment.graph.model_copy(update={"auxiliary": tuple(study.auxiliary)})
    adaptation, training = experiment.adaptation, experiment.training
    auxiliary, target = study.auxiliary, study.target
    if experiment.training.source == "target":
        # Only the shots are used; the `balance` of the weights still applies to them.
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
            # A placeholder: the same distribution, of the same scale, in all cells.
            target = next(iter(study.auxiliary.values()))
    trained = experiment.model_copy(
        update={
            "graph": graph,
            "adaptation": adaptation,
            # Test crops are cut but not used here: the smallest allowed size fits every photograph.
            "evaluation": EvaluationSpec(crop=-(-32 // study.scale) * study.scale, crops=1),
            "engine": LocalEngineSpec(kind="local"),
            "training": training,
        }
    )
    return replace(study, experiment=trained, auxiliary=auxiliary, target=target)


def digest(study: Study) -> str:
    """Returns a hash (16 hex digits) of everything that a study's result depends on."""
    from metarestore.training.identity import study_record

    record = json.dumps(study_record(study), sort_keys=True, default=str)
    return hashlib.blake2b(record.encode(), digest_size=8).hexdigest()


def _open(study: Study, opened: set[str]) -> None:
    """Opens a study's data and builds its network, unless an equivalent study was opened before."""
    data = study.experiment.model_dump(mode="json", exclude=unaffecting(Experiment, _OPENED))
    estimator = study.experiment.graph.estimator
    if isinstance(estimate_behind(estimator), DescriptorEstimatorSpec):  # it refers to a network
        data["estimator"] = estimator.model_dump(mode="json")
    key = json.dumps([data, sorted(study.auxiliary)], sort_keys=True)
    if key not in opened:
        from metarestore.workspace.workspace import Workspace

        Workspace(study).open_all()
        opened.add(key)
