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
from metarestore.reports.progress import TrainingDisplay
from mlflow.tracking._tracking_service import utils as service

from metarestore.ablation.run import _Driver
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
STOPPED = {"compare": (TrainingDisplay, "start"), "ablate": (_Driver, "ended"), "tune": (TuningCallback, "_end")}
"""What is called for each part; the second call is the first to be stopped at, or the end of the first part."""


@pytest.fixture
def project(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, mlflow_store: str) -> Path:
    """A project with pairs, and a network of its own that trainings start from; its store is migrated already."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "old"
    for folder in ("tasks", "experiments", "start"):
        (root / folder).mkdir(parents=True)
    shutil.copy(mlflow_store.removeprefix("sqlite:///"), root / "mlflow.db")
    pairs = root / "data"
    assert cli("tasks", "sample", "blur_iso_wide", "--count", "4", "--out", pairs, "--patch", "96")[0] == 0
    (root / "tasks/camera.yaml").write_text("kind: pairs\nscale: 4\nlr: data/lr\nhr: data/hr\nsupport_pool: 2\n")
    (root / "experiments/e.yaml").write_text(EXPERIMENT)
    return root


def stopping(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Stops a command, as Ctrl-C does, when half of it is done."""
    owner, name = STOPPED[command]
    original = getattr(owner, name)
    calls: list[int] = []

    def stop(*args: Any, **options: Any) -> Any:
        found = original(*args, **options)
        calls.append(1)
        if command == "tune" and len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        elif len(calls) == (2 if command == "compare" else 1):
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(owner, name, stop)


@pytest.fixture
def cluster() -> Any:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def halfway(cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> Path:
    """Runs half of a command, moves the project, and returns its new folder."""
    start = ("train", project / "experiments/e.yaml", "training.init=null", "--out", project / "runs/first")
    assert cli(*start)[0] == 0
    shutil.copytree(project / "runs/first", project / "start", dirs_exist_ok=True)
    with monkeypatch.context() as patch:
        stopping(patch, command)
        assert cli(command, project / "experiments/e.yaml", "--out", project / "runs/half")[0] == 130
    new = project.parent / "50% [new]"
    shutil.move(project, new)
    service._artifact_repos_cache.clear()  # of this process; a project is moved between two of them
    return new


@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize("command", STOPPED)
def test_a_moved_project_is_resumed(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, command: str
) -> None:
    if command == "tune":
        request.getfixturevalue("cluster")
    new = halfway(cli, project, monkeypatch, command)
    run = new / "runs/half"
    (cell,) = run.glob("cells/*/result.json") if command == "ablate" else (run,)
    written = cell.stat().st_mtime_ns

    code, out, err = cli(command, new / "experiments/e.yaml", "--out", run, "--resume")

    assert code == 0, out + err
    assert not project.exists()
    assert (run / "report.html").is_file()
    if command == "compare":
        assert "arm 1 of 2, a: was trained already" in out
    elif command == "ablate":
        assert cell.stat().st_mtime_ns == written, "what was done before was done again"
    else:
        assert "trial 2 of 2" in out
        assert "trial 1 of 2" not in out, "what was done before was done again"
    rows = sqlite3.connect(new / "mlflow.db").execute("SELECT status, artifact_uri FROM runs").fetchall()
    assert {status for status, _ in rows} == {"FINISHED"}
    assert {Path(unquote(urlsplit(uri).path)).parents[2] for _, uri in rows} == {new}


@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("changed", ["a photograph", "the network"])
def test_a_search_is_not_resumed_on_other_contents(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    new = halfway(cli, project, monkeypatch, "tune")
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
