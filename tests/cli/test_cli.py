"""The command line: results in files, and one line for every mistake of the user's, with exit code 2."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metarestore.tasks.images import read_image, write_image

REPOSITORY = Path(__file__).parents[2]

EXPERIMENT = """\
seed: 0
graph:
  target: phone_camera
  auxiliary: [bicubic, blur_iso_wide, noise_gaussian]
  estimator: {kind: response, draws: 4}
model: {kind: fsrcnn, d: 8, s: 4, m: 1}
learner: {kind: fomaml}
training: {steps: 4, tasks_per_step: 4, shard_size: 2, support: 2, query: 2, patch: 32}
adaptation: {shots: 2, shot_size: 64, steps: 3, alternatives: [{optimizer: sgd, lr: 1e-2, steps: 2}]}
evaluation: {crop: 64, crops: 2}
engine: {kind: local}
arms:
  target_only: {training: {source: target}}
  pretrain_uniform: {learner: {kind: pretrain}, graph: {estimator: {kind: uniform}}}
  pretrain_weighted: {learner: {kind: pretrain}}
"""

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_store: str) -> Path:
    """A project of the user's with one small experiment, as the current folder."""
    for folder in ("tasks", "graphs", "experiments"):
        (tmp_path / folder).mkdir()
    (tmp_path / "experiments/small.yaml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    return tmp_path


def test_train_writes_weights_configuration_and_figures(cli: Cli, project: Path) -> None:
    code, out, err = cli("train", "experiments/small.yaml", "--out", "run", "--json", "figures.json")
    assert (code, err) == (0, "")
    assert "report.html" in out
    for name in (
        "model.safetensors",
        "adapted.safetensors",
        "config.yaml",
        "graph.json",
        "graph.graphml",
        "report.html",
    ):
        assert (project / "run" / name).is_file(), name
    figures = json.loads((project / "figures.json").read_text())
    assert set(figures["arms"]) == {"bicubic", "fomaml"}
    assert len(figures["arms"]["fomaml"]["psnr_y_by_step"]) == 4
    again = cli("train", "run/config.yaml", "--out", "again")
    assert again[0] == 0, again[2]
    assert (project / "run/model.safetensors").read_bytes() == (project / "again/model.safetensors").read_bytes()


def test_ablate_runs_the_grid_and_names_the_cells_that_failed(cli: Cli, project: Path) -> None:
    (project / "experiments/small.yaml").rename(project / "experiments/ablated.yaml")
    with (project / "experiments/ablated.yaml").open("a") as file:
        file.write("  halves: {graph: {estimator: {kind: transfer, steps: 1, adaptation_steps: 1}}}\n")
        file.write("grid: {adaptation.shots: [1, 2]}\n")
    code, out, err = cli("ablate", "experiments/ablated.yaml", "--out", "run", "--json", "figures.json")
    assert code == 2
    assert err.splitlines() == [
        "halves,shots=1: graph.estimator: transfer requires at least 2 shots to hold some out; raise adaptation.shots"
    ]
    assert "7 of 8 cells finished, 1 failed" in out
    for name in ("results.md", "results.json", "report.html", "figures/grid.png", "config.yaml"):
        assert (project / "run" / name).is_file(), name
    figures = json.loads((project / "figures.json").read_text())
    assert figures["reference"] == "pretrain_uniform"
    assert [group["labels"] for group in figures["groups"]] == [{"adaptation.shots": "1"}, {"adaptation.shots": "2"}]
    # Other commands do not read the grid; the next time without the cell, the others are not run again.
    assert cli("train", "experiments/ablated.yaml", "--out", "alone")[0] == 0
    again = cli(
        "ablate", "experiments/ablated.yaml", "--out", "run", "--resume", "--against", "target_only",
        "grid_exclude=[{arm: halves, adaptation.shots: 1}]",
    )  # fmt: skip
    assert again[0] == 0, again[2]
    assert "7 cells, 7 already finished; 0 trainings to run" in again[1]
    assert "minus target_only" in (project / "run/results.md").read_text()


def test_compare_measures_every_arm_and_tracks_it(cli: Cli, project: Path, mlflow_store: str) -> None:
    code, out, err = cli("compare", "experiments/small.yaml", "--out", "run", "--json", "figures.json")
    assert (code, err) == (0, "")
    figures = json.loads((project / "figures.json").read_text())
    assert list(figures["arms"]) == ["bicubic", "target_only", "pretrain_uniform", "pretrain_weighted"]
    for arm in figures["arms"].values():
        assert len(arm["psnr_y"]) == len(arm["ssim_y"]) == len(arm["photographs"])
    assert np.mean(list(figures["weights"].values())) == pytest.approx(1)
    assert 1 <= figures["effective_tasks"] <= 3
    assert figures["seconds"] > 0
    assert "pretrain_weighted − pretrain_uniform" in out.replace("\n", " ")
    check_tracking(mlflow_store)


def check_tracking(uri: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run not in parents]
    assert {run.info.status for run in runs} == {"FINISHED"}
    names = {run.info.run_name for run in children}
    assert {"target_only", "pretrain_uniform", "pretrain_weighted"} <= names
    weighted = next(run for run in children if run.info.run_name == "pretrain_weighted")
    assert weighted.data.params["learner.kind"] == "pretrain"
    assert len(client.get_metric_history(weighted.info.run_id, "loss")) == 4
    assert "weight/bicubic" in weighted.data.metrics
    assert "relation/bicubic" in weighted.data.metrics
    artifacts = {entry.path for entry in client.list_artifacts(weighted.info.run_id)}
    assert {"config.yaml", "graph.json", "graph.graphml", "model.safetensors", "checkpoints"} <= artifacts
    parent = next(run for run in parents if run.info.run_id == weighted.data.tags["mlflow.parentRunId"])
    assert {"report.html", "results.json", "figures"} <= {e.path for e in client.list_artifacts(parent.info.run_id)}


def test_engines_are_chosen_by_overrides(cli: Cli, project: Path) -> None:
    edit(project, "engine: {kind: local}", "engine: {kind: ray, workers: 2}")
    for out, values in (("a", ["engine.kind=local"]), ("b", ["engine.kind=local", "training.shard_size=2"])):
        code, _, err = cli("train", "experiments/small.yaml", "--out", out, "--set", *values)
        assert (code, err) == (0, "")
        assert "engine:\n  kind: local\n" in (project / out / "config.yaml").read_text()
    assert (project / "a/model.safetensors").read_bytes() == (project / "b/model.safetensors").read_bytes()


def test_resume_of_a_finished_study_repeats_its_figures(cli: Cli, project: Path) -> None:
    cli("train", "experiments/small.yaml", "--out", "run", "--json", "a.json")
    code, _, err = cli("train", "experiments/small.yaml", "--out", "run", "--json", "b.json", "--resume")
    assert (code, err) == (0, "")
    first, second = (json.loads((project / name).read_text()) for name in ("a.json", "b.json"))
    assert first["arms"] == second["arms"]


def test_real_pairs_as_target(cli: Cli, project: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(4):
        hr = np.kron(rng.integers(0, 256, (12, 12)), np.ones((8, 8))).astype(np.uint8)
        for side, pixels in (("hr", hr), ("lr", hr[::4, ::4])):
            (project / "data" / side).mkdir(parents=True, exist_ok=True)
            write_image(project / "data" / side / f"{k}.png", np.repeat(pixels[..., None], 3, axis=2))
    (project / "tasks/camera.yaml").write_text("kind: pairs\nscale: 4\nlr: data/lr\nhr: data/hr\nsupport_pool: 2\n")
    code, _, err = cli("train", "experiments/small.yaml", "--set", "graph.target=camera", "--json", "figures.json")
    assert (code, err) == (0, "")
    assert json.loads((project / "figures.json").read_text())["arms"]["bicubic"]["photographs"] == ["2", "3"]
    assert cli("tasks", "preview", "camera", "--out", "sheet.png", "--count", "2")[0] in (0, 2)


def test_restore_and_evaluate_with_a_trained_network(cli: Cli, project: Path) -> None:
    cli("train", "experiments/small.yaml", "--out", "run", "--set", "training.steps=1")
    photo = project / "photos" / "photo.png"
    photo.parent.mkdir()
    write_image(photo, np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8))
    assert cli("restore", photo, "--model", "run", "--out", "big.png")[0] == 0
    assert read_image(project / "big.png").pixels.shape == (160, 192, 3)
    code, _, err = cli("evaluate", "--model", "run", "--data", "photos", "--scale", "4", "--json", "e.json")
    assert (code, err) == (0, "")
    assert set(json.loads((project / "e.json").read_text())["images"]) == {"photo"}
    assert "--scale" in cli("evaluate", "--model", "run", "--data", "photos", "--scale", "2")[2]


def test_tasks_list_preview_and_check(cli: Cli, project: Path) -> None:
    code, out, _ = cli("tasks", "list")
    assert code == 0
    assert "phone_camera" in out
    assert cli("tasks", "preview", "jpeg", "--out", "sheet.png", "--count", "2")[0] == 0
    assert read_image(project / "sheet.png").pixels.std() > 10
    assert cli("check")[0] == 0


def test_schemas_are_json(cli: Cli, project: Path) -> None:
    assert cli("schema", "--out", "schemas")[0] == 0
    for name in ("task", "graph", "experiment"):
        assert json.loads((project / f"schemas/{name}.json").read_text())["$schema"]


def test_python_m_metarestore() -> None:
    done = subprocess.run([sys.executable, "-m", "metarestore", "--help"], capture_output=True, text=True, check=True)
    assert "compare" in done.stdout


def edit(project: Path, before: str, after: str) -> None:
    path = project / "experiments/small.yaml"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def write_task(project: Path, text: str) -> None:
    (project / "tasks/night.yaml").write_text(text)


def fill_data(project: Path, name: str, content: bytes | None = None, size: tuple[int, int] = (80, 80)) -> None:
    (project / "photos").mkdir(exist_ok=True)
    write_image(project / "photos/fine.png", np.zeros((*size, 3), np.uint8))
    if content is not None:
        (project / "photos" / name).write_bytes(content)
    (project / "clean").mkdir()
    write_image(project / "clean/large.png", np.zeros((100, 100, 3), np.uint8))
    edit(project, "seed: 0\n", "seed: 0\ndata: {train: clean, test: photos}\n")


NIGHT = "kind: synthetic\nscale: 4\npipeline:\n  - {op: downsample}\n"

MISTAKES: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "misspelt operation": (
        lambda p: write_task(p, NIGHT + "  - {op: gausian_noise}\n"),
        ["check"],
        "tasks/night.yaml:5:5: pipeline[1]: unknown operation 'gausian_noise'; did you mean 'gaussian_noise'?",
    ),
    "range upside down": (
        lambda p: write_task(p, NIGHT + "  - {op: gaussian_noise, sigma: [20, 5]}\n"),
        ["check"],
        "tasks/night.yaml:5:33: pipeline[1].sigma: low is above high: [20, 5]; write [5, 20]",
    ),
    "value out of range": (
        lambda p: write_task(p, NIGHT + "  - {op: jpeg, quality: [40, 130]}\n"),
        ["check"],
        "tasks/night.yaml:5:25: pipeline[1].quality: 130 is above 100",
    ),
    "no downsampling": (
        lambda p: write_task(p, "kind: synthetic\nscale: 4\npipeline: [{op: jpeg, quality: 50}]\n"),
        ["check"],
        "exactly one downsample",
    ),
    "missing pairs": (
        lambda p: write_task(p, "kind: pairs\nscale: 4\nlr: data/lr\nhr: graphs\n"),
        ["check"],
        "tasks/night.yaml:3:5: lr: there is no folder",
    ),
    "missing file": (lambda p: None, ["train", "experiments/smal.yaml"], "experiments/smal.yaml: no such file"),
    "unknown key": (
        lambda p: edit(p, "seed: 0", "sede: 0"),
        ["train", "experiments/small.yaml"],
        "experiments/small.yaml:1:1: unknown key 'sede'; did you mean 'seed'?",
    ),
    "wrong key in an arm": (
        lambda p: edit(p, "source: target", "sorce: target"),
        ["compare", "experiments/small.yaml"],
        "experiments/small.yaml:13:28: arms.target_only.training: unknown key 'sorce'; did you mean 'source'?",
    ),
    "arm on other images": (
        lambda p: edit(p, "target_only: {", "target_only: {seed: 5, "),
        ["compare", "experiments/small.yaml"],
        "experiments/small.yaml:13:23: arms.target_only.seed: differs from the experiment's",
    ),
    "engine of an arm": (
        lambda p: edit(p, "pretrain_weighted: {", "pretrain_weighted: {engine: {kind: ray}, "),
        ["compare", "experiments/small.yaml"],
        "arms.pretrain_weighted.engine: differs from the experiment's",
    ),
    "arm with a reserved name": (
        lambda p: edit(p, "  target_only:", "  bicubic:"),
        ["compare", "experiments/small.yaml"],
        "is reserved (bicubic is always measured); choose another",
    ),
    "same photographs for training and test": (
        lambda p: edit(p, "seed: 0\n", "seed: 0\ndata: {train: tasks, test: tasks}\n"),
        ["train", "experiments/small.yaml"],
        "is the same folder as data.",
    ),
    "broken link": (
        lambda p: (fill_data(p, ""), (p / "photos/link.png").symlink_to("nowhere.png")),
        ["train", "experiments/small.yaml"],
        "link.png",
    ),
    "no Ray cluster": (
        lambda p: edit(p, "{kind: local}", '{kind: ray, address: "127.0.0.1:9"}'),
        ["train", "experiments/small.yaml"],
        "engine.address: no Ray cluster responds at '127.0.0.1:9'",
    ),
    "too many workers": (
        lambda p: edit(p, "{kind: local}", "{kind: ray, workers: 5000}"),
        ["train", "experiments/small.yaml"],
        "engine.workers: 5000 workers",
    ),
    "resume of nothing": (
        lambda p: None,
        ["train", "experiments/small.yaml", "--resume", "--out", "typo"],
        "--resume: there is no run in typo",
    ),
    "wrong override": (
        lambda p: None,
        ["train", "experiments/small.yaml", "--set", "training.steps=many"],
        "--set training.steps=many: training.steps: must be a whole number, got 'many'",
    ),
    "unknown target": (
        lambda p: edit(p, "target: phone_camera", "target: phone_kamera"),
        ["train", "experiments/small.yaml"],
        "graph.target: there is no task 'phone_kamera'",
    ),
    "pattern without match": (
        lambda p: edit(p, "[bicubic,", "[blurr_*,"),
        ["train", "experiments/small.yaml"],
        "graph.auxiliary: 'blurr_*' is and matches no task distribution",
    ),
    "the target learned from": (
        lambda p: edit(p, "[bicubic,", "[phone_camera,"),
        ["train", "experiments/small.yaml"],
        "graph.auxiliary: 'phone_camera' is the target itself",
    ),
    "patch that does not fit the scale": (
        lambda p: edit(p, "patch: 32", "patch: 33"),
        ["train", "experiments/small.yaml"],
        "training.patch: 33 is not a multiple of the scale 4; write 32",
    ),
    "image smaller than a crop": (
        lambda p: fill_data(p, "", size=(50, 60)),
        ["train", "experiments/small.yaml"],
        "'fine' is 50x60 (height x width), smaller than the 64x64 crop",
    ),
    "damaged image": (
        lambda p: fill_data(p, "bad.png", b"\x89PNG broken"),
        ["train", "experiments/small.yaml"],
        "bad.png",
    ),
    "missing data": (
        lambda p: edit(p, "seed: 0\n", "seed: 0\ndata: {train: nowhere, test: tasks}\n"),
        ["train", "experiments/small.yaml"],
        "nowhere",
    ),
    "no test photographs": (
        lambda p: edit(p, "seed: 0\n", "seed: 0\ndata: {train: tasks}\n"),
        ["check"],
        "data.test: is missing",
    ),
    "no arms": (
        lambda p: edit(p, EXPERIMENT[EXPERIMENT.index("arms:") :], ""),
        ["compare", "experiments/small.yaml"],
        "arms: is missing",
    ),
    "unwritable output": (
        lambda p: (p / "blocked").write_text(""),
        ["train", "experiments/small.yaml", "--out", "blocked/run"],
        "choose another folder",
    ),
    "unwritable figures": (
        lambda p: None,
        ["train", "experiments/small.yaml", "--json", "nowhere/figures.json"],
        "--json: nowhere/figures.json",
    ),
    "resume without a run": (
        lambda p: None,
        ["train", "experiments/small.yaml", "--resume"],
        "--resume: say which run to continue",
    ),
    "nothing to measure": (lambda p: None, ["evaluate", "--data", "."], "either --bicubic or --model"),
    "no such network": (
        lambda p: None,
        ["restore", "a.png", "--model", "nowhere", "--out", "b.png"],
        "nowhere: no such file",
    ),
    "no such task": (lambda p: None, ["tasks", "preview", "jpg"], "did you mean 'jpeg'?"),
    "init over a project": (
        lambda p: (p / "tasks/night_phone.yaml").write_text("x"),
        ["init", "."],
        "night_phone.yaml",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(cli: Cli, project: Path, name: str) -> None:
    prepare, arguments, expected = MISTAKES[name]
    prepare(project)
    code, _, err = cli(*arguments)
    assert code == 2, err
    assert "Traceback" not in err
    assert expected in err
    assert len(err.strip().splitlines()) == 1, err


def test_a_wrong_tracking_store(cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "foo://bar")
    code, _, err = cli("train", "experiments/small.yaml")
    assert code == 2
    assert err.startswith("MLflow: no store answers at foo://bar")
    assert len(err.strip().splitlines()) == 1


def test_a_mistake_does_not_lock_the_folder(cli: Cli, project: Path) -> None:
    out = ["train", "experiments/small.yaml", "--out", "run", "--set", "training.steps=1"]
    assert cli(*out, "--set", "training.patch=1024")[0] == 2
    assert not (project / "run").exists()
    assert cli(*out)[0] == 0


def test_all_problems_of_all_files_at_once(cli: Cli, project: Path) -> None:
    write_task(project, NIGHT + "  - {op: jpeg, quality: 0}\n  - {op: blur}\n")
    edit(project, "seed: 0", "seed: -1")
    code, _, err = cli("check")
    assert code == 2
    assert len(err.strip().splitlines()) == 3


def test_a_graph_by_name_can_be_overridden_inside(cli: Cli, project: Path) -> None:
    shutil.copy(REPOSITORY / "graphs/phone_camera.yaml", project / "graphs")
    text = EXPERIMENT.replace(
        EXPERIMENT[EXPERIMENT.index("graph:") : EXPERIMENT.index("model:")], "graph: phone_camera\n"
    )
    (project / "experiments/small.yaml").write_text(text)
    small = ["--set", "graph.auxiliary=[bicubic, jpeg]", "--set", "training.steps=1"]
    assert cli("train", "experiments/small.yaml", *small, "--out", "run")[0] == 0
    assert "auxiliary: [bicubic, jpeg]" in (project / "run/config.yaml").read_text()
    code, _, err = cli("train", "experiments/small.yaml", "--set", "graph.weights.temperature=0")
    assert code == 2
    assert err.startswith("--set graph.weights.temperature=0: ")
