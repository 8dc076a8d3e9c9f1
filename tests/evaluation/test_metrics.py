"""PSNR-Y and SSIM-Y against direct computations of their definitions."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from skimage.metrics import structural_similarity

from metarestore.decibels import CAP
from metarestore.evaluation.metrics import batch_psnr, luma, psnr, psnr_y, ssim, ssim_y


def pair(seed=0, shape=(40, 52, 3), noise=20):
    """A smooth image and a noisy copy, uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    waves = 127 + 80 * np.sin(rows / 5)[..., None] * np.cos(columns / 7)[..., None] + np.arange(3) * 10
    clean = np.clip(waves, 0, 255)
    noisy = np.clip(clean + rng.normal(0, noise, shape), 0, 255)
    return np.rint(noisy).astype(np.uint8), np.rint(clean).astype(np.uint8)


def direct_ssim(a, b):
    """Wang et al. 2004, eq. 13-16, with a plain two-dimensional convolution."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(x):
        return convolve2d(x, window, mode="valid")

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mu_a, mu_b = mean(a), mean(b)
    s_aa, s_bb, s_ab = mean(a * a) - mu_a**2, mean(b * b) - mu_b**2, mean(a * b) - mu_a * mu_b
    return np.mean((2 * mu_a * mu_b + c1) * (2 * s_ab + c2) / ((mu_a**2 + mu_b**2 + c1) * (s_aa + s_bb + c2)))


def test_luma_is_rounded_limited_range_bt601():
    colours = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    exact = 16 + (65.481 * colours[..., 0] + 128.553 * colours[..., 1] + 24.966 * colours[..., 2]) / 255
    decided = np.abs(exact % 1 - 0.5) > 1e-9  # at a tie the floating-point sum may fall on either side
    assert decided.mean() > 0.99
    np.testing.assert_array_equal(luma(colours)[decided], np.floor(exact + 0.5)[decided])


@pytest.mark.parametrize(
    ("colour", "level"),
    [((0, 0, 0), 16), ((255, 255, 255), 235), ((255, 0, 0), 81), ((0, 255, 0), 145), ((0, 0, 255), 41)],
)
def test_luma_of_pure_colours(colour, level):  # 16 + 65.481, 128.553, 24.966, rounded
    assert luma(np.full((1, 1, 3), colour, np.uint8)).item() == level


def test_gray_is_its_own_luma():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(luma(ramp), ramp)
    np.testing.assert_array_equal(luma(np.dstack([ramp] * 3), gray=True), ramp)
    assert luma(ramp).dtype == np.float64


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)])
def test_luma_refuses_other_arrays(image):
    with pytest.raises(ValueError, match="image must be uint8"):
        luma(image)


@pytest.mark.parametrize("offset", [1.0, 5.0, 255.0])
def test_psnr_of_a_constant_error(offset):
    a = np.zeros((9, 7))
    assert psnr(a + offset, a) == pytest.approx(20 * np.log10(255 / offset), abs=1e-12)


def test_psnr_of_equal_images_is_the_cap():
    _, hr = pair()
    assert psnr_y(hr, hr, 2) == CAP


def test_psnr_y_compares_rounded_luma_inside_the_border():
    sr, hr = pair()
    border = 3
    a, b = (luma(image)[border:-border, border:-border] for image in (sr, hr))
    assert psnr_y(sr, hr, border) == pytest.approx(10 * np.log10(255**2 / np.mean((a - b) ** 2)), abs=1e-12)


@pytest.mark.parametrize("metric", [psnr_y, ssim_y])
def test_errors_in_the_border_do_not_count(metric):
    sr, hr = pair()
    spoilt = sr.copy()
    spoilt[:2] = spoilt[-2:] = 0
    spoilt[:, :2] = spoilt[:, -2:] = 255
    assert metric(spoilt, hr, 2) == metric(sr, hr, 2)
    assert metric(spoilt, hr, 1) != metric(sr, hr, 1)


@pytest.mark.parametrize("metric", [psnr_y, ssim_y])
def test_gray_photograph_keeps_its_range(metric):
    sr, hr = (image[..., 0] for image in pair())
    as_rgb = [np.dstack([image] * 3) for image in (sr, hr)]
    assert metric(*as_rgb, 2, gray=True) == metric(sr, hr, 2)
    assert metric(*as_rgb, 2) > metric(sr, hr, 2)  # limited range compresses the error


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, lambda x: torch.from_numpy(x).float()])
@pytest.mark.parametrize("border", [0, 3])
def test_batch_psnr_is_psnr_of_each(convert, border):
    hr = np.stack([luma(pair(seed)[1]) for seed in range(4)]).reshape(2, 2, 40, 52)
    sr = np.stack([luma(pair(seed)[0]) for seed in range(4)]).reshape(2, 2, 40, 52)
    sr[1, 1] = hr[1, 1]
    batch = batch_psnr(convert(sr), convert(hr), border)
    inside = slice(border, -border or None)
    for place in np.ndindex(2, 2):
        assert batch[place] == pytest.approx(psnr(sr[place][inside, inside], hr[place][inside, inside]), abs=1e-9)
    assert batch[1, 1] == CAP


@pytest.mark.parametrize("noise", [2, 20, 80])
@pytest.mark.parametrize("shape", [(40, 52, 3), (11, 11, 3), (11, 30, 3)])
def test_ssim_is_the_definition(noise, shape):
    a, b = (luma(image) for image in pair(1, shape, noise))
    assert ssim(a, b) == pytest.approx(direct_ssim(a, b), abs=1e-10)


def test_ssim_agrees_with_scikit_image():
    a, b = (luma(image) for image in pair(2))
    theirs = structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )  # its mean, too, is over the places where the window lies inside
    assert ssim(a, b) == pytest.approx(theirs, abs=1e-10)


def test_ssim_of_equal_images_is_one():
    image = luma(pair()[1])
    assert ssim(image, image) == pytest.approx(1, abs=1e-12)


def test_ssim_of_constants_is_the_luminance_term():
    a, b, c1 = 50.0, 100.0, (0.01 * 255) ** 2
    expected = (2 * a * b + c1) / (a**2 + b**2 + c1)
    assert ssim(np.full((20, 20), a), np.full((20, 20), b)) == pytest.approx(expected, abs=1e-9)


def test_misuse_is_named():
    with pytest.raises(ValueError, match=r"at least 11x11, got \(10, 30\)"):
        ssim(np.zeros((10, 30)), np.zeros((10, 30)))
    with pytest.raises(ValueError, match=r"different shapes, \(4, 4\) and \(4, 5\)"):
        psnr(np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="a border of 2 pixels leaves nothing of images of 4x9"):
        batch_psnr(np.zeros((1, 4, 9)), np.zeros((1, 4, 9)), 2)
