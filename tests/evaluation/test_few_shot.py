"""Few-shot figures: the field's metric on every test crop, after every adaptation step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from metarestore.config.adaptation import AdaptationOptimizerSpec
from metarestore.degradations.resample import bicubic_downsample, bicubic_upsample
from metarestore.evaluation.examples import make_examples
from metarestore.evaluation.few_shot import (
    AdaptationJob,
    TestSet,
    bicubic_result,
    evaluation_luma,
    restored_crops,
    unique_photographs,
)
from metarestore.evaluation.metrics import luma, psnr, psnr_y, ssim
from metarestore.evaluation.statistics import cluster_means
from metarestore.models.build import restore_rgb
from metarestore.models.colour import rgb_to_y
from metarestore.models.self_ensemble import self_ensemble
from metarestore.project import Project
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace


def eight_bit(images: torch.Tensor) -> np.ndarray:
    """(N, 3, H, W) in [0, 1] to uint8 (N, H, W, 3)."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("gray", [False, True])
def test_luma_is_that_of_the_metrics(gray: bool) -> None:
    """On 8-bit images both ways to the luma agree; a gray image is its own."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3), np.uint8)
    if gray:
        pixels = np.repeat(pixels[..., :1], 3, axis=3)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float64) / 255
    found = evaluation_luma(rgb_to_y(images), np.asarray([gray, gray]))
    for k in range(2):
        np.testing.assert_allclose(found[k], luma(pixels[k], gray=gray), atol=1e-9)
        if gray:
            np.testing.assert_allclose(found[k], pixels[k, ..., 0], atol=1e-9)


def test_bicubic_figures_are_those_of_the_metrics_averaged_by_photograph(workspace: Workspace) -> None:
    """The same figures from 8-bit RGB images, crop by crop; rounding RGB first moves them by hundredths of a dB."""
    task, draw = workspace.target_task, workspace.target_draw
    restored, hr = eight_bit(bicubic_upsample(task.query_lr, 4)), eight_bit(task.query_hr)
    gray = [name == "camera" for name in draw.photographs]
    crops = [psnr_y(a, b, 4, gray=g) for a, b, g in zip(restored, hr, gray, strict=True)]
    # SSIM feels the rounding of RGB, so its reference takes the luma of what was not rounded.
    exact = evaluation_luma(rgb_to_y(bicubic_upsample(task.query_lr, 4)), np.asarray(gray))
    truth = [luma(image, gray=g) for image, g in zip(hr, gray, strict=True)]
    similar = [ssim(a[4:-4, 4:-4], b[4:-4, 4:-4]) for a, b in zip(exact, truth, strict=True)]
    result = bicubic_result(workspace)
    assert result.photographs == unique_photographs(workspace) == ("astronaut", "camera", "chelsea", "coffee", "rocket")
    for k, name in enumerate(result.photographs):
        own = [i for i, photograph in enumerate(draw.photographs) if photograph == name]
        assert result.psnr_y[k] == pytest.approx(np.mean([crops[i] for i in own]), abs=0.03)
        assert result.main.ssim_y[k] == pytest.approx(np.mean([similar[i] for i in own]), abs=1e-3)


@pytest.mark.parametrize("channels", ["y", "rgb"])
def test_curve_starts_at_the_network_and_ends_at_the_adapted_one(
    small_study: Callable[..., Study], channels: str
) -> None:
    workspace = Workspace(small_study(model={"kind": "fsrcnn", "d": 8, "s": 4, "m": 1, "channels": channels}))
    start = workspace.initial()
    how = AdaptationOptimizerSpec(optimizer="adam", steps=3, lr=1e-3)
    found = AdaptationJob(how).run(workspace, start)
    assert found.curve.psnr_y.shape == (4, 5)
    for step, flat in ((0, start), (3, found.flat)):
        workspace.model.load_state_dict(workspace.layout.unflatten(flat))
        task = workspace.target_task
        restored = restore_rgb(workspace.model, task.query_lr, scale=4, channels=workspace.model.channels)
        gray = np.asarray([workspace.target.is_gray(name) for name in workspace.target_draw.photographs])
        ours, truth = (evaluation_luma(rgb_to_y(images), gray) for images in (restored, task.query_hr))
        expected = np.mean([psnr(a[4:-4, 4:-4], b[4:-4, 4:-4]) for a, b in zip(ours, truth, strict=True)])
        assert found.curve.psnr_y[step].mean() == pytest.approx(expected, abs=0.02)
    assert not np.array_equal(found.curve.psnr_y[0], found.curve.psnr_y[-1])


def test_what_estimators_see_is_the_aligned_middle_of_the_shots(small_study: Callable[..., Study]) -> None:
    bicubic = Project(Path(__file__).parents[2]).task("bicubic")
    study = dataclasses.replace(small_study(adaptation={"shots": 2, "shot_size": 320}), target=bicubic)
    workspace = Workspace(study)
    lr, hr = workspace.seen_shots
    assert (lr.shape, hr.shape) == ((2, 3, 64, 64), (2, 3, 256, 256))
    inner = (..., slice(8, -8), slice(8, -8))
    torch.testing.assert_close(bicubic_downsample(hr, 4)[inner], lr[inner], atol=0.003, rtol=0)
    small = Workspace(small_study())
    assert torch.equal(small.seen_shots[0], small.shots.support_lr)


def test_measuring_less_often_changes_no_figure(small_study: Callable[..., Study]) -> None:
    how = AdaptationOptimizerSpec(steps=5, lr=1e-3)
    often, seldom = (
        AdaptationJob(how).run(w, w.initial()).curve
        for w in (Workspace(small_study()), Workspace(small_study(evaluation={"every": 3})))
    )
    assert often.steps == (0, 1, 2, 3, 4, 5)
    assert seldom.steps == (0, 3, 5)
    np.testing.assert_array_equal(seldom.psnr_y, often.psnr_y[list(seldom.steps)])


def test_a_self_ensemble_is_measured_and_adapts_alike(small_study: Callable[..., Study]) -> None:
    how, found = AdaptationOptimizerSpec(steps=2, lr=1e-3), {}
    for ensemble in (False, True):
        workspace = Workspace(small_study(evaluation={"self_ensemble": ensemble}))
        found[ensemble] = AdaptationJob(how).run(workspace, workspace.initial())
    assert torch.equal(found[True].flat, found[False].flat)
    workspace.model.load_state_dict(workspace.layout.unflatten(found[True].flat))
    test = TestSet.of(workspace)
    with torch.no_grad():
        expected = test.psnr(self_ensemble(workspace.model)(rgb_to_y(test.lr)))
    measured = found[True].curve.psnr_y[-1]
    np.testing.assert_allclose(measured, cluster_means(expected[None], workspace.target_draw.photographs)[0])
    assert not np.array_equal(measured, found[False].curve.psnr_y[-1])
    assert [found[e].curve.label for e in (False, True)] == ["adam 0.001", "adam 0.001, self-ensemble"]
    shown = restore_rgb(self_ensemble(workspace.model), test.lr, scale=4, channels="y")
    assert torch.equal(restored_crops(workspace, found[True].flat), shown)


def test_adaptation_never_sees_the_test_crops(workspace: Workspace) -> None:
    how = AdaptationOptimizerSpec(steps=2)
    before = AdaptationJob(how).run(workspace, workspace.initial()).flat
    task = workspace.target_task
    workspace.target_task = task._replace(query_lr=task.query_lr.flip(0), query_hr=1 - task.query_hr)
    assert torch.equal(AdaptationJob(how).run(workspace, workspace.initial()).flat, before)


def test_examples_show_one_crop_of_each_photograph(workspace: Workspace) -> None:
    examples = make_examples(workspace, {"ours": (workspace, workspace.initial())}, count=2)
    assert [example.caption.partition(":")[0] for example in examples] == ["astronaut", "camera"]
    for example in examples:
        assert list(example.images) == ["LR", "bicubic", "ours"]
        assert {image.shape for image in (example.hr, *example.images.values())} == {(64, 64, 3)}
        assert set(example.psnr_y) == {"bicubic", "ours"}
    np.testing.assert_array_equal(examples[0].hr, eight_bit(workspace.target_task.query_hr)[0])
