"""What a comparison leaves for whoever looks at it later: in MLflow, in run.json, on the console and in its report."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from metarestore.cli import main

EXPERIMENT = """\
graph: {target: camera, auxiliary: [bicubic], estimator: {kind: uniform}}
model: {kind: fsrcnn, channels: y, d: 8, s: 4, m: 1}
learner: {kind: pretrain}
training: {steps: 2, tasks_per_step: 2, shard_size: 2, support: 1, query: 1, patch: 32}
adaptation: {shots: 2, shot_size: 64, steps: 1, lr: 1e-5}
evaluation: {crop: 64, crops: 1}
engine: {kind: local}
arms: {a: {}, b: {learner: {kind: fomaml, inner_steps: 1}}}
"""
COMMAND = ("compare", "experiments/e.yaml", "--out", "runs/c")


class Compared(NamedTuple):
    """A comparison that has ended: its project, its results, its parent run, and what was printed."""

    project: Path
    results: dict[str, Any]
    parent: Run
    printed: str


def git(folder: Path, *words: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(["git", *settings, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, mlflow_store: str) -> Compared:
    """Compares two arms on pairs, in a project under git."""
    project = tmp_path_factory.mktemp("project")
    for folder in ("tasks", "experiments"):
        (project / folder).mkdir()
    (project / "tasks/camera.yaml").write_text("kind: pairs\nscale: 4\nlr: data/lr\nhr: data/hr\nsupport_pool: 3\n")
    (project / "experiments/e.yaml").write_text(EXPERIMENT)
    (project / ".gitignore").write_text("data\nruns\n")
    git(project, "init", "-q")
    git(project, "add", ".")
    git(project, "commit", "-qm", "begin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
        patch.chdir(project)
        for words in (("tasks", "sample", "blur_iso_wide", "--count", "5", "--out", "data", "--patch", "96"), COMMAND):
            patch.setattr(sys, "argv", ["metarestore", *words])
            with (
                (project / "printed.txt").open("w", encoding="utf-8") as file,
                redirect_stdout(file),
                pytest.raises(SystemExit) as stop,
            ):
                main()
            assert not stop.value.code
    client = MlflowClient(tracking_uri=mlflow_store)
    name = json.loads((project / "runs/c/run.json").read_text())["notes"]["mlflow_run"]
    results = json.loads((project / "runs/c/results.json").read_text())
    return Compared(project, results, client.get_run(name), (project / "printed.txt").read_text(encoding="utf-8"))


def test_the_parent_run_has_the_parameters_of_the_experiment(compared: Compared) -> None:
    params = compared.parent.data.params
    assert params["graph.target"] == "camera"
    assert params["training.steps"] == "2"
    assert "engine.kind" not in params, "a resumed run may compute elsewhere"


def mean(compared: Compared, arm: str) -> float:
    values = compared.results["arms"][arm]["psnr_y"]
    return sum(values) / len(values)


def test_the_parent_run_has_the_gain_of_each_arm_and_of_the_best(compared: Compared) -> None:
    metrics = compared.parent.data.metrics
    gains = {arm: mean(compared, arm) - mean(compared, "bicubic") for arm in "ab"}
    assert metrics["gain"] == pytest.approx(max(gains.values()))
    assert {arm: metrics[f"gain/{arm}"] for arm in "ab"} == pytest.approx(gains)


def test_the_parent_run_has_bicubic_beside_the_best_arm(compared: Compared) -> None:
    metrics = compared.parent.data.metrics
    assert metrics["psnr_y_bicubic"] == pytest.approx(mean(compared, "bicubic"))
    assert metrics["psnr_y"] == pytest.approx(max(mean(compared, arm) for arm in "ab"))


def test_the_parent_run_is_described(compared: Compared) -> None:
    note = compared.parent.data.tags["mlflow.note.content"]
    for words in ("Restores **camera**, x4, by fsrcnn", "2 shots", "Arms: a, b.", "runs/c", "`metarestore compare"):
        assert words in note


def test_the_source_of_a_run_is_its_command(compared: Compared) -> None:
    assert compared.parent.data.tags["mlflow.source.name"] == f"metarestore {' '.join(COMMAND)}"


def test_the_commit_is_in_the_records_of_run_and_arms(compared: Compared) -> None:
    commit = git(compared.project, "rev-parse", "HEAD").strip()
    assert compared.parent.data.tags["mlflow.source.git.commit"] == commit
    for place in ("runs/c", "runs/c/arms/a", "runs/c/arms/b"):
        assert json.loads((compared.project / place / "run.json").read_text())["notes"]["git"]["commit"] == commit


def test_the_split_of_the_pairs_is_printed(compared: Compared) -> None:
    assert (
        "camera: 5 pairs: the first 3 by name may be used for learning (support_pool; 2 of them are the shots), "
        "2 are left for testing"
    ) in compared.printed
