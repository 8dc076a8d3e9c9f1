"""Photographs that are restored exactly, in whole or in part, leave every number and every comparison finite."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from numpy.typing import NDArray
from scipy import ndimage

from metarestore.config.dump import dump_yaml
from metarestore.decibels import CAP, decibels
from metarestore.evaluation.few_shot import TestSet, bicubic_result
from metarestore.evaluation.folder import bicubic_lr, bicubic_restore, evaluate_folder
from metarestore.evaluation.metrics import PEAK
from metarestore.evaluation.results import StudyResult
from metarestore.models.checkpoint import save_model
from metarestore.project import read_experiment, resolve
from metarestore.reports.study.figures import study_figures
from metarestore.reports.study.table import summary_text
from metarestore.reports.style import svg
from metarestore.workspace.workspace import Workspace

Pixels = NDArray[np.uint8]
Cli = Callable[..., tuple[int, str, str]]
SIDE, HALF = 128, 64

EXPERIMENT: dict[str, Any] = {
    "graph": {
        "target": "cam",
        "auxiliary": ["bicubic", "blur_iso_mild"],
        "estimator": {"kind": "response", "draws": 4},
    },
    "model": {"kind": "fsrcnn", "channels": "y", "d": 8, "s": 4, "m": 1},
    "learner": {"kind": "pretrain"},
    "training": {"steps": 2, "tasks_per_step": 4, "shard_size": 4, "patch": 32},
    "adaptation": {"shots": 3, "shot_size": 64, "steps": 1, "lr": 1e-5},
    "evaluation": {"crop": HALF, "crops": 4},
    "engine": {"kind": "local"},
    "arms": {"even": {"graph": {"estimator": {"kind": "uniform"}}}, "chosen": {}},
}


def texture(seed: int) -> Pixels:
    rng = np.random.default_rng(seed)
    waves = sum(ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE, 3)), (s, s, 0)) * s * 48 for s in (1, 2, 5, 11))
    return np.clip(128 + waves, 0, 255).astype(np.uint8)


def partly(level: int, rows: slice, columns: slice) -> Pixels:
    image = texture(7)
    image[rows, columns] = level
    return image


EVERYTHING = slice(None)
FLAT: dict[str, Pixels] = {
    "black": partly(0, EVERYTHING, EVERYTHING),
    "white": partly(255, EVERYTHING, EVERYTHING),
    # Wider than a crop by what bicubic interpolation reaches.
    "letterbox": partly(0, slice(0, HALF + 16), EVERYTHING),
    "page": partly(128, EVERYTHING, slice(HALF - 16, None)),
}
"""Flat in whole, or in two of their four test crops."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_store: str) -> Path:
    """A project whose target has three ordinary shots, two ordinary test photographs and the flat ones."""
    (tmp_path / "experiments").mkdir()
    write_pairs(tmp_path, {f"{k}": texture(k) for k in range(5)} | {f"z_{name}": image for name, image in FLAT.items()})
    dump_yaml(EXPERIMENT, tmp_path / "experiments" / "flat.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    return tmp_path


def write_pairs(project: Path, images: dict[str, Pixels]) -> None:
    from metarestore.tasks.images import write_image

    (project / "tasks").mkdir(exist_ok=True)
    for side, shrink in (("lr", lambda hr: bicubic_lr(hr, 4)), ("hr", lambda hr: hr)):
        (project / side).mkdir(exist_ok=True)
        for name, hr in images.items():
            write_image(project / side / f"{name}.png", shrink(hr))
    text = "kind: pairs\nscale: 4\nlr: lr\nhr: hr\nsupport_pool: 3\n"
    (project / "tasks" / "cam.yaml").write_text(text)


def opened(project: Path) -> Workspace:
    return Workspace(resolve(read_experiment(project / "experiments" / "flat.yaml"), project))


def finite_json(path: Path) -> Any:
    def refused(constant: str) -> NoReturn:
        raise AssertionError(f"{path} holds {constant}")

    return json.loads(path.read_text(), parse_constant=refused)


def numbers(data: Any) -> list[Any]:
    """Returns all leaves of nested data that are no text."""
    if isinstance(data, dict):
        return [leaf for value in data.values() for leaf in numbers(value)]
    if isinstance(data, list):
        return [leaf for value in data for leaf in numbers(value)]
    return [] if isinstance(data, str) else [data]


@pytest.mark.parametrize("name", FLAT)
def test_errors_are_pooled_over_the_crops_of_a_photograph(project: Path, name: str) -> None:
    """A photograph with flat crops has the PSNR of all its pixels; one that is flat throughout has the cap."""
    workspace = opened(project)
    test, result = TestSet.of(workspace), bicubic_result(workspace)
    own = [k for k, photograph in enumerate(test.photographs) if photograph == f"z_{name}"]
    from metarestore.degradations.resample import bicubic_upsample
    from metarestore.models.colour import rgb_to_y

    errors = test.errors(rgb_to_y(bicubic_upsample(test.lr, 4).clamp(0, 1)))[own]
    found = result.psnr_y[result.photographs.index(f"z_{name}")]
    assert (errors == 0).any()
    assert found == pytest.approx(decibels(errors.mean(), PEAK))
    assert (found == CAP) == (name in ("black", "white"))
    assert result.main.colour is not None
    assert all(np.isfinite(values).all() for values in vars(result.main.colour).values())


@pytest.mark.parametrize("name", FLAT)
def test_a_folder_with_a_flat_photograph_has_a_finite_mean(cli: Cli, project: Path, name: str) -> None:
    from metarestore.tasks.images import write_image

    folder = project / "set"
    folder.mkdir()
    write_image(folder / "ordinary.png", texture(3))
    write_image(folder / "special.png", FLAT[name])
    report = evaluate_folder(folder, 4, bicubic_restore(4))
    assert all(math.isfinite(leaf) for leaf in numbers(report.to_json()))
    exact = name in ("black", "white")
    assert (report.images["special"]["psnr_y"] == CAP) == exact
    code, out, _ = cli("evaluate", "--data", "set", "--bicubic", "--json", "all.json")
    assert code == 0
    assert ("restored exactly, counted as 100 dB: special" in out) == exact
    assert all(math.isfinite(leaf) for leaf in numbers(finite_json(project / "all.json")))


def test_figures_of_exact_restorations_are_drawn_without_a_warning(project: Path) -> None:
    bicubic = bicubic_result(opened(project))
    from dataclasses import replace

    arm = replace(bicubic, name="m", main=replace(bicubic.main, psnr_y=np.minimum(bicubic.main.psnr_y + 0.1, CAP)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study = StudyResult("flat", (bicubic, arm), (), 1.0)
        for figure in study_figures(study).values():
            svg(figure)
        assert not re.search(r"\b(inf|nan|undefined)\b", summary_text(study))


def test_compare_with_flat_test_photographs(cli: Cli, project: Path, mlflow_store: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="matplotlib|numpy")
        code, out, err = cli("compare", "experiments/flat.yaml", "--out", "run", "--json", "all.json")
    assert (code, err) == (0, "")
    shown = " ".join(out.split())
    assert "chosen − even" in shown, "weighted and uniform arms are compared, whatever they are called"
    assert "bicubic: z_black, z_white" in shown
    texts = [shown, (project / "run" / "results.md").read_text()]
    page = re.sub(
        r"(?s)<style>.*?</style>|<svg.*?</svg>|data:image[^\"]*", "", (project / "run/report.html").read_text()
    )
    for text in (*texts, page):
        assert not re.search(r"(?i)(?<![\w-])[+−-]?(inf|nan|undefined)(?![\w-])", text)
    for path in (project / "all.json", project / "run" / "results.json"):
        arms = finite_json(path)["arms"]
        assert list(arms) == ["bicubic", "even", "chosen"]
        assert all(leaf is not None and math.isfinite(leaf) for leaf in numbers(arms))
        assert {"psnr_y", "ssim_y", "psnr_rgb", "colour_error", "psnr_y_matched"} <= set(arms["even"])
    client = MlflowClient(tracking_uri=mlflow_store)
    runs = client.search_runs([client.get_experiment_by_name("flat").experiment_id])  # type: ignore[union-attr]
    values = {key: value for run in runs for key, value in run.data.metrics.items()}
    assert {"psnr_y", "psnr_rgb", "colour_error", "psnr_y_matched"} <= set(values)
    assert all(math.isfinite(value) and abs(value) < 1e6 for run in runs for value in run.data.metrics.values())


def test_an_arm_that_restores_nothing_ends_with_exit_code_2_and_its_results(cli: Cli, project: Path) -> None:
    spoilt = "adaptation={shots: 3, shot_size: 64, steps: 3, optimizer: sgd, lr: 1e30}"
    code, out, err = cli("train", "experiments/flat.yaml", "--out", "run", "--set", spoilt)
    assert code == 2
    assert "no arm could be evaluated" in err
    assert len(err.strip().splitlines()) == 1
    assert "NaN pixels, counted as 0 dB" in " ".join(out.split())
    arms = finite_json(project / "run" / "results.json")["arms"]
    assert set(arms["pretrain"]["psnr_y"]) == {0.0}
    assert all(leaf is not None and math.isfinite(leaf) for leaf in numbers(arms))


def test_a_grid_in_which_nothing_was_restored_ends_with_exit_code_2_and_its_report(cli: Cli, project: Path) -> None:
    spoilt, once = "adaptation={shots: 3, shot_size: 64, steps: 3, optimizer: sgd, lr: 1e30}", "grid={seed: [0]}"
    code, out, err = cli("ablate", "experiments/flat.yaml", "--out", "grid", "--set", spoilt, "--set", once)
    assert code == 2
    assert err.count("the adaptation diverged, so all restored pixels are NaN; lower adaptation.lr") == 2
    assert "0 of 2 cells finished, 2 failed" in " ".join(out.split())
    assert finite_json(project / "grid" / "results.json")["cells"] == []
    assert (project / "grid" / "report.html").is_file()


def bicubic_network(project: Path) -> Path:
    """Writes a network that restores as bicubic upscaling does: its last layer is 0."""
    workspace = opened(project)
    params = workspace.layout.unflatten(workspace.network(workspace.initial()).clone())
    flat = torch.cat([(0 * p if name.startswith("tail") else p).flatten() for name, p in params.items()])
    path = project / "bicubic.safetensors"
    save_model(path, workspace.experiment.model, 4, flat)
    return path


def search(project: Path, adaptation: str, rates: str) -> list[str]:
    return [
        "tune", "experiments/flat.yaml", "--out", "tuned", "--json", "all.json",
        "--set", f"training.init={bicubic_network(project)}",
        "--set", f"adaptation={adaptation}",
        "--set", f"search={{training.optimizer.lr: {{choice: {rates}}}}}",
        "--set", "tuning={trials: 2, searcher: grid, scheduler: none, report_every: 2}",
    ]  # fmt: skip


@pytest.mark.xdist_group("ray")
def test_a_perfect_trial_ranks_first(cli: Cli, project: Path) -> None:
    """All shots are flat, and the first trial stays at bicubic upscaling, which restores them exactly."""
    write_pairs(project, {f"{k}": np.full_like(FLAT["black"], level) for k, level in enumerate((0, 128, 255))})
    how = "{shots: 3, shot_size: 64, steps: 1, lr: 1e-9}"
    code, out, err = cli(*search(project, how, "[1e-9, 1e-1]"))
    assert (code, err) == (0, ""), out
    found = finite_json(project / "all.json")
    assert {trial["state"] for trial in found["trials"]} == {"finished"}
    assert found["best"]["values"] == {"training.optimizer.lr": 1e-9}
    assert found["best"]["history"] == [[2, CAP]]
    assert all(leaf is None or math.isfinite(leaf) for leaf in numbers(found))
    assert not re.search(r"\b(inf|nan)\b", (project / "tuned" / "results.md").read_text())


@pytest.mark.xdist_group("ray")
def test_a_search_in_which_nothing_was_measured_is_an_error(cli: Cli, project: Path) -> None:
    how = "{shots: 3, shot_size: 64, steps: 3, optimizer: sgd, lr: 1e30}"
    code, _, err = cli(*search(project, how, "[1e-9, 1e-8]"))
    assert code == 2
    assert "none of 2 trials could be evaluated" in err
    assert "the network diverged" in err
    assert len(err.strip().splitlines()) == 1
    assert (project / "tuned" / "report.html").is_file()
    assert [trial["state"] for trial in finite_json(project / "all.json")["trials"]] == ["failed", "failed"]
