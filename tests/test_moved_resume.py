"""A project that is moved while a comparison, a search or a grid is half done: each continues where it lies now."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import ray
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service import utils as service

from metarestore.ablation.run import _Driver
from metarestore.reports.study.progress import TrainingDisplay
from metarestore.tasks.photographs import read_image, write_image
from metarestore.tuning.callback import TuningCallback

Cli = Callable[..., tuple[int, str, str]]

EXPERIMENT = """\
graph: {target: camera, auxiliary: [bicubic], estimator: {kind: uniform}}
model: {kind: fsrcnn, channels: y, d: 8, s: 4, m: 1}
learner: {kind: pretrain}
training: {steps: 2, tasks_per_step: 2, shard_size: 2, support: 1, query: 1, patch: 32, init: start}
adaptation: {shots: 2, shot_size: 64, steps: 1, lr: 1e-5}
evaluation: {crop: 64, crops: 1}
engine: {kind: local}
arms: {a: {}, b: {learner: {kind: fomaml, inner_steps: 1}}}
grid: {seed: [0, 1]}
grid_exclude: [{arm: b}]
search: {training.optimizer.lr: {choice: [1e-4, 1e-3]}}
tuning: {searcher: grid, scheduler: none, report_every: 1, concurrent: 1}
"""
STOPPED: dict[str, tuple[str, type, str]] = {
    "compare": ("compare", TrainingDisplay, "finish"),
    "ablate": ("ablate", _Driver, "ended"),
    "tune, between two trials": ("tune", TuningCallback, "_end"),
    "tune, in a trial": ("tune", TuningCallback, "on_trial_result"),
}
"""Command, and what is called for the first time when half of it is done."""


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database that is migrated once: that alone takes seconds."""
    file = tmp_path_factory.mktemp("own") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def project(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, migrated: Path) -> Path:
    """A project with pairs, and a network of its own that trainings start from; its store is migrated already."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "old"
    for folder in ("tasks", "experiments", "start"):
        (root / folder).mkdir(parents=True)
    shutil.copy(migrated, root / "mlflow.db")
    pairs = root / "data"
    assert cli("tasks", "sample", "blur_iso_wide", "--count", "4", "--out", pairs, "--patch", "96")[0] == 0
    (root / "tasks/camera.yaml").write_text("kind: pairs\nscale: 4\nlr: data/lr\nhr: data/hr\nsupport_pool: 2\n")
    (root / "experiments/e.yaml").write_text(EXPERIMENT)
    return root


def stopping(monkeypatch: pytest.MonkeyPatch, case: str) -> str:
    """Stops a command, as Ctrl-C does, when half of it is done; returns its name."""
    command, owner, name = STOPPED[case]
    original = getattr(owner, name)
    calls: list[int] = []

    def stop(*args: Any, **options: Any) -> Any:
        found = original(*args, **options)
        calls.append(1)
        if len(calls) == 1 and command == "tune":
            os.kill(os.getpid(), signal.SIGINT)
        elif len(calls) == 1:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(owner, name, stop)
    return command


@pytest.fixture(scope="module")
def cluster() -> Any:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def halfway(cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> Path:
    """Runs half of a command, moves the project, and returns its new folder."""
    start = ("train", project / "experiments/e.yaml", "training.init=null", "--out", project / "runs/first")
    assert cli(*start)[0] == 0
    shutil.copytree(project / "runs/first", project / "start", dirs_exist_ok=True)
    with monkeypatch.context() as patch:
        command = stopping(patch, case)
        assert cli(command, project / "experiments/e.yaml", "--out", project / "runs/half")[0] == 130
    new = project.parent / "50% [new]"
    shutil.move(project, new)
    service._artifact_repos_cache.clear()  # of this process; a project is moved between two of them
    return new


@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("case", STOPPED)
def test_a_moved_project_is_resumed(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, case: str
) -> None:
    command = STOPPED[case][0]
    if command == "tune":
        request.getfixturevalue("cluster")
    new = halfway(cli, project, monkeypatch, case)
    run = new / "runs/half"
    (cell,) = run.glob("cells/*/result.json") if command == "ablate" else (run,)
    written = cell.stat().st_mtime_ns

    code, out, err = cli(command, new / "experiments/e.yaml", "--out", run, "--resume")

    assert code == 0, out + err
    assert not project.exists()
    assert (run / "report.html").is_file()
    if command == "compare":
        assert "arm 1 of 2, a: already trained" in out
    elif command == "ablate":
        assert cell.stat().st_mtime_ns == written, "what was done before was done again"
    else:
        assert "trial 2 of 2" in out
        assert ("trial 1 of 2" in out) == ("in a trial" in case), "what was done before was done again"
    rows = sqlite3.connect(new / "mlflow.db").execute("SELECT status, artifact_uri FROM runs").fetchall()
    assert {status for status, _ in rows} == {"FINISHED"}
    assert {Path(unquote(urlsplit(uri).path)).parents[2] for _, uri in rows} == {new}


@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("changed", ["a photograph", "the network"])
def test_a_search_is_not_resumed_on_other_contents(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    new = halfway(cli, project, monkeypatch, "tune, between two trials")
    if changed == "a photograph":
        file = new / "data/hr/000003.png"
        write_image(file, 255 - read_image(file).pixels)
    else:
        cli("train", new / "experiments/e.yaml", "training.init=null", "seed=1", "--out", new / "runs/other")
        shutil.copytree(new / "runs/other", new / "start", dirs_exist_ok=True)
    code, _, err = cli("tune", new / "experiments/e.yaml", "--out", new / "runs/half", "--resume")
    assert code == 2
    key = "tasks.camera" if changed == "a photograph" else "training.init"
    assert f"{key}: the files have changed since the tuning run started" in err
