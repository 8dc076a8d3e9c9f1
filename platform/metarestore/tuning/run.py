"""Runs hyperparameter tuning: check, start or resume, run the trials, write the results."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

from metarestore.config.affects import Affects, keys
from metarestore.config.dump import dump_yaml
from metarestore.config.engine import RayEngineSpec
from metarestore.config.experiment import Experiment
from metarestore.config.search_check import candidates, require_search
from metarestore.config.search_space import Space, draws, inside, lies_in
from metarestore.config.wording import shown
from metarestore.console import say
from metarestore.engines.cluster import connected
from metarestore.errors import UserError
from metarestore.evaluation.tuning import TrialResult, TuningResult
from metarestore.project import resolve
from metarestore.reports.tuning.report import publish_tuning
from metarestore.revision import revision
from metarestore.tasks.fitted_on import pair_warnings
from metarestore.tracking import Run, Store
from metarestore.tracking_records import NOTE
from metarestore.training.identity import merged_contents, portable
from metarestore.training.interrupt import Interrupted
from metarestore.tuning.callback import TuningCallback, trial_count
from metarestore.tuning.record import Record, open_record
from metarestore.tuning.runs import repair_runs
from metarestore.tuning.search import build_scheduler, build_searcher, parameter_space
from metarestore.tuning.storage import use_storage
from metarestore.tuning.trial import TrialPlan, run_trial
from metarestore.workspace.workspace import Workspace

_RAY = "ray"
"""Subfolder of Ray Tune's snapshots and of the trials' checkpoints."""
_OPENED = (Affects.OPENING, Affects.BUILDING)
"""Effects of keys that determine what a trial opens, and whether its network and learner can be built."""


def run_tuning(
    experiment: Experiment, root: Path, out: Path, *, name: str, command: str, resume: bool = False
) -> TuningResult:
    """Runs the hyperparameter search of an experiment; writes record, table, report and `best.yaml` into a folder.

    Args:
        experiment: The checked experiment.
        root: The project's folder.
        out: The tuning run's folder.
        name: Name of the MLflow experiment.
        command: Command that reproduces the tuning run, for the report.
        resume: Whether to continue the tuning run in `out`.

    Raises:
        UserError: The experiment has no search space, a value of it is invalid, or the cluster cannot run a trial.
        Interrupted: The user asked to stop; all finished work is saved.
    """
    started = time.perf_counter()
    out = out.absolute()
    root = root.absolute()
    record = open_record(out, experiment, resume=resume, root=root)
    opened = require_searchable(experiment, root)
    record.require_contents(merged_contents([workspace.study for workspace in opened]))
    notes = _notes(opened)
    for note in notes:
        say(note, style="yellow")
    commit = revision(root, Path.cwd())
    record.git = record.git or (commit.to_json() if commit else None)
    _create(out)
    _set_up_tune()
    with connected(RayEngineSpec(kind="ray", address=getattr(experiment.engine, "address", None))):
        capacity = _capacity(experiment)
        record.save()
        configuration = portable(experiment.model_dump(mode="json", by_alias=True), root)
        dump_yaml(configuration, out / "config.yaml", header="The resolved configuration of this tuning run.")
        store = Store(root, name, command=command)
        parent = _parent(store, record, name, experiment)
        with _closed(store, parent, out, experiment.tuning.metric):
            TuningCallback.here = (out, root, command)
            use_storage(str(out))
            tuner = _tuner(experiment, root, out, name, capacity, resume=resume)
            tuner.fit()
            record = Record.load(out)
            record.seconds += time.perf_counter() - started
            record.save()
            # Ray Tune handles Ctrl-C itself: it leaves running trials as they are and skips those that had not begun.
            if record.ended < trial_count(experiment):
                raise Interrupted(max((trial.step for trial in record.trials.values()), default=0))
            result = replace(tuning_result(experiment, record, name), notes=notes)
            _publish(result, experiment, out, parent, command)
    return result


def require_searchable(experiment: Experiment, root: Path) -> list[Workspace]:
    """Checks that the search space is valid, before anything is written.

    It checks both ends of every range, every choice, and the values that trials start with, as far as they are known.

    Returns:
        One workspace for each set of distributions and photographs that trials may open.

    Raises:
        UserError: There is no search space, or a value of it does not fit the tasks, the photographs or the network.
    """
    require_search(experiment)
    if experiment.tuning.metric == "validation" and "validation" not in resolve(experiment, root).images:
        raise UserError("tuning.metric: validation needs data.validation; set it to a folder, or use held_out_shots")
    space = Space(experiment.search)
    problems: list[str] = []
    seen: set[str] = set()
    workspaces: list[Workspace] = []
    for draw in (*(draw for _, draw in candidates(space)), *(draws(experiment) or ())):
        try:
            workspaces += _open(space.experiment(experiment, draw), root, seen)
        except UserError as error:
            values = space.values(draw).items()
            opened = ", ".join(f"{key} = {shown(value)}" for key, value in values if _is_opened(key))
            context = f"search: with {opened}: " if opened else ""
            problems += [f"{context}{problem}" for problem in error.problems]
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    return workspaces


def _open(experiment: Experiment, root: Path, seen: set[str]) -> list[Workspace]:
    """Opens the data and networks of an experiment, as a trial would, unless an equivalent one is in `seen`."""
    data = experiment.model_dump(mode="json")
    named, built = (repr([inside(data, "", key) for key in keys(Experiment, affecting)]) for affecting in _OPENED)
    known = named in seen
    if known and built in seen:
        return []
    seen |= {named, built}
    workspace = Workspace(resolve(experiment, root))
    if known:
        workspace.initial()
        return []
    workspace.open_all()
    return [workspace]


def _notes(opened: Sequence[Workspace]) -> tuple[str, ...]:
    """Returns warnings about the pairs and shots that trials may open."""
    warnings = pair_warnings((workspace.study.auxiliary, workspace.study.target) for workspace in opened)
    return tuple(dict.fromkeys([*warnings, *(note for workspace in opened for note in workspace.notes())]))


def _is_opened(key: str) -> bool:
    return any(lies_in(key, one) or lies_in(one, key) for affecting in _OPENED for one in keys(Experiment, affecting))


def _create(folder: Path) -> None:
    """Creates the tuning run's folder before a cluster is started."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error


def tuning_result(experiment: Experiment, record: Record, name: str) -> TuningResult:
    """Collects the results of a finished tuning run."""
    space = Space(experiment.search)
    kept = [trial for trial in record.trials.values() if trial.state != "lost"]
    return TuningResult(
        name=name,
        metric=experiment.tuning.metric,
        keys=tuple(experiment.search),
        logarithmic=frozenset(key for key, one in space.parameters.items() if one.log_uniform is not None),
        trials=tuple(sorted(kept, key=lambda trial: trial.number)),
        changing=experiment.tuning.scheduler == "pbt",
        seconds=record.seconds,
    )


def best_experiment(experiment: Experiment, best: TrialResult) -> dict[str, Any]:
    """Returns the experiment of the best trial as the content of a file, without arms and search space."""
    space = Space(experiment.search)
    draw = {key: _number(space, key, value) for key, value in best.values.items()}
    return space.data(experiment, draw)


def _number(space: Space, key: str, value: Any) -> float:
    choices = space.parameters[key].choice
    return float(value) if choices is None else choices.index(value)


def _publish(result: TuningResult, experiment: Experiment, out: Path, parent: Run, command: str) -> None:
    best = result.best
    if best is not None:
        values = "final values, since PBT changes them during a trial" if result.changing else "values as drawn"
        lines = (
            f"The best of {len(result.trials)} trials of {result.name}: trial {best.number}, {values}.",
            "Run:     metarestore train best.yaml",
            f"Expect:  {result.metric} {best.metric:.2f} dB at step {best.step}, the metric that selected the trial.",
        )
        dump_yaml(best_experiment(experiment, best), out / "best.yaml", header="\n".join(lines))
        parent.metrics({f"best_{result.metric}": best.metric}, best.step)
        parent.artifact(out / "best.yaml")
    for path in publish_tuning(result, (out / "config.yaml").read_text(encoding="utf-8"), out, command):
        parent.artifact(path)


def _tuner(experiment: Experiment, root: Path, out: Path, name: str, capacity: int, *, resume: bool) -> tune.Tuner:
    """Builds the tuner, or restores it from the snapshot in the folder."""
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, plan=TrialPlan(experiment, root)), _bundles(experiment)
    )
    snapshots = out / _RAY
    if resume and tune.Tuner.can_restore(str(snapshots)):
        return tune.Tuner.restore(str(snapshots), trainable=trainable, resume_unfinished=True)
    # Killed before Ray Tune's first snapshot: nothing to resume from.
    shutil.rmtree(snapshots, ignore_errors=True)
    listed = draws(experiment)
    return tune.Tuner(
        trainable,
        param_space=parameter_space(experiment),
        tune_config=tune.TuneConfig(
            num_samples=experiment.tuning.trials if listed is None else 1,
            scheduler=build_scheduler(experiment),
            search_alg=build_searcher(experiment),
            max_concurrent_trials=capacity,
            trial_dirname_creator=_short_name,
            reuse_actors=True,  # the imports of a new process take seconds
        ),
        run_config=tune.RunConfig(
            name=_RAY,
            storage_path=str(out),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=experiment.tuning.max_failures),
            # PBT may still need the second-to-last checkpoint of another trial.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=4 if experiment.tuning.scheduler == "pbt" else 2),
            callbacks=[TuningCallback(out, root, name, experiment, TuningCallback.here[2])],
        ),
    )


def _short_name(trial: Any) -> str:
    return str(trial.trial_id)


def _bundles(experiment: Experiment) -> tune.PlacementGroupFactory:
    """Returns a trial's resources as one reservation: trials that each hold a part and wait would deadlock."""
    tuning = experiment.tuning
    worker = {"CPU": tuning.cpus_per_worker} | ({"GPU": tuning.gpus_per_worker} if tuning.gpus_per_worker else {})
    if tuning.workers_per_trial == 1 and not tuning.gpus_per_worker:
        return tune.PlacementGroupFactory([worker])
    # The trial's own process waits while its workers compute, so it reserves no core.
    return tune.PlacementGroupFactory([{}] + [worker] * tuning.workers_per_trial)


def _capacity(experiment: Experiment) -> int:
    """Returns how many trials can run at the same time.

    Raises:
        UserError: The cluster is too small for a single trial.
    """
    tuning = experiment.tuning
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    capacity = int(resources.get("CPU", 0) / (tuning.cpus_per_worker * tuning.workers_per_trial))
    if tuning.gpus_per_worker:
        capacity = min(capacity, int(resources.get("GPU", 0) / (tuning.gpus_per_worker * tuning.workers_per_trial)))
    if capacity < 1:
        raise UserError(
            f"tuning: a trial needs {tuning.workers_per_trial} workers of {tuning.cpus_per_worker:g} CPUs and "
            f"{tuning.gpus_per_worker:g} GPUs, but the cluster has {resources.get('CPU', 0):g} CPUs and "
            f"{resources.get('GPU', 0):g} GPUs; lower workers_per_trial or the resources per worker"
        )
    return min(capacity, tuning.concurrent or capacity)


def _set_up_tune() -> None:
    """Configures Ray Tune's snapshots and silences its output."""
    # At most one snapshot per second, which bounds what a kill can lose.
    for variable, value in (
        ("TUNE_GLOBAL_CHECKPOINT_S", "1"),
        ("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0"),
        ("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"),
        ("RAY_AIR_NEW_OUTPUT", "0"),  # the new output prints despite verbose=0
    ):
        os.environ.setdefault(variable, value)
    for noisy in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _parent(store: Store, record: Record, name: str, experiment: Experiment) -> Run:
    """Starts the parent MLflow run, or continues it and ends the child runs that a kill left open."""
    parent = store.run(name, folder=record.folder)
    if parent.id is None:
        raise UserError(f"MLflow: {store.uri} does not accept a new run, which tuning requires; try again later")
    if record.parent is None:
        space = experiment.model_dump(mode="json", by_alias=True, include={"search"}, exclude_unset=True)
        parent.params(space | {"tuning": experiment.tuning.model_dump(mode="json")})
        searched = ", ".join(experiment.search)
        parent.tag(NOTE, f"Searches {searched} by {experiment.tuning.metric}.\n\nFolder: `{record.folder}`")
        parent.flush()
    record.parent = parent.id
    record.save()
    repair_runs(store, record, experiment.tuning.metric)
    return parent


@contextmanager
def _closed(store: Store, parent: Run, out: Path, metric: str) -> Iterator[None]:
    """Ends the parent run, which has failed if no trial was measured, and every child run that is still open."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED" if any(trial.ranks for trial in Record.load(out).trials.values()) else "FAILED"
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        try:
            repair_runs(store, Record.load(out), metric)
        finally:
            parent.end(status)
