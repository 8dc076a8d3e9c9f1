"""Adapting to one's own camera: time, ways, and the command from pairs to a network."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from metarestore.camera import Outcome, Request, open_pairs, selection
from metarestore.camera.project import CameraProject, Start
from metarestore.camera.selection import Candidate, best, candidate, folds, left_out_gains
from metarestore.camera.settings import ADAPTATION_STEPS, FITTED_STEPS, UNADAPTED, WAYS, Plan
from metarestore.cli.camera import ALIGNED, _aligned
from metarestore.config.adaptation import LoRASpec
from metarestore.config.model import FSRCNNSpec
from metarestore.errors import UserError
from metarestore.evaluation.results import ArmResult, Curve, StudyResult
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, network_file, save_model
from metarestore.models.parameters import initial_vector
from metarestore.models.restore import image_restorer
from metarestore.project import arm_experiments, read_experiment, read_task, resolve
from metarestore.tasks.photographs import read_image, write_image
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

Cli = Callable[..., tuple[int, str, str]]


class TestPlan:
    @pytest.mark.parametrize("seconds", [0.001, 0.03, 0.5, 10.0])
    @pytest.mark.parametrize("minutes", [0.5, 10, 60])
    @pytest.mark.parametrize("shots", [2, 5, 10])
    def test_it_fits_the_time_unless_the_fewest_steps_do_not(self, seconds: float, minutes: float, shots: int) -> None:
        plan = Plan.of(shots, minutes, seconds)
        adapting = sum(way.adapts is not None for way in WAYS)
        total = seconds * (1.7 * plan.fitted_steps + plan.steps * (adapting * plan.folds + 1))
        fewest, most = ADAPTATION_STEPS
        assert fewest <= plan.steps <= most
        assert 0 <= plan.fitted_steps <= FITTED_STEPS
        assert 2 <= plan.folds <= shots
        assert total <= 60 * minutes or plan.steps == fewest

    def test_more_time_is_more_steps(self) -> None:
        short, long = (Plan.of(5, minutes, 0.1) for minutes in (2, 10))
        assert long.steps > short.steps
        assert long.fitted_steps > short.fitted_steps


@pytest.mark.parametrize(("parameters", "rate"), [(12_644, 1e-3), (150_859, 3e-4), (433_448, 1e-4)])
def test_larger_networks_learn_more_slowly(parameters: int, rate: float) -> None:
    for way in WAYS:
        factor = 5 if isinstance(way.adapts, LoRASpec) else 1
        assert way.rate(parameters) == pytest.approx(factor * rate)


@pytest.mark.parametrize(("shots", "count"), [(2, 2), (5, 5), (5, 2), (9, 2)])
def test_every_shot_is_left_out_once(shots: int, count: int) -> None:
    groups = folds(shots, count)
    assert sorted(k for group in groups for k in group) == list(range(shots))
    assert all(len(group) < shots for group in groups)


def test_a_way_that_diverged_is_not_chosen() -> None:
    assert best({"a": np.array([0.1, 0.1]), "b": np.array([np.nan, 9.0])}) == "a"


class TestVerdict:
    def outcome(self, adapted: list[float], unadapted: list[float] | None = None) -> Outcome:
        photographs = tuple(f"p{k}" for k in range(len(adapted)))
        arms = {"bicubic": [0.0] * len(adapted), "unadapted": unadapted or [0.0] * len(adapted), "adapted": adapted}
        results = tuple(
            ArmResult(name, photographs, Curve(name, np.array([values]) + 30, np.zeros(len(values)), (0,)))
            for name, values in arms.items()
        )
        return Outcome(WAYS[1], {}, StudyResult("camera", results, (), 0.0), Path("network"))

    def test_a_clear_gain(self) -> None:
        verdict = self.outcome([0.5, 0.6, 0.4, 0.5]).verdict
        assert verdict.startswith("Worth using: +0.50 dB [")
        assert "over the unadapted network" in verdict

    def test_a_clear_loss(self) -> None:
        assert self.outcome([-0.5, -0.6, -0.4, -0.5]).verdict.startswith("Not worth using: -0.50 dB")

    def test_an_unclear_gain(self) -> None:
        assert self.outcome([0.9, -0.5, 0.4, -0.3]).verdict.startswith("Whether it is worth using cannot be told")

    def test_a_single_test_pair(self) -> None:
        assert "add pairs" in self.outcome([2.0]).verdict


@pytest.fixture
def pairs(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight pairs of a soft camera, in the current folder."""
    monkeypatch.chdir(tmp_path)
    sample = ("tasks", "sample", "blur_iso_wide", "--count", "8", "--out", "pairs", "--patch", "144")
    assert cli(*sample)[0] == 0
    return tmp_path / "pairs"


def exchange(pairs: Path, one: str, other: str) -> None:
    """Exchanges the LR images of two pairs."""
    a, b = pairs / f"lr/{one}.png", pairs / f"lr/{other}.png"
    a.rename(pairs / "kept.png")
    b.rename(a)
    (pairs / "kept.png").rename(b)


def test_from_pairs_to_a_network(cli: Cli, pairs: Path) -> None:
    exchange(pairs, "000006", "000007")
    code, out, _ = cli("adapt", "--pairs", "pairs", "--shots", "4", "--minutes", "0.2", "--out", "camera")
    assert code == 0
    assert "pair '000006'" in out
    assert "6 pairs at x4: 4 to learn from, 2 to test on" in out
    assert "over bicubic upscaling on 2 test pairs" in out
    camera = Path("camera")
    assert cli("check", str(camera))[0] == 0
    ways = read_experiment(camera / "experiments/ways.yaml")
    assert "adapted" in ways.arms
    left_out = json.loads((camera / "left_out.json").read_text())
    assert all(len(gains) == 4 for gains in left_out.values())
    chosen = max(left_out, key=lambda name: np.mean(left_out[name]))
    assert chosen != UNADAPTED.name  # the start has seen sharp photographs only
    network = load_model(camera / "adapted.safetensors")
    assert network.keeps_low_frequencies
    sample = camera / "samples/000004.png"
    lr = read_image(pairs / "lr/000004.png").pixels
    np.testing.assert_array_equal(read_image(sample).pixels, image_restorer(network)(lr))

    # Continuing repeats nothing, and ends with the same words.
    again = ("adapt", "--pairs", "pairs", "--shots", "4", "--minutes", "0.2", "--out", "camera", "--resume")
    code, resumed, _ = cli(*again)
    assert code == 0
    assert out.split("over bicubic upscaling")[0].splitlines()[-1] in resumed
    assert json.loads((camera / "left_out.json").read_text()) == left_out
    assert cli("restore", "pairs/lr/000005.png", "--model", "camera", "--out", "big.png")[0] == 0
    code, _, err = cli(*again, "--shots", "3", "--seed", "1")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "was started with other shots, seed; give a new --out" in err
    assert "support_pool: 4" in (camera / "tasks/camera.yaml").read_text()


def test_shifted_pairs_are_aligned_first(pairs: Path) -> None:
    for path in (pairs / "hr").iterdir():
        write_image(path, np.roll(read_image(path).pixels, (6, -4), axis=(0, 1)))
    out = pairs.parent / "camera"
    assert _aligned(pairs, out, 4) == ()
    found = open_pairs(out / ALIGNED, 5)
    assert found.left_out == ()
    start = Start(network_file("fsrcnn_pisr_x4"), FSRCNNSpec(), 12_644)
    project = CameraProject(Request(pairs, 5, None, 4, 1.0, None, out, 0), found, start)
    project.write_pairs()
    names = [pair.name for pair in found.files]
    assert all(sorted(path.stem for path in (out / "pairs" / side).iterdir()) == names for side in ("lr", "hr", "mask"))
    assert read_task(out / "tasks/camera.yaml").pairs is not None


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_all_ways_are_valid_at_every_scale(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: Literal[2, 3, 4]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--scale", str(scale), "--count", "4", "--out", "pairs", "--patch", str(48 * scale))
    assert cli("tasks", "sample", "bicubic", *options)[0] == 0
    spec, plan = FSRCNNSpec(d=4, s=2, m=0), Plan(2, 2, 2)
    save_model(tmp_path / "start.safetensors", spec, scale, initial_vector(build_model(spec, scale, 0)))
    request = Request(Path("pairs"), 3, None, scale, 1.0, None, tmp_path / "out", 0)
    project = CameraProject(request, open_pairs(request.pairs, 3), Start(tmp_path / "start.safetensors", spec, 100))
    project.write_pairs()
    project.fit()
    save_model(project.fitted_run / "model.safetensors", spec, scale, initial_vector(build_model(spec, scale, 1)))
    ways = project.write_experiment("ways", plan, {f"way{k}": way for k, way in enumerate(WAYS)}, "Ways.")
    arms = arm_experiments(read_experiment(ways))
    fitted = read_experiment(project.write_experiment("fitted", plan, {}, "Fitted."))
    for experiment in (*arms.values(), fitted):
        Workspace(resolve(experiment, project.root)).open_all()
    kept = [way.fitted or way.adapts is not None for way in WAYS]
    assert [arm.model.keep_low_frequencies == "both" for arm in arms.values()] == kept


def test_shots_that_are_left_out_are_not_learned_from(
    small_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(small_study(adaptation={"shots": 4, "steps": 1, "lr": 1e-3}))
    seen: list[Tensor] = []

    def record(model: object, flat: Tensor, lr: Tensor, *arguments: object, **options: object) -> Tensor:
        seen.append(lr)
        return flat

    monkeypatch.setattr(selection, "adapt", record)
    gains = left_out_gains(candidate(workspace), folds(4, 2), lambda: None)
    shots = workspace.for_model(workspace.shots).support_lr
    assert [torch.equal(lr, shots[others]) for lr, others in zip(seen, ([1, 3], [0, 2]), strict=True)] == [True, True]
    assert gains.shape == (4,)
    assert np.isfinite(gains).all()


def test_a_restoration_like_bicubic_upscaling_gains_nothing(small_study: Callable[..., Study]) -> None:
    workspace = Workspace(small_study(adaptation={"shots": 3, "steps": 0}))
    flat = workspace.initial()
    params = workspace.layout.unflatten(flat.clone())
    for name in ("tail.weight", "tail.bias"):  # the network adds nothing to bicubic upscaling then
        params[name] = torch.zeros_like(params[name])
    zero = Candidate(workspace, workspace.layout.flatten(params), None)
    np.testing.assert_allclose(left_out_gains(zero, folds(3, 3), lambda: None), 0, atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--pairs", "nowhere", "--out", "camera"), "nowhere.*no such folder"),
        (("--pairs", "pairs", "--out", "pairs"), "pairs is not empty; give a new folder"),
        (("--pairs", "pairs", "--out", "camera", "--resume"), "nothing to continue in camera"),
        (("--pairs", "pairs", "--out", "camera", "--model", "zero_shot_maml_x2"), "for scale 2, .* for scale 4"),
        (("--pairs", "pairs", "--out", "camera", "--model", "kdsr_tiny_pairs"), "is a teacher"),
        (("--pairs", "pairs", "--out", "camera", "--model", "nothing"), "nothing.*no such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(cli: Cli, pairs: Path, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = cli("adapt", *arguments)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert re.search(words, err)


def test_useless_pairs_are_named(pairs: Path) -> None:
    for k in range(0, 8, 2):
        exchange(pairs, f"{k:06}", f"{k + 1:06}")
    with pytest.raises(UserError) as caught:
        open_pairs(pairs, 5)
    assert "0 of 8 pairs are usable, at least 3 are needed; add pairs" in caught.value.problems[-1]
    assert "shows what HR of" in caught.value.problems[0]


def test_pairs_of_different_scales(pairs: Path) -> None:
    shutil.copy(pairs / "hr/000001.png", pairs / "lr/000001.png")
    with pytest.raises(UserError):
        open_pairs(pairs, 5)


def test_at_least_one_pair_is_tested_on(pairs: Path) -> None:
    found = open_pairs(pairs, 100)
    assert (found.shots, found.tested) == (7, 1)
    assert found.side % 32 == 0
