"""A whole sweep: check, start or take up, run the trials, write what they found."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune

from metarestore.config.affects import Affects, keys
from metarestore.config.dump import dump_yaml
from metarestore.config.experiment import Experiment, RayEngineSpec
from metarestore.config.search_check import candidates, require_search
from metarestore.config.search_space import Space, draws, inside, lies_in
from metarestore.config.wording import shown
from metarestore.console import say
from metarestore.engines.cluster import connect
from metarestore.errors import UserError
from metarestore.evaluation.sweep import TrialResult, TuningResult
from metarestore.learners.workspace import Workspace
from metarestore.project import resolve
from metarestore.reports.tuning_report import publish_sweep
from metarestore.revision import revision
from metarestore.tracking import Run, Store
from metarestore.tracking_records import NOTE
from metarestore.training.identity import portable
from metarestore.training.interrupt import Interrupted
from metarestore.tuning.callback import SweepCallback
from metarestore.tuning.record import Record, open_record
from metarestore.tuning.runs import mend_runs
from metarestore.tuning.search import build_scheduler, build_searcher, parameter_space
from metarestore.tuning.trial import TrialPlan, run_trial

_RAY = "ray"
"""Subfolder of Ray Tune's own snapshots and of the trials' checkpoints."""
_NAMED = keys(Experiment, Affects.OPENING)
"""What decides which distributions and photographs a trial opens."""
_BUILT = keys(Experiment, Affects.BUILDING)
"""What decides whether a trial's network and learner can be built."""


def run_sweep(
    experiment: Experiment, root: Path, out: Path, *, name: str, command: str, resume: bool = False
) -> TuningResult:
    """Runs the search of an experiment into a folder: record, table, report, `best.yaml`.

    Args:
        experiment: The checked experiment.
        root: The project's folder.
        out: The sweep's folder.
        name: Name of the MLflow experiment.
        command: What repeats the sweep, for the report.
        resume: Whether to continue the sweep in `out`.

    Raises:
        UserError: There is nothing to search, a value of the search does not fit the rest, or no trial has room.
        Interrupted: The user asked to stop; everything up to then is saved.
    """
    started = time.perf_counter()
    out = out.absolute()
    root = root.absolute()
    record = open_record(out, experiment, resume=resume, root=root)
    require_searchable(experiment, root)
    for note in Workspace(resolve(experiment, root)).notes():
        say(note, style="yellow")
    commit = revision(root, Path.cwd())
    record.git = record.git or (commit.to_json() if commit else None)
    _make(out)
    with _cluster(experiment):
        room = _room(experiment)
        record.save()
        written = portable(experiment.model_dump(mode="json", by_alias=True), root)
        dump_yaml(written, out / "config.yaml", header="The resolved configuration of this sweep.")
        store = Store(root, name, command=command)
        parent = _parent(store, record, name, experiment)
        with _closed(store, parent, out, experiment.tuning.metric):
            SweepCallback.here = (out, root, command)
            tuner = _tuner(experiment, root, out, name, room, resume=resume)
            tuner.fit()
            record = Record.load(out)
            record.seconds += time.perf_counter() - started
            record.save()
            if any(trial.state == "running" for trial in record.trials.values()):
                raise Interrupted(max(trial.step for trial in record.trials.values()))
            result = sweep_result(experiment, record, name)
            _publish(result, experiment, out, parent, command)
    return result


def require_searchable(experiment: Experiment, root: Path) -> None:
    """Finds what cannot be searched before anything is written.

    Tried are both ends of every range, every choice, and all that the trials start with, as far as it is known.

    Raises:
        UserError: There is no search, or a value of it does not fit the tasks, the photographs or the network.
    """
    require_search(experiment)
    if experiment.tuning.metric == "validation" and "validation" not in resolve(experiment, root).images:
        raise UserError("tuning.metric: validation needs data.validation; name a folder, or write held_out_shots")
    space = Space(experiment.search)
    problems: list[str] = []
    seen: set[str] = set()
    for draw in (*(draw for _, draw in candidates(space)), *(draws(experiment) or ())):
        try:
            _open(space.experiment(experiment, draw), root, seen)
        except UserError as error:
            values = space.values(draw).items()
            opened = ", ".join(f"{key} = {shown(value)}" for key, value in values if _is_opened(key))
            place = f"search: where {opened}: " if opened else ""
            problems += [f"{place}{problem}" for problem in error.problems]
    if problems:
        raise UserError(list(dict.fromkeys(problems)))


def _open(experiment: Experiment, root: Path, seen: set[str]) -> None:
    """Looks up and opens what an experiment names, as a trial would, unless an equal one was `seen`."""
    data = experiment.model_dump(mode="json")
    named, built = (repr([inside(data, "", key) for key in keys]) for keys in (_NAMED, _BUILT))
    known = named in seen
    if known and built in seen:
        return
    seen |= {named, built}
    workspace = Workspace(resolve(experiment, root))
    if known:
        workspace.initial()
    else:
        workspace.open_all()


def _is_opened(key: str) -> bool:
    return any(lies_in(key, one) or lies_in(one, key) for one in (*_NAMED, *_BUILT))


def _make(folder: Path) -> None:
    """Makes the sweep's folder before a cluster is started for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error


def sweep_result(experiment: Experiment, record: Record, name: str) -> TuningResult:
    """Gathers what a finished sweep found."""
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
    """Returns the experiment of the best trial as a file's content, with all arms and the search left out."""
    space = Space(experiment.search)
    draw = {key: _number(space, key, value) for key, value in best.values.items()}
    return space.data(experiment, draw)


def _number(space: Space, key: str, value: Any) -> float:
    choices = space.parameters[key].choice
    return float(value) if choices is None else choices.index(value)


def _publish(result: TuningResult, experiment: Experiment, out: Path, parent: Run, command: str) -> None:
    best = result.best
    if best is not None:
        how = "the values at the end of a trial that PBT changed on its way" if result.changing else "as searched"
        lines = (
            f"The best of {len(result.trials)} trials of {result.name}: trial {best.number}, {how}.",
            "Run:     metarestore train best.yaml",
            f"Expect:  {result.metric} {best.metric:.2f} dB at step {best.step}; the same figure chose the trial.",
        )
        dump_yaml(best_experiment(experiment, best), out / "best.yaml", header="\n".join(lines))
        parent.metrics({f"best_{result.metric}": best.metric}, best.step)
        parent.artifact(out / "best.yaml")
    for path in publish_sweep(result, (out / "config.yaml").read_text(encoding="utf-8"), out, command):
        parent.artifact(path)


def _tuner(experiment: Experiment, root: Path, out: Path, name: str, room: int, *, resume: bool) -> tune.Tuner:
    """Builds the tuner, or brings back the one whose snapshot is in the folder."""
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, plan=TrialPlan(experiment, root)), _bundles(experiment)
    )
    place = out / _RAY
    if resume and tune.Tuner.can_restore(str(place)):
        return tune.Tuner.restore(str(place), trainable=trainable, resume_unfinished=True)
    # Killed before Ray Tune's first snapshot: nothing to go on from.
    shutil.rmtree(place, ignore_errors=True)
    listed = draws(experiment)
    return tune.Tuner(
        trainable,
        param_space=parameter_space(experiment),
        tune_config=tune.TuneConfig(
            num_samples=experiment.tuning.trials if listed is None else 1,
            scheduler=build_scheduler(experiment),
            search_alg=build_searcher(experiment),
            max_concurrent_trials=room,
            trial_dirname_creator=_short_name,
            reuse_actors=True,  # a new process imports for seconds
        ),
        run_config=tune.RunConfig(
            name=_RAY,
            storage_path=str(out),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=experiment.tuning.max_failures),
            # PBT may still want the checkpoint before the last of another trial.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=4 if experiment.tuning.scheduler == "pbt" else 2),
            callbacks=[SweepCallback(out, root, name, experiment, SweepCallback.here[2])],
        ),
    )


def _short_name(trial: Any) -> str:
    return str(trial.trial_id)


def _bundles(experiment: Experiment) -> tune.PlacementGroupFactory:
    """Returns what a trial needs, reserved as one: trials that hold a part each and wait for the rest would block."""
    tuning = experiment.tuning
    worker = {"CPU": tuning.cpus_per_worker} | ({"GPU": tuning.gpus_per_worker} if tuning.gpus_per_worker else {})
    if tuning.workers_per_trial == 1 and not tuning.gpus_per_worker:
        return tune.PlacementGroupFactory([worker])
    # The trial's own process waits while its workers compute, so it reserves no core.
    return tune.PlacementGroupFactory([{}] + [worker] * tuning.workers_per_trial)


def _room(experiment: Experiment) -> int:
    """Returns how many trials run at a time.

    Raises:
        UserError: Not even one has room.
    """
    tuning = experiment.tuning
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    room = int(resources.get("CPU", 0) / (tuning.cpus_per_worker * tuning.workers_per_trial))
    if tuning.gpus_per_worker:
        room = min(room, int(resources.get("GPU", 0) / (tuning.gpus_per_worker * tuning.workers_per_trial)))
    if room < 1:
        raise UserError(
            f"tuning: a trial needs {tuning.workers_per_trial} workers of {tuning.cpus_per_worker:g} CPUs and "
            f"{tuning.gpus_per_worker:g} GPUs, but the cluster has {resources.get('CPU', 0):g} CPUs and "
            f"{resources.get('GPU', 0):g} GPUs; lower workers_per_trial or the shares per worker"
        )
    return min(room, tuning.concurrent or room)


@contextmanager
def _cluster(experiment: Experiment) -> Iterator[None]:
    """Connects to the cluster of the experiment's engine, or starts one here for the time of the sweep."""
    # Snapshots every second at the most: what a kill can cost.
    for variable, value in (
        ("TUNE_GLOBAL_CHECKPOINT_S", "1"),
        ("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0"),
        ("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"),
        ("RAY_AIR_NEW_OUTPUT", "0"),  # the new output prints in spite of verbose=0
    ):
        os.environ.setdefault(variable, value)
    for noisy in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    connect(RayEngineSpec(kind="ray", address=getattr(experiment.engine, "address", None)))
    try:
        yield
    finally:
        ray.shutdown()


def _parent(store: Store, record: Record, name: str, experiment: Experiment) -> Run:
    """Starts the parent MLflow run, or takes it up and closes what a killed sweep left open under it."""
    parent = store.run(name, folder=record.folder)
    if parent.id is None:
        raise UserError(f"MLflow: {store.uri} takes no new run; try again when it does, trials are nested under it")
    if record.parent is None:
        written = experiment.model_dump(mode="json", by_alias=True, include={"search"}, exclude_unset=True)
        parent.params(written | {"tuning": experiment.tuning.model_dump(mode="json")})
        searched = ", ".join(experiment.search)
        parent.tag(NOTE, f"Searches {searched} by {experiment.tuning.metric}.\n\nFolder: `{record.folder}`")
        parent.flush()
    record.parent = parent.id
    record.save()
    mend_runs(store, record, experiment.tuning.metric)
    return parent


@contextmanager
def _closed(store: Store, parent: Run, out: Path, metric: str) -> Iterator[None]:
    """Ends the parent run rightly, and whatever trial is still open under it."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except (Interrupted, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        try:
            mend_runs(store, Record.load(out), metric)
        finally:
            parent.end(status)
