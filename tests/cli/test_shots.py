"""`metarestore shots`: a curve over the number of pairs, of a synthetic target and of real pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metarestore.ablation.plan import plan_cells, plan_units
from metarestore.ablation.shots import plan_shots
from metarestore.config.experiment import Experiment
from metarestore.errors import UserError
from metarestore.tasks.images import write_image
from metarestore.workspace.workspace import Workspace

Cli = Callable[..., tuple[int, str, str]]
Build = Callable[..., Experiment]
EXPERIMENT = """\
seed: 0
graph:
  target: phone_camera
  auxiliary: [bicubic, blur_iso_wide]
  estimator: {kind: uniform}
model: {kind: fsrcnn, d: 8, s: 4, m: 1}
learner: {kind: pretrain}
training: {steps: 2, tasks_per_step: 2, shard_size: 2, support: 1, query: 1, patch: 32}
adaptation: {shots: 2, shot_size: 64, steps: 2, lr: 1e-3}
evaluation: {crop: 64, crops: 1}
engine: {kind: local}
arms: {related: {graph: {estimator: {kind: response, draws: 2}}}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_store: str) -> Path:
    """A project with one experiment, and with a camera of six pairs, as the current folder."""
    for folder in ("tasks", "graphs", "experiments", "lr", "hr"):
        (tmp_path / folder).mkdir()
    (tmp_path / "experiments/small.yaml").write_text(EXPERIMENT)
    task = "kind: pairs\nscale: 4\nlr: lr\nhr: hr\nsupport_pool: 4\ncheck_content: false\n"
    (tmp_path / "tasks/my_camera.yaml").write_text(task)
    rng = np.random.default_rng(0)
    for k in range(6):
        lr = rng.integers(0, 256, (16, 16, 3), np.uint8)
        write_image(tmp_path / f"lr/{k}.png", lr)
        write_image(tmp_path / f"hr/{k}.png", lr.repeat(4, axis=0).repeat(4, axis=1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    return tmp_path


def test_a_curve_of_a_synthetic_target(cli: Cli, project: Path) -> None:
    given = ("shots", "experiments/small.yaml", "--shots", "2,1", "--out", "run")
    code, out, err = cli(*given, "--folds", 2, "--json", "curve.json")
    assert (code, err) == (0, "")
    assert "4 cells; 1 trainings to run" in out
    assert "From 1 to 2 pairs: " in out
    for name in ("shots.md", "shots.json", "learning_curve.png", "results.json", "report.html", "config.yaml"):
        assert (project / "run" / name).is_file(), name
    curve = json.loads((project / "curve.json").read_text())
    assert curve == json.loads((project / "run/shots.json").read_text())
    assert [(point["shots"], point["folds"]) for point in curve["points"]] == [(1, 2), (2, 2)]
    assert curve["points"][0]["unadapted"] == curve["points"][1]["unadapted"]
    assert curve["statement"] in out.replace("\n", " ")

    code, out, _ = cli(*given, "--folds", 3, "--resume")
    assert code == 0
    assert "6 cells, 4 already finished" in out


@pytest.mark.usefixtures("project")
def test_the_pairs_of_a_camera_go_round_its_pool(cli: Cli, project: Path) -> None:
    code, out, err = cli(
        *("shots", "experiments/small.yaml", "--shots", "1,4", "--out", "run", "--overwrite"),
        *("--set", "graph.target=my_camera"),
    )
    assert (code, err) == (0, "")
    assert "8 cells; 1 trainings to run" in out
    assert "4 pairs are the whole support pool" in out.replace("\n", " ")
    results = json.loads((project / "run/results.json").read_text())
    assert {tuple(cell["photographs"]) for cell in results["cells"]} == {("4", "5")}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--shots", "1,5"],
            "--shots: 5 pairs are requested, but the support pool of 'my_camera' has 4, and 2 are for",
        ),
        (["--shots", "3"], "--shots: at least two numbers of pairs are compared, got 3"),
        (["--shots", "1,two"], "--shots: numbers of pairs are whole numbers from 1, e.g. 1,2,3,5,8, got '1,two'"),
        (["--shots", "0,1"], "--shots: numbers of pairs are whole numbers from 1, e.g. 1,2,3,5,8, got '0,1'"),
        (["--folds", "5"], "--folds: the support pool has 4 pairs, so there are at most 4 folds, got 5"),
        (["--arm", "relatd"], "--arm: there is no arm 'relatd'; did you mean 'related'"),
        (["--set", "adaptation.method=zero_shot"], "adaptation.method: zero_shot uses no pairs; write method: shots"),
    ],
)
def test_mistakes_are_one_line(cli: Cli, project: Path, options: list[str], message: str) -> None:
    code, _, err = cli("shots", "experiments/small.yaml", "--set", "graph.target=my_camera", *options)
    assert code == 2
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert not (project / "runs").exists()


def test_sizes_and_folds_fit_the_pool_by_default(small_experiment: Build, project: Path) -> None:
    camera = plan_shots(small_experiment(graph={"target": "my_camera"}), project)
    assert camera.pool == 4
    assert camera.experiment.grid == {"adaptation.shots": (1, 2, 3), "adaptation.first_shot": (0, 1, 2, 3)}
    synthetic = plan_shots(small_experiment(grid={"seed": [3, 4], "training.steps": [1, 2]}), project)
    assert synthetic.pool is None
    assert synthetic.experiment.grid == {
        "adaptation.shots": (1, 2, 3, 5, 8),
        "adaptation.first_shot": (0, 8, 16, 24, 32),
        "seed": (3, 4),
    }


def test_a_cell_measures_only_what_the_curve_shows(small_experiment: Build, project: Path) -> None:
    given = small_experiment(adaptation={"steps": 7, "alternatives": [{"optimizer": "sgd"}]})
    cells = plan_cells(plan_shots(given, project, sizes=[1, 2], folds=1).experiment, project)
    found = cells[0].study.experiment
    assert (found.evaluation.every, found.adaptation.alternatives, found.adaptation.steps) == (7, (), 7)
    assert found.evaluation.crop == given.evaluation.crop


def test_trainings_are_shared_unless_they_use_the_shots(small_experiment: Build, project: Path) -> None:
    arms = {"uniform": {"graph": {"estimator": {"kind": "uniform"}}}}
    for arm, count in ((None, 4), ("uniform", 1)):
        plan = plan_shots(small_experiment(arms=arms), project, sizes=[1, 2], folds=2, arm=arm)
        cells = plan_cells(plan.experiment, project)
        assert len(plan_units(cells, project, keep=False)) == count
        assert {cell.cell.arm for cell in cells} == {arm or "fomaml"}


def test_more_shots_contain_the_fewer_of_their_fold(small_experiment: Build, project: Path) -> None:
    for target, disjoint in (("phone_camera", True), ("my_camera", False)):
        plan = plan_shots(small_experiment(graph={"target": target}), project, sizes=[1, 3], folds=2)
        draws = {
            (cell.cell.labels["adaptation.shots"], cell.cell.labels["adaptation.first_shot"]): Workspace(
                cell.study
            ).target_draw
            for cell in plan_cells(plan.experiment, project)
        }
        firsts = sorted({first for _, first in draws})
        for first in firsts:
            assert draws["1", first].shots == draws["3", first].shots[:1]
        assert len({str(draw.test) for draw in draws.values()}) == 1
        one, other = ({str(shot) for shot in draws["3", first].shots} for first in firsts)
        assert (not one & other) == disjoint


def test_an_experiment_without_shots_is_refused(small_experiment: Build, project: Path) -> None:
    method = {"method": "teacher_student", "schedule": "cosine"}
    untrained = {"model": {"kind": "zero_shot"}, "training": {"steps": 0}, "learner": {"kind": "pretrain"}}
    experiment = small_experiment(adaptation=method, **untrained)
    with pytest.raises(UserError, match="teacher_student uses no pairs"):
        plan_shots(experiment, project)
