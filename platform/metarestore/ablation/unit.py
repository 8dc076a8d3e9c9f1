"""Running a training and measuring the cells that share it: what one process does, here or on Ray."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from metarestore.ablation.plan import CellPlan, Unit, cell_place
from metarestore.config.experiment import AdaptationOptimizerSpec
from metarestore.engines.local import LocalEngine, LocalSession
from metarestore.errors import UserError
from metarestore.evaluation.few_shot import AdaptationJob, Adapted, bicubic_result, unique_photographs
from metarestore.evaluation.grid import CellResult, Metrics
from metarestore.evaluation.results import Curve, write_json
from metarestore.graphs.relations import Relations
from metarestore.graphs.weights import effective_tasks
from metarestore.models.checkpoint import save_model
from metarestore.training.run import RunFolder, Trained, train

RESULT = "result.json"


@dataclass(frozen=True)
class Failed:
    """A cell that could not be run, and why."""

    name: str
    error: str


Outcome = CellResult | Failed


class Watcher(Protocol):
    """Is told how the running goes."""

    def begun(self, unit: Unit) -> None:
        """Is told that a unit was begun."""
        ...

    def ended(self, unit: Unit, outcomes: Sequence[Outcome]) -> None:
        """Is told what the cells of a unit came to."""
        ...


class _Silent:
    """Watches a training and says nothing: its figures are in its checkpoint."""

    def step(self, row: dict[str, Any]) -> None:
        """Is told of a step."""

    def validated(self, step: int, psnr: float) -> None:
        """Is told a validation figure."""

    def related(self, step: int, relations: Relations) -> None:
        """Is told new relations."""

    def saved(self, step: int) -> None:
        """Is told of a checkpoint."""


def run_unit(unit: Unit) -> list[Outcome]:
    """Trains, or goes on from the last checkpoint, then adapts and measures every cell and writes what it found.

    A mistake of the user's, or a training that diverges, fails its cells alone.

    Raises:
        Interrupted: The user asked to stop; the training is saved.
    """
    session = LocalEngine().session(unit.study)
    try:
        trained = train(session.workspace, RunFolder(unit.place, unit.study, resume=True), session, _Silent())
    except UserError as error:
        return [Failed(plan.cell.name, str(error)) for plan in unit.cells]
    outcomes = [_measured(plan, trained, unit) for plan in unit.cells]
    if not unit.keep and all(isinstance(outcome, CellResult) for outcome in outcomes):
        shutil.rmtree(unit.place)
    return outcomes


def read_result(place: Path) -> CellResult | None:
    """Reads what a cell found; None if it has not finished.

    Raises:
        UserError: The file cannot be read.
    """
    path = place / RESULT
    if not path.is_file():
        return None
    try:
        return CellResult.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error!r}); remove it to run the cell again") from error


def _measured(plan: CellPlan, trained: Trained, unit: Unit) -> Outcome:
    try:
        return _measure(plan, trained, unit)
    except UserError as error:
        return Failed(plan.cell.name, str(error))


def _measure(plan: CellPlan, trained: Trained, unit: Unit) -> CellResult:
    session = LocalEngine().session(plan.study)
    how = plan.study.experiment.adaptation
    ways = (AdaptationOptimizerSpec(steps=0), how, *how.alternatives)
    before, main, *others = [_adapted(session, way, trained) for way in ways]
    if len(main.curve.undefined) == main.curve.psnr_y.shape[1]:
        raise UserError("all restored pixels are not numbers: the adaptation diverged; lower adaptation.lr")
    place = cell_place(unit.out, plan.cell)
    result = _result(plan, trained, unit.key, session, [before.curve, main.curve, *(one.curve for one in others)])
    if unit.keep:
        save_model(place / "adapted.safetensors", plan.study.experiment.model, plan.study.scale, main.flat)
    write_json(place / RESULT, result.to_json())
    return result


def _adapted(session: LocalSession, way: AdaptationOptimizerSpec, trained: Trained) -> Adapted:
    return AdaptationJob(way).run(session.workspace, trained.flat)


def _result(plan: CellPlan, trained: Trained, key: str, session: LocalSession, curves: list[Curve]) -> CellResult:
    workspace = session.workspace
    before, main, *others = curves
    state, relations = trained.state, trained.relations
    return CellResult(
        name=plan.cell.name,
        arm=plan.cell.arm,
        labels=dict(plan.cell.labels),
        study=plan.digest,
        trained=key,
        photographs=list(unique_photographs(workspace)),
        bicubic=_figures(bicubic_result(workspace).main),
        before=_figures(before),
        after=_figures(main),
        alternatives={curve.label: curve.psnr_y[-1].tolist() for curve in others},
        relations={} if relations is None else _named(relations, relations.values.tolist()),
        standard_errors={} if relations is None else _named(relations, relations.standard_errors.tolist()),
        reliability=None if relations is None else _defined(relations.reliability),
        weights=trained.weights,
        effective_tasks=effective_tasks(list(trained.weights.values())) if trained.weights else None,
        training_seconds=state.seconds,
        relating_seconds=state.relating,
    )


def _figures(curve: Curve) -> Metrics:
    if curve.colour is None:
        raise TypeError("a measured curve has colour metrics")
    return Metrics(curve.psnr_y[-1].tolist(), curve.ssim_y.tolist(), **curve.colour.to_json())


def _named(relations: Relations, values: list[float]) -> dict[str, Any]:
    return {name: _defined(value) for name, value in zip(relations.auxiliary, values, strict=True)}


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None
