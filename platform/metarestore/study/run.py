"""Runs a study: trains every arm, adapts it to the shots, evaluates it, tracks it and writes the report."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarestore.config.affects import MEASURED, unaffecting
from metarestore.config.estimators import CONTROLS
from metarestore.config.experiment import Experiment
from metarestore.config.keypath import KeyPath
from metarestore.engines.build import build_engine
from metarestore.engines.engine import Engine
from metarestore.errors import UserError
from metarestore.evaluation.examples import make_examples
from metarestore.evaluation.few_shot import Adapted, bicubic_result, require_measurable, unique_photographs
from metarestore.evaluation.results import ArmResult, History, StudyResult, write_json
from metarestore.evaluation.zero_shot import adaptation_job
from metarestore.files import write_atomically
from metarestore.graphs.relations import Relations
from metarestore.graphs.weights import effective_tasks
from metarestore.models.checkpoint import save_model
from metarestore.project import arm_experiments, resolve
from metarestore.reports.markdown import markdown_code, markdown_text
from metarestore.reports.pictures import save_png
from metarestore.reports.study.figures import study_figures
from metarestore.reports.study.findings import findings
from metarestore.reports.study.html import write_report
from metarestore.reports.study.progress import TrainingDisplay
from metarestore.reports.study.table import markdown_table, statements
from metarestore.revision import revision
from metarestore.tasks.fitted_on import pair_warnings
from metarestore.tracking import Run, Store, ended
from metarestore.tracking_records import NORMS, NOTE, flattened
from metarestore.training.interrupt import Interrupted
from metarestore.training.log import LogRow, Observer
from metarestore.training.run import RunFolder, Trained, make_plan, require_continuable, train
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

_TRACKED_TERMS = ("kl", "contrast")
"""Terms of a loss that are tracked, if the learner reports them."""


@dataclass(frozen=True)
class Observers(Observer):
    """Reports every step to the display and the tracker; metrics are sent when a checkpoint is written."""

    display: TrainingDisplay
    run: Run
    sources: tuple[str, ...]

    def step(self, row: LogRow) -> None:
        """Reports one step."""
        self.display.step(row)
        terms = {name: row.terms[name] for name in _TRACKED_TERMS if name in row.terms}
        metrics = {"loss": row.loss, "psnr": row.psnr, **terms, "weight_effective_tasks": row.effective_tasks}
        for name, weight, share, norm in zip(self.sources, row.weights, row.shares, row.norms, strict=True):
            metrics |= {f"weight/{name}": weight, f"share/{name}": share}
            if norm is not None:
                metrics[f"{NORMS}/{name}"] = norm
        self.run.metrics(metrics, row.step)

    def validated(self, step: int, psnr: float) -> None:
        """Reports a validation result."""
        self.display.validated(step, psnr)
        self.run.metrics({"validation_psnr": psnr}, step)

    def related(self, step: int, relations: Relations) -> None:
        """Reports new relations."""
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
    """One arm, its results, and the adapted network."""

    arm: Arm
    result: ArmResult
    adapted: Adapted


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
    restated: Sequence[KeyPath] = (),
) -> StudyResult:
    """Trains and evaluates an experiment, or all of its arms, and writes the results to a folder.

    Args:
        experiment: The resolved experiment.
        root: The project's folder, in which names are resolved and which contains `mlflow.db`.
        out: The run's folder.
        display: Shows progress.
        name: Name of the MLflow experiment.
        command: The command that repeats the study, for the report.
        arms: Whether to run the experiment's arms, or the experiment itself as its only arm.
        resume: Whether to continue the run in `out`.
        restated: Keys that were given explicitly in addition to the file.

    Raises:
        UserError: The configuration is inconsistent, or the folder contains another run.
        Interrupted: The user stopped the study; everything up to that point is saved.
    """
    started = time.perf_counter()
    experiments = arm_experiments(experiment) if arms else {experiment.learner.kind: experiment}
    studies = {arm: resolve(single, root) for arm, single in experiments.items()}
    if resume and not (out / "run.json").is_file():
        raise UserError(f"--resume: there is no run in {out}; leave --resume out to start one")
    workspaces = {arm: _opened(study) for arm, study in studies.items()}
    whole = resolve(experiment, root)
    folders = {arm: out / "arms" / arm if arms else out for arm in studies}
    if resume:
        # All arms are checked first, so that an arm that cannot be extended prevents the extension of the others.
        require_continuable(out, whole, trained=not arms, restated=restated)
        for arm, study in studies.items():
            require_continuable(folders[arm], study, restated=restated)
    folder = _noted(RunFolder(out, whole, resume=resume, trained=not arms, restated=restated), root)
    baseline = next(iter(workspaces.values()))
    notes = _notes(workspaces.values())
    for note in notes:
        display.warning(note)
    results = [bicubic_result(baseline)]
    store = Store(root, name, display.warning, required=not resume, command=command)
    parent = _mlflow_run(store, folder, name)
    with ended(parent, display.warning, Interrupted), build_engine(experiment.engine, display.warning) as engine:
        parent.artifact(out / "config.yaml")
        parent.tag(NOTE, _described(experiment, studies, out, command))
        display.stage(f"{name}: {len(studies)} {'arms' if arms else 'model'}, {engine.describe()}")
        if split := split_of_pairs(baseline):
            display.stage(split)
        display.plan({arm: study.experiment.training for arm, study in studies.items()})
        if arms:
            parent.params(_parameters(experiment, folder))
        outcomes = []
        for arm, workspace in workspaces.items():
            arm_folder = folder
            if arms:
                arm_folder = _noted(RunFolder(folders[arm], workspace.study, resume=resume, restated=restated), root)
            run = _mlflow_run(store, arm_folder, arm, parent) if arms else parent
            with ended(run, display.warning, Interrupted) if arms else nullcontext():
                outcomes.append(run_arm(Arm(arm, workspace, arm_folder, run), engine, display))
        results += [outcome.result for outcome in outcomes]
        display.stage("drawing pictures")
        examples = make_examples(baseline, _shown(outcomes))
        result = StudyResult(name, tuple(results), examples, time.perf_counter() - started, notes=notes)
        write_json(out / "results.json", summary(result))
        publish(result, out, parent, command)
    return result


def _opened(study: Study) -> Workspace:
    """Opens everything that a study names, so that errors are found before anything is written."""
    workspace = Workspace(study)
    workspace.open_all()
    require_measurable(workspace)
    return workspace


def _notes(workspaces: Collection[Workspace]) -> tuple[str, ...]:
    """Returns what a reader of the results should know about the pairs that were used."""
    warnings = pair_warnings((workspace.study.auxiliary, workspace.study.target) for workspace in workspaces)
    return (*warnings, *dict.fromkeys(note for workspace in workspaces for note in workspace.notes()))


def run_arm(arm: Arm, engine: Engine, display: TrainingDisplay) -> Outcome:
    """Trains one arm, adapts it by every configured method, evaluates it, and saves and tracks the results."""
    workspace, experiment = arm.workspace, arm.workspace.experiment
    described = configuration(experiment)
    arm.run.params(_parameters(experiment, arm.folder))
    for key, first in arm.folder.changed.items():
        arm.run.tag(f"changed.{key}", f"started with {first}, continued with {arm.folder.path / 'config.yaml'}")
    arm.run.tag("engine", engine.describe())
    session = engine.session(workspace.study)
    display.start(arm.name, experiment.training)
    names = make_plan(workspace, session).sampler.sources
    trained = train(workspace, arm.folder, session, Observers(display, arm.run, names))
    methods = (experiment.adaptation, *experiment.adaptation.alternatives)
    jobs = [adaptation_job(method, experiment.adaptation) for method in methods]
    adapted: list[Adapted] = session.map(jobs, trained.flat)
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
    _track_arm(arm, result, float(bicubic_result(workspace).psnr_y.mean()))
    return Outcome(arm, result, adapted[0])


def configuration(experiment: Experiment) -> dict[str, Any]:
    """Returns the configuration of an arm as nested plain data, which is tracked and by which arms are compared."""
    # MLflow does not allow changes of a parameter, and a resumed run may use another engine: the engine is a tag.
    return experiment.model_dump(mode="json", by_alias=True, exclude=unaffecting(Experiment, MEASURED))


def history(trained: Trained) -> History:
    """Converts the log of a training to arrays."""
    log = trained.state.log
    shape = (len(log), len(trained.sources))
    return History(
        steps=np.asarray([row.step for row in log], np.int64),
        loss=_floats([row.loss for row in log]),
        psnr=_floats([row.psnr for row in log]),
        validation=tuple(trained.state.validation),
        sources=trained.sources,
        weights=_floats([row.weights for row in log]).reshape(shape),
        effective=_floats([row.effective_tasks for row in log]),
        gradient_norms=_floats([row.norms for row in log]).reshape(shape),
        shares=_floats([row.shares for row in log]).reshape(shape),
        seconds=trained.state.seconds,
        relating=trained.state.relating,
        related=tuple(
            # The log counts completed steps; relations are estimated before a step.
            (row.step - 1, _floats(row.related.values), _floats(row.related.standard_errors))
            for row in log
            if row.related is not None
        ),
    )


def _floats(values: Sequence[Any]) -> NDArray[np.float64]:
    """Returns values as an array; None becomes NaN."""
    return np.asarray(values, np.float64)


def summary(result: StudyResult) -> dict[str, Any]:
    """Returns the results of a study as JSON data, with the gradient weights of the first arm that estimates them."""
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
    """Writes the report and figures to the run's folder, and tracks them in the parent run."""
    write_report(result, (out / "config.yaml").read_text(encoding="utf-8"), out / "report.html", command)
    lines = "".join(f"- {line}\n" for line in (*statements(result), *map(markdown_text, findings(result))))
    write_atomically(out / "results.md", f"{markdown_code(command)}\n\n{markdown_table(result)}\n{lines}".encode())
    parent.metrics(
        _compared(result), max(int(arm.history.steps.size) for arm in result.arms if arm.history is not None)
    )
    for name, figure in study_figures(result).items():
        save_png(figure, out / "figures" / f"{name}.png")
    for path in ("results.json", "results.md", "report.html"):
        parent.artifact(out / path)
    parent.artifact(out / "figures")


def _compared(result: StudyResult) -> dict[str, float]:
    """Returns the metrics of the parent run in dB: PSNR-Y of each arm and of bicubic upscaling, and the arms' gains."""
    bicubic, *arms = (float(arm.psnr_y.mean()) for arm in result.arms)
    best = max(arms)
    metrics = {"gain": best - bicubic, "psnr_y": best, "psnr_y_bicubic": bicubic}
    for arm, psnr_y in zip(result.arms[1:], arms, strict=True):
        metrics |= {f"gain/{arm.name}": psnr_y - bicubic, f"psnr_y/{arm.name}": psnr_y}
    return metrics


def _track_arm(arm: Arm, result: ArmResult, bicubic: float) -> None:
    """Tracks the results of an arm at its last step; an extended run has results at several steps."""
    steps = arm.workspace.experiment.training.steps
    suffix = f"_from_step_{steps}" if arm.folder.changed else ""
    for step, value in zip(result.main.steps, result.main.psnr_y.mean(axis=1), strict=True):
        arm.run.metrics({f"psnr_y_adapting{suffix}": float(value)}, step)
    psnr_y, ssim_y = float(result.psnr_y.mean()), float(result.main.ssim_y.mean())
    metrics = {"gain": psnr_y - bicubic, "psnr_y": psnr_y, "psnr_y_bicubic": bicubic, "ssim_y": ssim_y}
    if result.history is not None:
        metrics |= {"seconds": result.history.seconds, "seconds_relating": result.history.relating}
    colour = {} if result.main.colour is None else vars(result.main.colour)
    arm.run.metrics(metrics | {key: float(values.mean()) for key, values in colour.items()}, steps)
    arm.run.flush()
    for name in ("config.yaml", "model.safetensors", "adapted.safetensors", "graph.json", "graph.graphml"):
        if (arm.folder.path / name).is_file():
            arm.run.artifact(arm.folder.path / name)
    if arm.folder.checkpoints.is_dir():  # a run of 0 steps has none
        arm.run.artifact(arm.folder.checkpoints)


def _parameters(experiment: Experiment, folder: RunFolder) -> dict[str, str]:
    """Returns the parameters of an experiment for MLflow, which does not allow later changes.

    The engine and the keys that were changed when a run was extended are tags instead.
    """
    parameters = flattened(configuration(experiment))
    return {key: value for key, value in parameters.items() if key not in folder.changed}


def _described(experiment: Experiment, studies: Mapping[str, Study], out: Path, command: str) -> str:
    """Describes a run in Markdown, for MLflow's pages."""
    learned = "the target's shots" if experiment.training.source == "target" else "the auxiliary distributions"
    adaptation = experiment.adaptation
    source = "each photograph alone" if adaptation.method != "shots" else f"{adaptation.shots} shots"
    lines = [
        f"Restores **{experiment.graph.target}**, x{next(iter(studies.values())).scale}, by {experiment.model.kind} "
        f"learned from {learned} and adapted to {source}.",
        f"Arms: {', '.join(studies)}." if experiment.arms and len(studies) > 1 else "",
        f"Folder: `{out}`",
        f"Command: `{command}`" if command else "",
    ]
    return "\n\n".join(line for line in lines if line)


def split_of_pairs(workspace: Workspace) -> str | None:
    """Describes how the pairs of a target are split; None for a synthetic target."""
    target, shots = workspace.target, workspace.experiment.adaptation.shots
    if target.split is None:
        return None
    pool, test = target.split
    remaining = f"{test} {'is' if test == 1 else 'are'} left for testing"
    return (
        f"{target.name}: {pool + test} pairs: the first {pool} by name may be used for learning (support_pool; "
        f"{shots} of them are the shots), {remaining}"
    )


def _noted(folder: RunFolder, root: Path) -> RunFolder:
    """Records the commit of the first session of a run, and a different commit of the session that resumes it."""
    commit = revision(root, Path.cwd())
    if commit is not None and folder.notes.setdefault("git", commit.to_json()) != commit.to_json():
        folder.notes["git_resumed"] = commit.to_json()
    folder.save_notes()
    return folder


def _shown(outcomes: Sequence[Outcome]) -> dict[str, tuple[Workspace, Tensor] | Tensor]:
    """Returns the restorations for the pictures: of the arms trained on the target alone, and of the best arm."""
    best = max(outcomes, key=lambda outcome: float(outcome.result.psnr_y.mean()))
    from_target = [o for o in outcomes if o.arm.workspace.experiment.training.source == "target"]
    return {
        o.arm.name: (o.arm.workspace, o.adapted.flat) if o.adapted.restored is None else o.adapted.restored
        for o in [*from_target, best]
    }


def _mlflow_run(store: Store, folder: RunFolder, name: str, parent: Run | None = None) -> Run:
    """Starts an MLflow run, or resumes the one that is recorded in the folder."""
    run = store.run(name, folder=folder.path, parent=parent, run_id=folder.notes.get("mlflow_run"))
    folder.notes["mlflow_run"] = run.id
    folder.save_notes()
    return run
