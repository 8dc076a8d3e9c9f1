"""A whole study: train every arm, adapt it to the shots, measure it, track it, report it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from metarestore.config.affects import MEASURED, unaffecting
from metarestore.config.estimators import CONTROLS
from metarestore.config.experiment import Experiment
from metarestore.engines.build import build_engine
from metarestore.engines.engine import Engine
from metarestore.errors import UserError
from metarestore.evaluation.examples import make_examples
from metarestore.evaluation.few_shot import AdaptationJob, Adapted, bicubic_result, unique_photographs
from metarestore.evaluation.results import ArmResult, History, StudyResult, write_json
from metarestore.files import write_atomically
from metarestore.graphs.relations import Relations
from metarestore.graphs.weights import effective_tasks
from metarestore.learners.workspace import Workspace
from metarestore.models.checkpoint import save_model
from metarestore.project import arm_experiments, resolve
from metarestore.reports.figures import study_figures
from metarestore.reports.findings import findings
from metarestore.reports.html import write_report
from metarestore.reports.markdown import markdown_code, markdown_text
from metarestore.reports.pictures import save_png
from metarestore.reports.progress import TrainingDisplay
from metarestore.reports.table import markdown_table, statements
from metarestore.tasks.fitted_on import fitted_on_test_pairs
from metarestore.tracking import Run, Store, ended
from metarestore.training.interrupt import Interrupted
from metarestore.training.run import RunFolder, Trained, column, make_plan, train

_LOGGED = ("loss", "psnr", "effective_tasks", "kl", "contrast")
"""Entries of a step's row that every tracker is told, if the learner has them."""


@dataclass(frozen=True)
class Observers:
    """Tells the display and the tracker of every step; metrics are sent when a checkpoint is written."""

    display: TrainingDisplay
    run: Run
    sources: tuple[str, ...]

    def step(self, row: dict[str, Any]) -> None:
        """Passes on one step."""
        self.display.step(row)
        metrics: dict[str, float] = {key: row[key] for key in _LOGGED if key in row}
        for name, weight, share, norm in zip(self.sources, row["weights"], row["shares"], row["norms"], strict=True):
            metrics |= {f"weight/{name}": weight, f"share/{name}": share}
            if norm is not None:
                metrics[f"norm/{name}"] = norm
        self.run.metrics(metrics, row["step"])

    def validated(self, step: int, psnr: float) -> None:
        """Passes on a validation figure."""
        self.display.validated(step, psnr)
        self.run.metrics({"validation_psnr": psnr}, step)

    def related(self, step: int, relations: Relations) -> None:
        """Passes on new relations."""
        self.display.related(step, relations)
        values = zip(relations.auxiliary, relations.values, strict=True)
        self.run.metrics({f"relation/{name}": float(value) for name, value in values}, step)

    def saved(self, step: int) -> None:
        """Sends the metrics up to a checkpoint."""
        self.run.flush()


@dataclass(frozen=True)
class Arm:
    """One arm, ready to run."""

    name: str
    workspace: Workspace
    folder: RunFolder
    run: Run


@dataclass(frozen=True)
class Outcome:
    """One arm, measured, with its adapted parameters (P,)."""

    arm: Arm
    result: ArmResult
    adapted: Tensor


def run_study(
    experiment: Experiment,
    root: Path,
    out: Path,
    display: TrainingDisplay,
    *,
    name: str,
    command: str,
    arms: bool,
    resume: bool = False,
) -> StudyResult:
    """Trains and measures an experiment, or all of its arms, into a folder.

    Args:
        experiment: The resolved experiment.
        root: The project's folder: names start there, and `mlflow.db` lies there.
        out: The run's folder.
        display: Shows progress.
        name: Name of the MLflow experiment.
        command: What repeats the study, for the report.
        arms: Whether to run the experiment's arms, or the experiment itself as its only arm.
        resume: Whether to continue what is in `out`.

    Raises:
        UserError: The configuration does not hold together, or the folder holds another run.
        Interrupted: The user asked to stop; everything up to then is saved.
    """
    started = time.perf_counter()
    experiments = arm_experiments(experiment) if arms else {experiment.learner.kind: experiment}
    studies = {arm: resolve(single, root) for arm, single in experiments.items()}
    if resume and not (out / "run.json").is_file():
        raise UserError(f"--resume: there is no run in {out}; leave --resume out to start one")
    workspaces = {arm: Workspace(study) for arm, study in studies.items()}
    for workspace in workspaces.values():
        workspace.open_all()
    for line in fitted_on_test_pairs((study.auxiliary, study.target) for study in studies.values()):
        display.warning(line)
    folder = RunFolder(out, resolve(experiment, root), resume=resume)
    baseline = next(iter(workspaces.values()))
    notes = tuple(dict.fromkeys(note for workspace in workspaces.values() for note in workspace.notes()))
    for note in notes:
        display.warning(note)
    results = [bicubic_result(baseline)]
    store = Store(root, name, display.warning, required=not resume)
    parent = _mlflow_run(store, folder, name)
    with ended(parent, display.warning, Interrupted), build_engine(experiment.engine, display.warning) as engine:
        parent.artifact(out / "config.yaml")
        display.stage(f"{name}: {len(studies)} {'arms' if arms else 'model'}, {engine.describe()}")
        outcomes = []
        for arm, workspace in workspaces.items():
            place = RunFolder(out / "arms" / arm, workspace.study, resume=resume) if arms else folder
            run = _mlflow_run(store, place, arm, parent) if arms else parent
            with ended(run, display.warning, Interrupted) if arms else nullcontext():
                outcomes.append(run_arm(Arm(arm, workspace, place, run), engine, display))
        results += [outcome.result for outcome in outcomes]
        display.stage("drawing pictures")
        examples = make_examples(baseline, _shown(outcomes))
        result = StudyResult(name, tuple(results), examples, time.perf_counter() - started, notes=notes)
        write_json(out / "results.json", summary(result))
        publish(result, out, parent, command)
    return result


def run_arm(arm: Arm, engine: Engine, display: TrainingDisplay) -> Outcome:
    """Trains one arm, adapts it to the shots in every configured way, measures it and writes what it found."""
    workspace, experiment = arm.workspace, arm.workspace.experiment
    described = configuration(experiment)
    arm.run.params(described)
    arm.run.tag("engine", engine.describe())
    session = engine.session(workspace.study)
    display.start(arm.name, experiment.training)
    names = make_plan(workspace, session).sampler.sources
    trained = train(workspace, arm.folder, session, Observers(display, arm.run, names))
    ways = (experiment.adaptation, *experiment.adaptation.alternatives)
    adapted: list[Adapted] = session.map([AdaptationJob(way) for way in ways], trained.flat)
    display.finish(arm.name, trained.state.seconds, float(adapted[0].curve.psnr_y[-1].mean()))
    result = ArmResult(
        name=arm.name,
        photographs=unique_photographs(workspace),
        main=adapted[0].curve,
        alternatives=tuple(one.curve for one in adapted[1:]),
        history=history(trained),
        relations=trained.relations,
        weights=trained.weights,
        graph=trained.graph,
        configuration=described,
    )
    save_model(arm.folder.path / "adapted.safetensors", experiment.model, workspace.study.scale, adapted[0].flat)
    _track_arm(arm, result)
    return Outcome(arm, result, adapted[0].flat)


def configuration(experiment: Experiment) -> dict[str, Any]:
    """Returns an arm's experiment as nested plain data: what is tracked, and what arms are compared by."""
    # MLflow refuses to change a parameter, and a resumed run may compute elsewhere: the engine is a tag.
    return experiment.model_dump(mode="json", by_alias=True, exclude=unaffecting(Experiment, MEASURED))


def history(trained: Trained) -> History:
    """Turns the log of a training into arrays."""
    log = trained.state.log
    shape = (len(log), len(trained.sources))
    return History(
        steps=column(log, "step").astype(np.int64),
        loss=column(log, "loss"),
        psnr=column(log, "psnr"),
        validation=tuple(trained.state.validation),
        sources=trained.sources,
        weights=column(log, "weights").reshape(shape),
        effective=column(log, "effective_tasks"),
        gradient_norms=column(log, "norms").reshape(shape),
        shares=column(log, "shares").reshape(shape),
        seconds=trained.state.seconds,
        relating=trained.state.relating,
        related=tuple(
            # The log counts a step when it is done; relations are estimated before it.
            (row["step"] - 1, *(np.asarray(row["related"][key], np.float64) for key in ("values", "standard_errors")))
            for row in log
            if "related" in row
        ),
    )


def summary(result: StudyResult) -> dict[str, Any]:
    """Returns a study's figures as JSON-able data, with the gradient weights of its first arm that has an estimate."""
    estimated = [arm for arm in result.arms if arm.relations is not None and arm.relations.estimator not in CONTROLS]
    weights = estimated[0].weights if estimated else {}
    effective = effective_tasks(list(weights.values())) if weights else None
    relations = estimated[0].relations if estimated else None
    return result.to_json() | {
        "weights": weights,
        "effective_tasks": effective,
        "relations": relations.to_json() if relations else None,
        "findings": findings(result),
    }


def publish(result: StudyResult, out: Path, parent: Run, command: str) -> None:
    """Writes report and figures into the run's folder and stores them with the parent run."""
    write_report(result, (out / "config.yaml").read_text(encoding="utf-8"), out / "report.html", command)
    found = map(markdown_text, findings(result))
    lines = "".join(f"- {line}\n" for line in (*statements(result), *found))
    write_atomically(out / "results.md", f"{markdown_code(command)}\n\n{markdown_table(result)}\n{lines}".encode())
    for arm in result.arms[1:]:
        parent.metrics({f"psnr_y/{arm.name}": float(arm.psnr_y.mean())}, 0)
    for name, figure in study_figures(result).items():
        save_png(figure, out / "figures" / f"{name}.png")
    for path in ("results.json", "results.md", "report.html"):
        parent.artifact(out / path)
    parent.artifact(out / "figures")


def _track_arm(arm: Arm, result: ArmResult) -> None:
    for step, psnr in zip(result.main.steps, result.main.psnr_y.mean(axis=1), strict=True):
        arm.run.metrics({"adaptation_psnr_y": float(psnr)}, step)
    if result.history is not None:
        arm.run.metrics({"seconds": result.history.seconds, "relating_seconds": result.history.relating}, 0)
    colour = {} if result.main.colour is None else vars(result.main.colour)
    arm.run.metrics(
        {
            "psnr_y": float(result.psnr_y.mean()),
            "ssim_y": float(result.main.ssim_y.mean()),
            **{key: float(values.mean()) for key, values in colour.items()},
        },
        0,
    )
    arm.run.flush()
    for name in ("config.yaml", "model.safetensors", "adapted.safetensors", "graph.json", "graph.graphml"):
        if (arm.folder.path / name).is_file():
            arm.run.artifact(arm.folder.path / name)
    arm.run.artifact(arm.folder.checkpoints)


def _shown(outcomes: Sequence[Outcome]) -> dict[str, tuple[Workspace, Tensor]]:
    """Chooses what the pictures compare: learning from the target alone, and the best other arm."""
    best = max(outcomes, key=lambda outcome: float(outcome.result.psnr_y.mean()))
    from_target = [o for o in outcomes if o.arm.workspace.experiment.training.source == "target"]
    return {o.arm.name: (o.arm.workspace, o.adapted) for o in [*from_target, best]}


def _mlflow_run(store: Store, folder: RunFolder, name: str, parent: Run | None = None) -> Run:
    """Starts an MLflow run, or takes up the one that the folder remembers."""
    run = store.run(name, folder=folder.path, parent=parent, run_id=folder.notes.get("mlflow_run"))
    folder.notes["mlflow_run"] = run.id
    folder.save_notes()
    return run
