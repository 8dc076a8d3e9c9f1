"""A kernel estimated from one image is valid, centred and close to the true one; where it cannot be, it says so."""

import cv2
import numpy as np
import pytest
import torch

from metarestore.degradations import Pipeline, bicubic_downsample, bicubic_upsample, replay
from metarestore.degradations.kernels import mass_centre, motion_kernel
from metarestore.fitting.kernel import synthesise
from metarestore.tasks.embedded import embedded_path
from metarestore.zero_shot.kernel import LEAST_CONFIDENCE, estimate_kernel, grey_levels
from metarestore.zero_shot.patches import blur_of, refined_kernel
from metarestore.zero_shot.shapes import bicubic_kernel, cleaned, gaussian_of, relative_error
from metarestore.zero_shot.spectra import fit_width, mean_power, noise_level

SCALES = (2, 3, 4)
CASES = {"long": np.array([[1.3, 0.6], [0.6, 4.0]]), "round": np.array([[2.2, 0.0], [0.0, 2.2]])}


def photograph(name, side=384):
    pixels = cv2.imread(str(embedded_path(name)), cv2.IMREAD_COLOR)[:side, :side, ::-1]
    return np.ascontiguousarray(pixels, dtype=np.float64)


def blurred(name, covariance, scale=2, side=384):
    hr = photograph(name, side)
    hr = hr[: len(hr) // scale * scale, : hr.shape[1] // scale * scale]
    lr = synthesise(hr, gaussian_of(covariance, scale).astype(np.float64), scale)
    return torch.from_numpy(np.round(lr).clip(0, 255) / 255).permute(2, 0, 1).float()


def covariance_of(kernel):
    offsets = np.arange(len(kernel)) - (len(kernel) - 1) / 2
    places = np.stack(np.meshgrid(offsets, offsets, indexing="ij"))
    return np.einsum("ij,aij,bij->ab", kernel, places, places)


def is_valid(kernel, scale):
    middle = (len(kernel) - 1) / 2
    assert kernel.shape[0] == kernel.shape[1]
    assert len(kernel) % 2 == (scale % 2)
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert mass_centre(kernel) == pytest.approx((middle, middle), abs=2e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_the_bicubic_kernel_downsamples_as_bicubic_does(scale):
    hr = np.random.default_rng(0).uniform(0, 1, (12 * scale, 12 * scale, 3))
    expected = bicubic_downsample(torch.from_numpy(hr).permute(2, 0, 1)[None], scale)[0].permute(1, 2, 0).numpy()
    found = synthesise(hr, bicubic_kernel(scale).astype(np.float64), scale)
    np.testing.assert_allclose(found[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(9, 9), (8, 8), (7, 10)])
def test_a_cleaned_kernel_is_centred_at_every_scale_and_size(scale, shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    raw = np.exp(-((y - 2.3) ** 2 + (x - 4.1) ** 2) / 3) - 0.01
    is_valid(cleaned(raw, scale), scale)


@pytest.mark.parametrize("scale", SCALES)
def test_a_cleaned_kernel_keeps_lr_aligned_with_hr(scale):
    """Slow waves, blurred and shrunk, are where the bicubic resampling has them."""
    y, x = np.mgrid[: 48 * scale, : 48 * scale] / scale
    hr = np.stack([np.sin(0.31 * y + 0.2), np.sin(0.27 * x + 1), np.sin(0.2 * x + 0.2 * y)], axis=-1)
    raw = np.pad(np.outer([1, 3, 2], [2, 2, 1, 1]), ((3, 0), (0, 5)))
    lr = synthesise(hr, cleaned(raw, scale).astype(np.float64), scale)
    bicubic = bicubic_downsample(torch.from_numpy(hr).permute(2, 0, 1)[None], scale)[0].permute(1, 2, 0).numpy()
    inner = (slice(8, -8), slice(8, -8))
    for channel in range(3):
        a, b = lr[inner][..., channel], bicubic[inner][..., channel]
        gain = (a * b).sum() / (b * b).sum()
        assert np.abs(a - gain * b).max() < 0.01  # half an HR pixel would be more than 0.05


def test_cleaning_removes_negative_and_small_weights_and_islands():
    raw = np.zeros((15, 15))
    raw[5:8, 5:8] = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    noisy = raw.copy()
    noisy[2, 12], noisy[6, 8], noisy[0, 0] = 1.0, 0.1, -2.0
    np.testing.assert_allclose(cleaned(noisy, 3), cleaned(raw, 3), atol=1e-6)


def test_a_kernel_without_a_positive_weight_is_refused():
    with pytest.raises(ValueError, match="needs a positive weight"):
        cleaned(-np.ones((3, 3)), 2)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("case", CASES)
def test_a_gaussian_has_its_covariance(scale, case):
    kernel = gaussian_of(CASES[case] * 2, scale)
    is_valid(kernel, scale)
    np.testing.assert_allclose(covariance_of(kernel.astype(np.float64)), CASES[case] * 2, rtol=0.03, atol=0.02)


def test_the_error_is_0_of_the_kernel_itself_and_1_of_nothing_alike():
    kernel = gaussian_of(CASES["long"], 2)
    assert relative_error(np.pad(kernel, 3), kernel) == 0
    far = np.pad(kernel, ((0, 40), (0, 40)))
    far = np.roll(far, 38, axis=(0, 1))
    assert relative_error(far, kernel) == pytest.approx(np.sqrt(2), rel=0.01)
    with pytest.raises(ValueError, match="different centres"):
        relative_error(kernel, gaussian_of(CASES["long"], 3))


def test_white_noise_has_its_variance_at_every_frequency():
    noise = torch.from_numpy(np.random.default_rng(1).normal(100, 4, (256, 256))).float()
    power = mean_power(noise)
    assert power[2:, 2:].mean() == pytest.approx(16, rel=0.02)
    assert noise_level(noise.numpy().astype(np.float64)) == pytest.approx(4, rel=0.2)


def test_the_width_of_a_blurred_spectrum_without_scale_is_exact():
    """A spectrum that falls by a power of the frequency, times that of a Gaussian."""
    side, covariance = 64, np.array([[0.5, 0.2], [0.2, 0.9]])
    line = (np.arange(side) - side // 2) * 2 * np.pi / side
    waves = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1)
    radius = np.hypot(waves[..., 0], waves[..., 1])
    quadratic = np.einsum("...i,ij,...j->...", waves, covariance, waves)
    fit = fit_width(1e6 * np.maximum(radius, 0.05) ** -2.0 * np.exp(-quadratic), 0.0)
    np.testing.assert_allclose(fit.covariance, covariance, atol=0.04)
    assert fit.signal > 0.9


def test_noise_does_not_make_a_blur_look_narrower():
    luma = grey_levels(blurred("coffee", CASES["round"]))
    noisy = luma + torch.from_numpy(np.random.default_rng(3).normal(0, 5, tuple(luma.shape))).float()
    clean, aware, unaware = (
        fit_width(mean_power(image), noise).width for image, noise in ((luma, 0.0), (noisy, 5.0), (noisy, 0.0))
    )
    assert abs(aware - clean) < 0.1 < clean - unaware


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["coffee", "astronaut"])
def test_an_estimate_is_valid_and_far_better_than_the_default(name, case, scale):
    covariance = CASES[case] * scale**2 / 4
    truth = gaussian_of(covariance, scale)
    found = estimate_kernel(blurred(name, covariance, scale), scale)
    is_valid(found.kernel, scale)
    assert found.source == "spectra"
    assert found.confidence > LEAST_CONFIDENCE
    assert relative_error(found.kernel, truth) < 0.5 * relative_error(bicubic_kernel(scale), truth)


def test_the_direction_of_a_blur_is_estimated():
    turned = np.array([[1.5, -1.2], [-1.2, 3.5]])
    found = estimate_kernel(blurred("coffee", turned), 2).diagnostics
    assert found["mixed"] == pytest.approx(-1.2, abs=0.5)
    assert found["columns"] > found["rows"] + 1


def test_an_estimate_is_the_same_each_time_and_with_all_channels_alike():
    lr = blurred("coffee", CASES["long"])
    first, second = estimate_kernel(lr, 2), estimate_kernel(lr, 2)
    assert np.array_equal(first.kernel, second.kernel)
    assert first.confidence == second.confidence
    luma = grey_levels(lr)[None] / 255
    assert relative_error(estimate_kernel(luma, 2).kernel, first.kernel) < 1e-3


def test_an_estimate_does_not_depend_on_where_the_image_begins():
    lr = blurred("coffee", CASES["round"])
    whole, moved = estimate_kernel(lr[:, :-3, :-3], 2), estimate_kernel(lr[:, 3:, 3:], 2)
    assert relative_error(moved.kernel, whole.kernel) < 0.1


def test_a_turned_image_has_the_turned_kernel():
    lr = blurred("coffee", CASES["long"])
    turned = estimate_kernel(lr.transpose(-1, -2), 2)
    assert relative_error(turned.kernel.T, estimate_kernel(lr, 2).kernel) < 0.05


def test_bicubic_lr_keeps_the_bicubic_kernel_and_says_why():
    hr = torch.from_numpy(photograph("coffee") / 255).permute(2, 0, 1)[None].float()
    found = estimate_kernel(bicubic_downsample(hr, 2)[0].clamp(0, 1), 2)
    assert found.source == "bicubic"
    assert "bicubic" in found.reason
    np.testing.assert_array_equal(found.kernel, bicubic_kernel(2))


UNSUITABLE = {
    "flat": (torch.full((3, 96, 96), 0.4), "no contrast"),
    "tiny": (torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(0)), "smaller than"),
    "one pixel": (torch.zeros(1, 1, 1), "smaller than"),
    "narrow": (torch.rand(3, 400, 20, generator=torch.Generator().manual_seed(0)), "smaller than"),
    "noise": (0.5 + 0.1 * torch.randn(3, 96, 96, generator=torch.Generator().manual_seed(0)), "noise"),
}


@pytest.mark.parametrize("case", UNSUITABLE)
def test_what_shows_no_blur_gets_the_bicubic_kernel_without_confidence(case):
    image, reason = UNSUITABLE[case]
    found = estimate_kernel(image, 2)
    assert found.confidence < LEAST_CONFIDENCE
    assert found.source == "bicubic"
    assert reason in found.reason
    np.testing.assert_array_equal(found.kernel, bicubic_kernel(2))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="scale must be 2, 3 or 4, got 5"):
        estimate_kernel(torch.rand(3, 64, 64), 5)
    with pytest.raises(ValueError, match=r"must be \(3, h, w\) or \(1, h, w\), got \(2, 3, 64, 64\)"):
        estimate_kernel(torch.rand(2, 3, 64, 64), 2)


def test_an_enlarged_photograph_looks_more_blurred_than_itself():
    sharp = blurred("coffee", CASES["round"])
    soft = bicubic_upsample(sharp[None, :, :96, :96], 2)[0].clamp(0, 1)
    widths = [estimate_kernel(image, 2).diagnostics["rows"] for image in (sharp, soft)]
    assert widths[1] > widths[0] + 1


@pytest.mark.parametrize("scale", SCALES)
def test_the_kernel_between_scales_is_narrower_than_the_blur_by_a_known_factor(scale):
    internal = np.pad(gaussian_of(CASES["long"] * (1 - 1 / scale**2), scale), 6)
    assert relative_error(blur_of(internal.astype(np.float64), scale), gaussian_of(CASES["long"], scale)) < 0.02


@pytest.mark.parametrize("scale", [2, 3])
def test_patches_refine_to_a_valid_kernel_better_than_the_default(scale):
    covariance = CASES["long"] * scale**2 / 4
    truth = gaussian_of(covariance, scale)
    found = estimate_kernel(blurred("coffee", covariance, scale), scale, "patches")
    is_valid(found.kernel, scale)
    assert found.source == "patches"
    assert relative_error(found.kernel, truth) < relative_error(bicubic_kernel(scale), truth)


def test_patches_without_contrast_leave_the_gaussian():
    luma = torch.full((96, 96), 80.0)
    np.testing.assert_array_equal(refined_kernel(luma, CASES["long"], 2), gaussian_of(CASES["long"], 2))


def test_patches_say_more_about_a_blur_that_is_no_gaussian_or_leave_it_better_than_bicubic():
    motion = motion_kernel(6.0, 30.0, 0.0, 0.5)
    lr = synthesise(photograph("coffee"), motion.astype(np.float64), 2)
    image = torch.from_numpy(np.round(lr).clip(0, 255) / 255).permute(2, 0, 1).float()
    default = relative_error(bicubic_kernel(2), motion)
    assert all(relative_error(estimate_kernel(image, 2, m).kernel, motion) < default for m in ("spectra", "patches"))


@pytest.mark.parametrize("scale", SCALES)
def test_a_saved_kernel_degrades_in_a_task_as_it_was_estimated(scale, tmp_path):
    kernel = gaussian_of(CASES["long"] * scale**2 / 4, scale)
    np.save(tmp_path / "kernel.npy", kernel)
    pipeline = Pipeline.model_validate(
        [
            {"op": "kernel_file", "path": str(tmp_path / "kernel.npy"), "centre": "block"},
            {"op": "downsample", "method": "nearest"},
        ]
    )
    hr = photograph("coffee", 24 * scale) / 255
    image = torch.from_numpy(hr).permute(2, 0, 1)[None].float()
    lr = replay(image, pipeline.draw((0,), scale), [0])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(lr, synthesise(hr, kernel.astype(np.float64), scale).clip(0, 1), atol=3e-3)
