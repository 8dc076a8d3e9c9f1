"""Sweeps end as they should: early stops, real failures, lost processes, a killed driver that is resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from mlflow.tracking import MlflowClient

from metarestore.config.dump import dump_yaml
from metarestore.config.experiment import Experiment
from metarestore.errors import UserError
from metarestore.evaluation.tuning import TuningResult
from metarestore.project import read_experiment, resolve
from metarestore.testing.study import SMALL, merged
from metarestore.tuning.callback import TuningCallback
from metarestore.tuning.record import open_record
from metarestore.tuning.run import run_tuning

pytestmark = pytest.mark.xdist_group("ray")

TINY: dict[str, Any] = {
    **merged(SMALL, training={"steps": 6}, graph={"auxiliary": ["bicubic", "blur_iso_wide"]}),
    # The last of the rates fails on purpose.
    "search": {"learner.inner_lr": {"choice": [1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 6e-3, 1e-2, 1e30]}},
    "tuning": {"searcher": "grid", "trials": 8, "report_every": 2, "grace": 2, "reduction": 2},
}


@pytest.fixture
def project(tmp_path: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    for folder in ("tasks", "experiments"):
        (tmp_path / folder).mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def cluster() -> Any:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def write(project: Path, name: str, **sections: Any) -> Path:
    path = project / "experiments" / f"{name}.yaml"
    dump_yaml({**TINY, **sections}, path)
    return path


def runs(store: str, name: str) -> tuple[Any, list[Any]]:
    """Returns the parent and the nested runs of an experiment."""
    client = MlflowClient(tracking_uri=store)
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    (parent,) = (run for run in found if "mlflow.parentRunId" not in run.data.tags)
    nested = [run for run in found if run is not parent]
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in nested)
    return parent, nested


@pytest.mark.usefixtures("cluster")
def test_a_killed_sweep_is_resumed_and_no_run_is_left_running(project: Path, mlflow_store: str) -> None:
    out = project / "sweep"
    path = write(project, "killed")
    command = [sys.executable, "-m", "metarestore", "tune", str(path), "--out", str(out)]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not any(trial["history"] for trial in recorded(out)):
        assert started.poll() is None, "ended before it could be killed"
        time.sleep(0.05)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    parent, nested = runs(mlflow_store, "killed")
    assert {run.info.status for run in (parent, *nested)} == {"RUNNING"}

    result = run_tuning(read_experiment(path), project, out, name="killed", command="metarestore tune", resume=True)

    again, nested = runs(mlflow_store, "killed")
    assert again.info.run_id == parent.info.run_id
    assert again.info.status == "FINISHED"
    kept = [run for run in nested if run.info.status != "KILLED"]
    failed = [run for run in kept if run.info.status == "FAILED"]
    assert {run.info.status for run in kept} == {"FINISHED", "FAILED"}
    assert len(kept) == 8
    assert [run.data.params["learner.inner_lr"] for run in failed] == ["1e+30"]
    assert "not finite" in failed[0].data.tags["error"]
    client = MlflowClient(tracking_uri=mlflow_store)
    for run in kept:
        steps = [entry.step for entry in client.get_metric_history(run.info.run_id, "held_out_shots")]
        assert steps == sorted(set(steps)), "a measurement was written twice"
    states = [trial.state for trial in result.trials]
    assert states.count("failed") == 1
    assert "stopped" in states
    assert "finished" in states
    assert (out / "figures" / "parallel-coordinates.png").is_file()
    best = read_experiment(out / "best.yaml")
    resolve(best, project)
    assert best.learner.inner_lr in TINY["search"]["learner.inner_lr"]["choice"][:-1]
    assert not best.search


def recorded(out: Path) -> list[dict[str, Any]]:
    path = out / "sweep.json"
    return list(json.loads(path.read_text())["trials"].values()) if path.is_file() else []


def sweep(project: Path, name: str, **sections: Any) -> TuningResult:
    path = write(project, name, **sections)
    return run_tuning(read_experiment(path), project, project / name, name=name, command="metarestore tune")


@pytest.mark.usefixtures("cluster")
def test_trials_of_several_workers_agree_with_trials_of_one_that_was_killed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trials of two workers on two cores: workers that are not reserved together would wait for each other."""
    search = {"learner.inner_lr": {"choice": [1e-3, 1e-2]}}
    tuning = {"searcher": "grid", "scheduler": "none", "report_every": 3}
    two = sweep(project, "two", search=search, tuning={**tuning, "workers_per_trial": 2})
    noted = TuningCallback.on_trial_result
    killed: list[int] = []

    def kill_once(self: TuningCallback, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        noted(self, iteration, trials, trial, result, **info)
        if not killed:
            killed.append(result["pid"])
            os.kill(result["pid"], signal.SIGKILL)

    monkeypatch.setattr(TuningCallback, "on_trial_result", kill_once)
    one = sweep(project, "one", search=search, tuning=tuning)
    assert killed
    assert figures(one) == figures(two)
    assert [trial.state for trial in two.trials] == ["finished", "finished"]


def figures(found: TuningResult) -> dict[float, Any]:
    return {trial.values["learner.inner_lr"]: trial.history for trial in found.trials}


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("tuning", [{"scheduler": "pbt", "perturb_every": 3}, {"searcher": "optuna"}])
def test_every_searcher_and_scheduler_comes_to_an_end(project: Path, tuning: dict[str, Any]) -> None:
    search = {"learner.inner_lr": {"log_uniform": [1e-4, 1e-2]}, "learner.loss": {"choice": ["l1", "mse"]}}
    found = sweep(project, "kinds", search=search, tuning={"trials": 3, "report_every": 3, **tuning})
    assert len(found.trials) == 3
    assert found.best is not None
    assert found.best.step == 6
    assert all(1e-4 <= trial.values["learner.inner_lr"] <= 1e-2 for trial in found.trials)


@pytest.mark.usefixtures("cluster")
def test_a_trial_that_diverges_fails_alone(project: Path, mlflow_store: str) -> None:
    search = {"adaptation.lr": {"choice": [1e-4, 1e30]}}
    found = sweep(project, "diverged", search=search, tuning={"searcher": "grid", "scheduler": "none"})
    trials = {trial.values["adaptation.lr"]: trial for trial in found.trials}
    assert {value: trial.state for value, trial in trials.items()} == {1e-4: "finished", 1e30: "failed"}
    assert trials[1e30].error == "held_out_shots is 0 dB at step 6: the network diverged"
    assert found.best is trials[1e-4]
    parent, nested = runs(mlflow_store, "diverged")
    assert parent.info.status == "FINISHED"
    assert sorted(run.info.status for run in nested) == ["FAILED", "FINISHED"]
    assert "1e+30" in (project / "diverged" / "results.md").read_text()


def test_a_sweep_of_another_experiment_is_not_resumed(project: Path) -> None:
    open_record(project, Experiment.model_validate(TINY), resume=False).save()
    with pytest.raises(UserError, match="--resume"):
        open_record(project, Experiment.model_validate(TINY), resume=False)
    other = {**TINY, "training": {**TINY["training"], "steps": 7}}
    with pytest.raises(UserError, match=r"training.steps was 6, is 7"):
        open_record(project, Experiment.model_validate(other), resume=True)
