"""The field's protocol on a folder, against a direct computation from MATLAB's formula."""

import json

import numpy as np
import pytest

from metarestore.decibels import CAP
from metarestore.errors import UserError
from metarestore.evaluation.folder import bicubic_restore, evaluate_folder
from metarestore.evaluation.metrics import psnr_y, ssim_y
from metarestore.tasks.images import read_image, write_image


def photo(seed, height, width):
    """A smooth picture with edges, uint8 RGB."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    phase = rng.uniform(0, 6, 3)
    waves = 120 + 70 * np.sin(rows[..., None] / 4 + phase) * np.cos(columns[..., None] / 6 - phase)
    edge = 60.0 * (columns[..., None] > width // 2)
    return np.clip(waves + edge + rng.normal(0, 4, waves.shape), 0, 255).astype(np.uint8)


def cubic(x):
    """Keys' kernel with a = -0.5."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0))


def resize_matrix(inputs, outputs):
    """Rows of weights of MATLAB's imresize along one side: antialiased when shrinking, borders mirrored."""
    scale = outputs / inputs
    stretch = min(scale, 1)
    matrix = np.zeros((outputs, inputs))
    for row in range(outputs):
        centre = (row + 0.5) / scale - 0.5
        taps = np.arange(np.floor(centre - 2 / stretch), np.ceil(centre + 2 / stretch) + 1).astype(int)
        weights = cubic((taps - centre) * stretch)
        mirrored = taps % (2 * inputs)
        mirrored = np.where(mirrored < inputs, mirrored, 2 * inputs - 1 - mirrored)
        np.add.at(matrix[row], mirrored, weights / weights.sum())
    return matrix


def matlab_resize(image, height, width):
    """Resizes uint8 (H, W, 3) in float64 and rounds once."""
    rows, columns = resize_matrix(image.shape[0], height), resize_matrix(image.shape[1], width)
    exact = np.einsum("ri,cj,ijk->rck", rows, columns, image.astype(np.float64))
    return np.clip(np.floor(exact + 0.5), 0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "set2"
    folder.mkdir()
    write_image(folder / "even.png", photo(0, 48, 60))
    write_image(folder / "odd.png", photo(1, 51, 62))
    return folder


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_figures_are_those_of_the_direct_computation(folder, scale):
    report = evaluate_folder(folder, scale, bicubic_restore(scale))
    assert list(report.images) == ["even", "odd"]
    for name, figures in report.images.items():
        hr = read_image(folder / f"{name}.png").pixels
        height, width = hr.shape[0] // scale, hr.shape[1] // scale
        hr = hr[: height * scale, : width * scale]
        sr = matlab_resize(matlab_resize(hr, height, width), *hr.shape[:2])
        # A pixel that lies on a rounding boundary may differ by one level; no more is allowed.
        assert figures["psnr_y"] == pytest.approx(psnr_y(sr, hr, scale), abs=2e-3)
        assert figures["ssim_y"] == pytest.approx(ssim_y(sr, hr, scale), abs=2e-5)


def test_means_are_over_photographs_and_the_report_is_plain_data(folder):
    report = evaluate_folder(folder, 2, bicubic_restore(2))
    data = json.loads(json.dumps(report.to_json()))
    metrics = {"psnr_y", "ssim_y", "psnr_rgb", "colour_error", "psnr_y_matched"}
    assert set(data) == {*metrics, "images", "scale", "protocol"}
    assert data["scale"] == 2
    for metric in metrics:
        assert data[metric] == pytest.approx(np.mean([data["images"][name][metric] for name in ("even", "odd")]))
    assert (data["psnr_y"], data["ssim_y"]) == (report.psnr_y, report.ssim_y)


def test_perfect_restoration_is_perfect(folder):
    crops = iter([photo(0, 48, 60), photo(1, 48, 60)])  # odd is cut from 51x62
    write_image(folder / "odd.png", photo(1, 48, 60))
    report = evaluate_folder(folder, 4, lambda lr: next(crops))
    assert report.psnr_y == CAP
    assert report.ssim_y == pytest.approx(1, abs=1e-12)


def test_restore_sees_8_bit_rgb_of_the_low_resolution(folder):
    seen = []

    def restore(lr):
        seen.append((lr.dtype, lr.shape))
        return bicubic_restore(4)(lr)

    evaluate_folder(folder, 4, restore)
    assert seen == [(np.uint8, (12, 15, 3)), (np.uint8, (12, 15, 3))]


def test_single_channel_file_is_its_own_luma(folder):
    gray = photo(2, 48, 48)[..., 0]
    write_image(folder / "gray.png", gray)
    write_image(folder / "gray_as_rgb.png", np.dstack([gray] * 3))
    images = evaluate_folder(folder, 2, bicubic_restore(2)).images
    # Limited range shrinks the error by 219/255; rounding it again moves the figure a little.
    shift = 20 * np.log10(255 / 219)
    assert images["gray_as_rgb"]["psnr_y"] - images["gray"]["psnr_y"] == pytest.approx(shift, abs=0.1)


def test_progress_is_told_after_each_photograph(folder):
    told = []
    evaluate_folder(folder, 2, bicubic_restore(2), lambda *step: told.append(step))
    assert told == [("even", 1, 2), ("odd", 2, 2)]


def test_all_bad_files_are_reported_before_any_is_restored(folder):
    (folder / "broken.png").write_text("no image")
    write_image(folder / "tiny.png", photo(3, 18, 40))
    with pytest.raises(UserError) as caught:
        evaluate_folder(folder, 4, lambda lr: pytest.fail("restored too early"))
    broken, tiny = caught.value.problems
    assert "broken.png: damaged" in broken
    assert "tiny.png: is 16x40 (height x width) once cut to a multiple of 4; x4 evaluation needs at least 19x19" in tiny


def test_wrong_size_of_a_restoration_is_named(folder):
    with pytest.raises(ValueError, match=r"must be uint8 \(48, 60, 3\), got uint8 \(12, 15, 3\)"):
        evaluate_folder(folder, 4, lambda lr: lr)
