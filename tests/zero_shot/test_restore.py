"""Zero-shot restoration is adaptation to internal pairs of one image, and never worse than what it starts from."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from metarestore.config.adaptation import AdaptationOptimizerSpec
from metarestore.degradations import bicubic_downsample, bicubic_upsample
from metarestore.fitting.kernel import synthesise
from metarestore.learners.adaptation import adapt
from metarestore.learners.inner_rule import InnerRule
from metarestore.models.network import seeded
from metarestore.models.parameters import Layout, initial_vector
from metarestore.models.refiner import Refiner
from metarestore.tasks.embedded import embedded_path
from metarestore.zero_shot.blur import Blur, with_colour_of
from metarestore.zero_shot.options import LossWeights, Stage, ZeroShotOptions, default_options
from metarestore.zero_shot.pairs import cut, draw_crops, internal_pairs
from metarestore.zero_shot.restore import restore_zero_shot
from metarestore.zero_shot.shapes import bicubic_kernel, gaussian_of

WIDE = np.array([[1.5, 0.4], [0.4, 3.0]])
RULE = InnerRule("l1", 0.0)
SHORT = ZeroShotOptions(teacher=Stage(3, 1e-3, 0.7), student=Stage(2, 3e-4, 0.3), patch=32, batch=1, preprocessing=32)


def image(height, width, seed=0, channels=3):
    smooth = torch.rand(1, channels, max(height // 4, 1), max(width // 4, 1), generator=generator(seed))
    return torch.nn.functional.interpolate(smooth, size=(height, width), mode="bicubic")[0].clamp(0, 1)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def blur(scale=2):
    return Blur(gaussian_of(WIDE * scale**2 / 4, scale), scale)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_degrading_is_blurring_and_shrinking(scale):
    hr = image(12 * scale, 10 * scale).double()
    expected = synthesise(hr.permute(1, 2, 0).numpy(), blur(scale).kernel.astype(np.float64), scale)
    found = blur(scale).degrade(hr[None])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_degrading_by_the_bicubic_kernel_is_bicubic_downsampling(scale):
    hr = image(16 * scale, 16 * scale)[None]
    inner = (..., slice(3, -3), slice(3, -3))
    expected = bicubic_downsample(hr, scale)[inner]
    torch.testing.assert_close(Blur(bicubic_kernel(scale), scale).degrade(hr)[inner], expected, atol=1e-5, rtol=0)


def test_a_kernel_off_the_grid_is_refused():
    with pytest.raises(ValueError, match="a kernel of 5x5 has no centre at scale 2"):
        Blur(np.ones((5, 5), np.float32) / 25, 2)


def test_back_projection_brings_the_degraded_image_to_lr():
    lr = blur().degrade(image(64, 64)[None])
    gaps = [float((blur().degrade(blur().sharpened(lr, n)) - lr).abs().mean()) for n in (0, 2, 10)]
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]


def test_the_colour_is_that_of_bicubic_enlarging():
    bicubic = 0.25 + 0.5 * image(64, 64)[None]
    tinted = (bicubic + torch.tensor([0.05, -0.04, 0.02])[:, None, None]).clamp(0, 1)
    kept = with_colour_of(tinted, bicubic, 2)
    assert float((kept - bicubic).mean((-1, -2)).abs().max()) < 0.1 / 255


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_new_network_changes_nothing_and_has_enough_parameters(scale):
    model = seeded(Refiner, 0, scale=scale)
    images = image(8 * scale, 6 * scale)[None]
    assert torch.equal(model(images), images)
    assert Layout.of(model).size > 100_000
    assert Layout.of(model).size > Layout.of(seeded(Refiner, 0, scale=scale, preprocessing=0)).size > 100_000


def test_no_output_pixel_sees_farther_than_the_reach():
    model = seeded(Refiner, 0, scale=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1, generator=generator(1))
    side = 2 * (2 * model.reach + 3)
    images = image(side, side)[None].requires_grad_()
    middle = side // 2
    model(images)[..., middle, middle].sum().backward()
    seen = images.grad.abs().sum((0, 1)).nonzero()
    assert int((seen - middle).abs().max()) <= 2 * model.reach + 1
    assert int((seen - middle).abs().max()) > 2 * (model.reach - 2)


def test_draws_name_their_step_and_lie_inside():
    pairs = internal_pairs(image(50, 37)[None], blur(), back_projections=1, noise=0.0, patch=32, batch=64, seed=3)
    assert pairs.crops(5) == pairs.crops(5) != pairs.crops(6)
    assert {crop.mirrored for crop in pairs.crops(0)} == {True, False}
    assert all(crop.top % 2 == 0 and crop.top <= 50 - 32 and crop.left <= 36 - 32 for crop in pairs.crops(0))
    assert pairs.inputs.shape == pairs.targets.shape == (1, 3, 50, 36)
    assert pairs(0)[0].shape == (64, 3, 32, 32)


def test_only_symmetric_kernels_are_rotated():
    skewed = np.zeros((4, 4), np.float32)
    skewed[0, 0], skewed[2, 2], skewed[1, 2] = 0.5, 0.3, 0.2
    options = {"back_projections": 0, "noise": 0.0, "patch": 16, "batch": 32, "seed": 0}
    assert not internal_pairs(image(48, 48)[None], Blur(skewed, 2), **options).mirror
    assert internal_pairs(image(48, 48)[None], blur(), **options).mirror


def test_a_rotated_pair_is_the_pair_of_the_rotated_photograph():
    options = {"back_projections": 2, "noise": 0.0, "patch": 48, "batch": 1, "seed": 0}
    photograph = image(48, 48)[None]
    pair, rotated = (internal_pairs(one, blur(), **options) for one in (photograph, photograph.flip(-2, -1)))
    torch.testing.assert_close(pair.inputs.flip(-2, -1), rotated.inputs, atol=1e-5, rtol=0)


def test_crops_of_lr_and_hr_show_the_same_place():
    lr = torch.arange(100.0).reshape(1, 1, 10, 10)
    hr = lr.repeat_interleave(2, -1).repeat_interleave(2, -2)
    crops = draw_crops(np.random.default_rng(0), (10, 10), 4, 8, mirror=True)
    torch.testing.assert_close(cut(hr, crops, 4, 2)[..., ::2, ::2], cut(lr, crops, 4))


@pytest.mark.parametrize("preprocessing", [0, 8])
def test_adaptation_is_the_loop_written_by_hand_bit_for_bit(preprocessing):
    model = seeded(Refiner, 1, scale=2, features=8, layers=3, preprocessing=preprocessing)
    pairs = internal_pairs(image(48, 48)[None], blur(), back_projections=2, noise=0.01, patch=32, batch=2, seed=7)
    options = AdaptationOptimizerSpec(optimizer="adam", steps=4, lr=1e-3, schedule="cosine")
    start = initial_vector(model)
    adapted = adapt(model, start, pairs.inputs, pairs.targets, options, rule=RULE, pairs=pairs)

    flat = start.clone().requires_grad_()
    adam = torch.optim.Adam([flat], lr=1e-3)
    for step in range(4):
        inputs, targets = pairs(step)
        adam.zero_grad(set_to_none=True)
        nn.functional.l1_loss(functional_call(model, Layout.of(model).unflatten(flat), inputs), targets).backward()
        adam.param_groups[0]["lr"] = 1e-3 * (1 + math.cos(math.pi * step / 4)) / 2
        adam.step()
    assert torch.equal(adapted, flat.detach())
    assert not torch.equal(adapted, start)


def test_no_steps_return_the_start_and_terms_and_progress_count():
    model = seeded(Refiner, 1, scale=2, features=8, layers=3, preprocessing=0)
    pairs = internal_pairs(image(48, 48)[None], blur(), back_projections=2, noise=0.0, patch=32, batch=1, seed=0)
    options = AdaptationOptimizerSpec(steps=5, lr=1e-3)
    start, taken = initial_vector(model), []
    none = options.model_copy(update={"steps": 0})
    assert torch.equal(adapt(model, start, pairs.inputs, pairs.targets, none, rule=RULE), start)
    adapt(
        model,
        start,
        pairs.inputs,
        pairs.targets,
        options,
        rule=RULE,
        pairs=pairs,
        progress=lambda step: step / 3,
        observe=lambda step, _: taken.append(step),
    )
    assert taken == [0, 1, 2, 3]
    plain = adapt(model, start, pairs.inputs, pairs.targets, options, rule=RULE, pairs=pairs)
    penalised = adapt(
        model,
        start,
        pairs.inputs,
        pairs.targets,
        options,
        rule=RULE,
        pairs=pairs,
        terms=lambda params, *_: 10 * sum(p.square().sum() for p in params.values()),
    )
    assert float(penalised.square().sum()) < float(plain.square().sum())


def test_restoring_is_deterministic_and_depends_on_the_seed():
    lr = blur().degrade(image(96, 128)[None])[0]
    first, second = (restore_zero_shot(lr, 2, SHORT) for _ in range(2))
    other = restore_zero_shot(lr, 2, replace(SHORT, seed=1))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.parameters, second.parameters)
    assert not torch.equal(first.parameters, other.parameters)
    assert first.image.shape == (3, 96, 128)
    assert first.steps == {"teacher": 3, "student": 2}


@pytest.mark.parametrize("term", ["preprocessing", "consistency", "distillation", "pseudo_label"])
def test_every_term_reaches_the_weights(term):
    lr = blur().degrade(image(128, 128)[None])[0]
    options = replace(SHORT, kernel=blur().kernel, student=Stage(3, 1e-3, 0.3))
    without = restore_zero_shot(lr, 2, replace(options, losses=LossWeights(0.0)))
    weights = replace(LossWeights(0.0), **{term: 1.0})
    assert not torch.equal(restore_zero_shot(lr, 2, replace(options, losses=weights)).parameters, without.parameters)


def test_consistency_has_no_effect_without_confidence():
    lr = 0.5 + 0.1 * torch.randn(3, 96, 96, generator=generator(0)).clamp(-4, 4)
    plain, consistent = (
        restore_zero_shot(lr, 2, replace(SHORT, losses=LossWeights(0.5, consistency))) for consistency in (0.0, 1.0)
    )
    assert consistent.kernel.confidence == 0
    assert torch.equal(plain.parameters, consistent.parameters)


class Clock:
    """A clock that a step takes one second of."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def tick(self, *_):
        self.now += 1.0


@pytest.mark.parametrize("budget", [10, 40])
def test_a_budget_is_kept_and_shared_by_both_stages(budget):
    clock = Clock()
    options = replace(SHORT, teacher=Stage(1000, 1e-3, 0.7), student=Stage(1000, 3e-4, 0.3), budget=budget, patch=16)
    found = restore_zero_shot(blur().degrade(image(64, 64)[None])[0], 2, options, report=clock.tick, clock=clock)
    assert found.seconds == pytest.approx(budget, rel=0.1, abs=2)
    assert found.steps["teacher"] == pytest.approx(0.7 * budget, abs=2)
    assert found.steps["student"] > 0.1 * budget


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [((1000, 0.7), (0, 0.3), (30, None)), ((0, 0.7), (1000, 0.3), (0, 30)), ((1000, 1.0), (1000, 0.5), (20, 10))],
)
def test_the_whole_budget_is_that_of_the_stages_with_steps(teacher, student, expected):
    clock = Clock()
    stages = {"teacher": Stage(teacher[0], 1e-3, teacher[1]), "student": Stage(student[0], 1e-3, student[1])}
    options = replace(SHORT, **stages, budget=30, patch=16)
    found = restore_zero_shot(blur().degrade(image(64, 64)[None])[0], 2, options, report=clock.tick, clock=clock)
    assert found.steps["teacher"] == pytest.approx(expected[0], abs=2)
    assert found.steps.get("student") == (expected[1] if expected[1] is None else pytest.approx(expected[1], abs=2))


def test_progress_is_reported_after_every_step():
    seen = []
    restore_zero_shot(image(32, 32), 2, SHORT, report=lambda *step: seen.append(step))
    assert [(name, step) for name, step, _ in seen] == [
        *(("teacher", step) for step in range(4)),
        *(("student", step) for step in range(3)),
    ]
    assert seen[3][2] == 1


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (1, 40), (17, 300), (33, 47)])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_images_of_any_size_and_colour_are_restored(size, scale):
    for channels in (1, 3):
        found = restore_zero_shot(image(*size, channels=channels), scale, SHORT)
        assert found.image.shape == (3, scale * size[0], scale * size[1])
        assert bool(torch.isfinite(found.image).all())
        assert 0 <= float(found.image.min()) <= float(found.image.max()) <= 1
        assert (found.parameters is None) == (min(size) < 16) == any("smaller than 16" in s for s in found.skipped)


def test_without_steps_the_photograph_is_back_projected():
    options = replace(default_options(4), kernel=blur(4).kernel, keep_colour=False)
    found = restore_zero_shot(image(20, 24), 4, options)
    projections = options.back_projections + options.final_projections
    assert torch.equal(found.image, blur(4).sharpened(image(20, 24)[None], projections)[0])
    assert (found.steps, found.parameters, found.skipped) == (
        {},
        None,
        ("learning: no steps; it is back-projected only",),
    )
    assert default_options(2) == ZeroShotOptions()


def test_a_flat_image_stays_flat():
    found = restore_zero_shot(torch.full((3, 48, 48), 0.3), 2, SHORT)
    torch.testing.assert_close(found.image, torch.full((3, 96, 96), 0.3), atol=0.5 / 255, rtol=0)
    assert found.parameters is None
    assert all("no contrast" in reason for reason in found.skipped)


def test_the_colour_of_each_channel_is_kept():
    lr = blur().degrade(image(128, 128, seed=4)[None])[0]
    found = restore_zero_shot(lr, 2, replace(SHORT, teacher=Stage(20, 1e-2, 0.7)))
    bicubic = bicubic_upsample(lr[None], 2)[0].clamp(0, 1)
    assert float((found.image - bicubic).mean((1, 2)).abs().max()) < 0.5 / 255


def test_strips_leave_no_seam(monkeypatch):
    lr = blur().degrade(image(160, 64)[None])[0]
    whole = restore_zero_shot(lr, 2, SHORT)
    monkeypatch.setattr("metarestore.zero_shot.restore._STRIP", 32 * 7)
    torch.testing.assert_close(restore_zero_shot(lr, 2, SHORT).image, whole.image, atol=1e-5, rtol=0)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        restore_zero_shot(torch.full((3, 32, 32), math.nan), 2)
    with pytest.raises(ValueError, match="has no centre at scale 2"):
        restore_zero_shot(image(32, 32), 2, replace(SHORT, kernel=np.ones((3, 3), np.float32) / 9))
    with pytest.raises(ValueError, match="start must have the shape"):
        restore_zero_shot(image(32, 32), 2, replace(SHORT, start=torch.zeros(5)))


def test_learning_reduces_the_error_on_internal_pairs():
    pixels = cv2.imread(str(embedded_path("coffee")), cv2.IMREAD_COLOR)[100:356, 150:406, ::-1]
    lr = blur().degrade(torch.from_numpy(pixels / 255).permute(2, 0, 1)[None].float())[0]
    options = replace(SHORT, kernel=blur().kernel, teacher=Stage(50, 1e-3, 0.7), patch=48, batch=2)
    found = restore_zero_shot(lr, 2, options)
    pairs = internal_pairs(
        lr[None], blur(), back_projections=options.back_projections, noise=0.0, patch=48, batch=1, seed=0
    )
    model = Refiner(2)
    with torch.no_grad():
        learned = functional_call(model, Layout.of(model).unflatten(found.parameters), (pairs.inputs,))
    errors = [float((images - pairs.targets).abs().mean()) for images in (pairs.inputs, learned)]
    assert errors[1] < 0.98 * errors[0]
