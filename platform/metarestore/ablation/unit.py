"""Runs a training and evaluates the cells that share it, in this process or on Ray."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from metarestore.ablation.plan import CellPlan, Unit, cell_folder
from metarestore.config.adaptation import AdaptationOptimizerSpec
from metarestore.engines.local import LocalEngine, LocalSession
from metarestore.errors import UserError
from metarestore.evaluation.ablation import CellResult, Metrics
from metarestore.evaluation.few_shot import Adapted, bicubic_result, unique_photographs
from metarestore.evaluation.results import Curve, write_json
from metarestore.evaluation.zero_shot import adaptation_job
from metarestore.graphs.relations import Relations
from metarestore.graphs.weights import effective_tasks
from metarestore.models.checkpoint import save_model
from metarestore.training.log import Observer
from metarestore.training.run import RunFolder, Trained, train

RESULT = "result.json"


@dataclass(frozen=True)
class Failed:
    """A cell that could not be run, and the error."""

    name: str
    error: str


Outcome = CellResult | Failed


class Watcher(Protocol):
    """Receives events while units run."""

    def started(self, unit: Unit) -> None:
        """Called when a unit starts."""
        ...

    def ended(self, unit: Unit, outcomes: Sequence[Outcome]) -> None:
        """Called with the outcomes of a unit's cells when it ends."""
        ...


def run_unit(unit: Unit) -> list[Outcome]:
    """Trains (or resumes from the last checkpoint), then adapts and evaluates every cell and writes its results.

    A user error, or a training that diverges, fails the cells of this unit only.

    Raises:
        Interrupted: The user asked to stop; the training is saved.
    """
    session = LocalEngine().session(unit.study)
    try:
        trained = train(session.workspace, RunFolder(unit.folder, unit.study, resume=True), session, Observer())
    except UserError as error:
        return [Failed(plan.cell.name, str(error)) for plan in unit.cells]
    outcomes = [_measured(plan, trained, unit) for plan in unit.cells]
    if not unit.keep and all(isinstance(outcome, CellResult) for outcome in outcomes):
        shutil.rmtree(unit.folder)
    return outcomes


def read_result(folder: Path) -> CellResult | None:
    """Reads the result of a cell; returns None if it has not finished.

    Raises:
        UserError: The file cannot be read.
    """
    path = folder / RESULT
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
    adaptation = plan.study.experiment.adaptation
    methods = (AdaptationOptimizerSpec(steps=0), adaptation, *adaptation.alternatives)
    before, main, *others = [_adapted(session, method, trained) for method in methods]
    if len(main.curve.undefined) == main.curve.psnr_y.shape[1]:
        raise UserError("the adaptation diverged, so all restored pixels are NaN; lower adaptation.lr")
    folder = cell_folder(unit.out, plan.cell)
    result = _result(plan, trained, unit.key, session, [before.curve, main.curve, *(one.curve for one in others)])
    if unit.keep:
        save_model(folder / "adapted.safetensors", plan.study.experiment.model, plan.study.scale, main.flat)
    write_json(folder / RESULT, result.to_json())
    return result


def _adapted(session: LocalSession, method: AdaptationOptimizerSpec, trained: Trained) -> Adapted:
    job = adaptation_job(method, session.workspace.experiment.adaptation)
    return job.run(session.workspace, trained.flat)


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
        bicubic=_metrics(bicubic_result(workspace).main),
        before=_metrics(before),
        after=_metrics(main),
        alternatives={curve.label: curve.psnr_y[-1].tolist() for curve in others},
        relations={} if relations is None else _named(relations, relations.values.tolist()),
        standard_errors={} if relations is None else _named(relations, relations.standard_errors.tolist()),
        reliability=None if relations is None else _defined(relations.reliability),
        weights=trained.weights,
        effective_tasks=effective_tasks(list(trained.weights.values())) if trained.weights else None,
        training_seconds=state.seconds,
        relating_seconds=state.relating,
    )


def _metrics(curve: Curve) -> Metrics:
    if curve.colour is None:
        raise TypeError("a measured curve has colour metrics")
    return Metrics(curve.psnr_y[-1].tolist(), curve.ssim_y.tolist(), **curve.colour.to_json())


def _named(relations: Relations, values: list[float]) -> dict[str, Any]:
    return {name: _defined(value) for name, value in zip(relations.auxiliary, values, strict=True)}


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None
