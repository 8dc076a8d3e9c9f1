"""From a grid to what is run: the study of each cell, and the trainings that cells share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from metarestore.config.estimators import DescriptorEstimator, estimate_behind
from metarestore.config.experiment import Adaptation, Evaluation, Experiment, LocalEngine, RayEngine
from metarestore.config.grid import Cell, Grid
from metarestore.errors import UserError
from metarestore.learners.workspace import Study, Workspace
from metarestore.project import Project, resolve
from metarestore.tasks.spec import PairsSpec, Scale, SyntheticSpec
from metarestore.training.identity import study_record

NO_TARGET = "(any target)"
"""Name of the target in a training that knows none."""
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


class ReadOnce(Project):
    """A project whose files are read once: for many experiments that are resolved in one go."""

    @cached_property
    def _tasks(self) -> dict[tuple[str, Scale | None], SyntheticSpec | PairsSpec]:
        return {}

    @cached_property
    def _names(self) -> dict[str, dict[str, Path]]:
        return {}

    def names(self, kind: str) -> dict[str, Path]:
        """Returns the files of `kind`, as they were when they were first asked for."""
        if kind not in self._names:
            self._names[kind] = super().names(kind)
        return self._names[kind]

    def task(self, name: str, key: str = "", scale: Scale | None = None) -> SyntheticSpec | PairsSpec:
        """Returns a task file, as it was when it was first asked for."""
        if (name, scale) not in self._tasks:
            self._tasks[name, scale] = super().task(name, key, scale)
        return self._tasks[name, scale]


def cell_place(out: Path, cell: Cell) -> Path:
    """Returns the folder of a cell."""
    return out / "cells" / cell.name


def plan_cells(experiment: Experiment, root: Path) -> list[CellPlan]:
    """Resolves every cell of a checked experiment, and opens what it names, before anything is run.

    Raises:
        UserError: There is no grid or no arm, cells are wanted on GPUs, or a name, a size or a network of a cell does
            not fit; one line each.
    """
    if not experiment.grid:
        raise UserError("grid: is missing, so there is nothing to ablate; write e.g. grid: {seed: [0, 1, 2]}")
    if not experiment.arms:
        raise UserError("arms: is missing, so there is nothing to compare; name some")
    if isinstance(experiment.engine, RayEngine) and experiment.engine.gpus_per_worker:
        raise UserError("engine.gpus_per_worker: the cells of a grid compute on one CPU thread each; leave it out")
    grid, project, plans = Grid(experiment), ReadOnce(root), []
    problems: dict[str, str] = {}
    opened: set[str] = set()
    for cell in grid.cells():
        try:
            study = resolve(grid.cell_experiment(cell), root, project)
            _open(study, opened)
        except UserError as error:
            # What is wrong in one cell is wrong in many: it is said of the first.
            problems |= {text: cell.name for text in error.problems if text not in problems}
        else:
            plans.append(CellPlan(cell, study, digest(study)))
    if problems:
        raise UserError([f"{text} (cell {name})" for text, name in problems.items()])
    if not plans:
        raise UserError("grid_exclude: leaves no cell to run; leave something out of it")
    return plans


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
    experiment = study.experiment
    graph = experiment.graph.model_copy(update={"auxiliary": tuple(study.auxiliary)})
    adaptation = experiment.adaptation.model_copy(update={"alternatives": ()})
    training = experiment.training.model_copy(update={"keep": 1})
    auxiliary, target = study.auxiliary, study.target
    if experiment.training.source == "target":
        # The shots are all that is seen; the weights' `balance` still acts on them.
        graph = graph.model_copy(update={"auxiliary": (graph.target,), **_no_relations(experiment)})
        adaptation = Adaptation(shots=adaptation.shots, shot_size=adaptation.shot_size)
        training = training.model_copy(update={"shot_tasks": 0})
        auxiliary = {}
    elif graph.estimator.kind in _TARGET_FREE and graph.prior is None:
        graph = graph.model_copy(update={"edges": graph.edges if graph.estimator.kind == "expert" else ()})
        if experiment.training.shot_tasks:
            adaptation = Adaptation(shots=adaptation.shots, shot_size=adaptation.shot_size)
        else:
            graph, adaptation = graph.model_copy(update={"target": NO_TARGET}), Adaptation()
            # Something has to stand there; of the same scale, and the same in all cells.
            target = next(iter(study.auxiliary.values()))
    trained = experiment.model_copy(
        update={
            "graph": graph,
            "adaptation": adaptation,
            # Test crops are cut, though nobody looks at them: as small as they may be, so that they fit everywhere.
            "evaluation": Evaluation(crop=-(-32 // study.scale) * study.scale, crops=1),
            "engine": LocalEngine(kind="local"),
            "training": training,
        }
    )
    return replace(study, experiment=trained, auxiliary=auxiliary, target=target)


def _no_relations(experiment: Experiment) -> dict[str, Any]:
    """Returns the settings of a graph that is not used to relate anything, whatever it says."""
    fields = type(experiment.graph).model_fields
    return {key: fields[key].default for key in ("estimator", "edges", "prior", "forbidden", "refresh")}


def digest(study: Study) -> str:
    """Returns 16 hex digits that change with everything that a study's result depends on."""
    record = json.dumps(study_record(study), sort_keys=True, default=str)
    return hashlib.blake2b(record.encode(), digest_size=8).hexdigest()


def _open(study: Study, opened: set[str]) -> None:
    """Opens what a study names and builds its network, unless one that opens the same was opened before."""
    # Neither has a part in what is opened.
    without: dict[str, Any] = {
        "seed": True,
        "engine": True,
        "graph": {"estimator", "weights", "edges", "prior", "forbidden", "refresh"},
        "training": {"steps", "source", "shot_tasks", "optimizer", "ema"},
        "adaptation": {"steps", "lr", "optimizer", "alternatives"},
        "evaluation": {"every", "self_ensemble"},
    }
    data = study.experiment.model_dump(mode="json", exclude=without)
    estimator = study.experiment.graph.estimator
    if isinstance(estimate_behind(estimator), DescriptorEstimator):  # it names a network
        data["estimator"] = estimator.model_dump(mode="json")
    key = json.dumps([data, sorted(study.auxiliary)], sort_keys=True)
    if key not in opened:
        Workspace(study).open_all()
        opened.add(key)
