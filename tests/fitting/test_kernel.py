import numpy as np
import pytest
import torch

from metarestore.degradations import bicubic_downsample
from metarestore.errors import UserError
from metarestore.fitting.alignment import bicubic_lr, shift_between
from metarestore.fitting.camera import fit_pair, psnr_rgb
from metarestore.fitting.equations import Normal, kernel_size, pair_sums
from metarestore.fitting.gaussian import fit_gaussian
from metarestore.fitting.kernel import ColourLine, fit_kernel, synthesise
from metarestore.fitting.pairs import Pair

NEAREST = {"op": "downsample", "method": "nearest"}
BICUBIC = {"op": "downsample", "method": "bicubic"}


def blur(sigma, **more):
    return {"op": "gaussian_blur", "sigma": sigma, **more}


def gaussian(side, sigma, down=0.0, right=0.0):
    offsets = np.arange(side) - (side - 1) / 2
    kernel = np.outer(np.exp(-0.5 * ((offsets - down) / sigma) ** 2), np.exp(-0.5 * ((offsets - right) / sigma) ** 2))
    return kernel / kernel.sum()


def bicubic_kernel(scale, sigma, side):
    """The kernel (side, side) of a Gaussian blur and MATLAB's downsampling together, by the response to impulses."""
    count = 32
    lines = torch.eye(count * scale, dtype=torch.float64)[:, None, None, :].expand(-1, 1, scale, -1).contiguous()
    response = bicubic_downsample(lines, scale)[:, 0, 0, count // 2].numpy()
    blurring = np.exp(-0.5 * (np.arange(-20, 21) / sigma) ** 2)
    line = np.convolve(response, blurring / blurring.sum(), "same")
    first = scale * (count // 2) + (scale - side) // 2
    return np.outer(line[first : first + side], line[first : first + side])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_box_of_one_lr_pixel_averages_blocks(scale):
    hr = np.random.default_rng(0).uniform(0, 255, (6 * scale, 5 * scale, 3))
    side = 3 * scale
    box = np.zeros((side, side))
    box[scale:-scale, scale:-scale] = 1 / scale**2
    means = hr.reshape(6, scale, 5, scale, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(synthesise(hr, box, scale), means, atol=1e-9)


def test_a_kernel_without_a_centre_is_refused():
    with pytest.raises(ValueError, match="a kernel of side 5 has no centre at scale 4"):
        synthesise(np.zeros((8, 8, 3)), np.ones((5, 5)) / 25, 4)


@pytest.mark.parametrize(
    ("scale", "sigma", "noise"),
    [(2, 0.7, 0), (2, 1.5, 3), (3, 1.0, 3), (3, 2.0, 0), (4, 1.0, 3), (4, 2.2, 0), (4, 3, 3)],
)
def test_the_width_of_a_blur_is_found(make_pair, scale, sigma, noise):
    pair = make_pair("chelsea", scale, blur(sigma), NEAREST, {"op": "gaussian_noise", "sigma": noise}, side=288)
    found = fit_kernel([pair_sums(pair)]).gaussian
    assert found.sigma == pytest.approx(sigma, rel=0.05)
    assert found.ratio < 1.08
    # At an even scale `nearest` keeps the pixel half a pixel before the centre.
    assert found.centre == pytest.approx((0.0, 0.0) if scale == 3 else (-0.5, -0.5), abs=0.1)


def test_the_direction_of_a_long_blur_is_found(make_pair):
    pair = make_pair("coffee", 3, blur(1.2, ratio=2, angle=30), NEAREST, side=288)
    found = fit_kernel([pair_sums(pair)]).gaussian
    assert found.ratio == pytest.approx(2, rel=0.05)
    assert found.angle == pytest.approx(30, abs=2)


@pytest.mark.parametrize(("scale", "sigma"), [(2, 1.0), (4, 1.5), (4, 2.4)])
def test_the_width_is_that_of_the_whole_kernel_of_blur_and_downsampling(make_pair, scale, sigma):
    kernel = bicubic_kernel(scale, sigma, kernel_size(scale)).ravel()
    for name in ("astronaut", "coffee"):
        sums = pair_sums(make_pair(name, scale, blur(sigma), BICUBIC, side=288))
        gram = sums.joined.normal(np.ones(3)).gram
        truth = fit_gaussian(Normal(gram, gram @ kernel, float(kernel @ gram @ kernel)))[0]
        found = fit_kernel([sums]).gaussian
        assert found.sigma == pytest.approx(truth.sigma, rel=0.05)
        assert found.centre == pytest.approx((0, 0), abs=0.05)


def test_a_kernel_of_any_shape_is_found(make_pair):
    hr = make_pair("astronaut", 4, NEAREST).hr
    truth = 0.7 * gaussian(24, 1.5, -1, 1) + 0.3 * gaussian(24, 2.5, 2, -2)
    pair = Pair("two spots", 4, np.rint(synthesise(hr, truth, 4)), hr)
    kernel = fit_kernel([pair_sums(pair)]).kernel
    correlation = np.corrcoef(kernel.ravel(), truth.ravel())[0, 1]
    assert correlation > 0.99
    assert kernel.sum() == pytest.approx(1)


def test_what_hr_does_not_show_stays_smooth(make_pair):
    hr = make_pair("astronaut", 4, NEAREST).hr
    soft = synthesise(hr, gaussian(9, 1.6), 1)
    noise = np.random.default_rng(0).normal(0, 1, (96, 96, 3))
    pair = Pair("soft", 4, np.rint(synthesise(soft, gaussian(24, 2.0), 4) + noise), soft)
    kernel = fit_kernel([pair_sums(pair)]).kernel
    # A plain least-squares kernel is a pattern of stripes here, with a sum of absolute values far above 1.
    assert np.abs(kernel).sum() < 1.3


def test_pairs_share_a_kernel_and_keep_their_colours(make_pair):
    hr = make_pair("coffee", 4, NEAREST).hr
    lr = synthesise(hr, gaussian(24, 2.0), 4)
    lines = [ColourLine((1.1, 1.0, 0.8), (-9.0, 4.0, 20.0)), ColourLine((0.9, 1.0, 1.0), (5.0, 0.0, 0.0))]
    pairs = [Pair("coffee", 4, np.clip(np.rint(line.apply(lr)), 0, 255), hr) for line in lines]
    assert fit_kernel([pair_sums(pair) for pair in pairs]).gaussian.sigma == pytest.approx(2, rel=0.03)
    for pair, line in zip(pairs, lines, strict=True):
        found = fit_pair(pair).colour
        assert found.gains == pytest.approx(line.gains, abs=0.01)
        assert found.offsets == pytest.approx(line.offsets, abs=1)


@pytest.mark.parametrize(("down", "right"), [(0.0, 0.0), (0.6, -0.3), (-1.5, 2.0)])
def test_registration_and_kernel_agree_on_the_shift(make_pair, down, right):
    hr = make_pair("astronaut", 4, NEAREST, side=256).hr
    pair = Pair("shifted", 4, np.rint(synthesise(hr, gaussian(24, 1.8, down, right), 4)), hr)
    assert shift_between(pair) == pytest.approx((down, right), abs=0.12)
    assert fit_kernel([pair_sums(pair)]).gaussian.centre == pytest.approx((down, right), abs=0.02)


def test_a_flat_image_is_refused():
    flat = Pair("wall", 4, np.full((32, 32, 3), 90.0), np.full((128, 128, 3), 90.0))
    with pytest.raises(UserError, match="pair 'wall': LR is flat or saturated nearly everywhere"):
        pair_sums(flat)


def test_saturated_pixels_do_not_take_part(make_pair):
    """A light that clips LR: the kernel would explain the clipping."""
    hr = make_pair("chelsea", 3, NEAREST, side=288).hr
    lr = np.clip(np.rint(1.5 * synthesise(hr, gaussian(19, 1.5), 3)), 0, 255)
    assert (lr == 255).mean() > 0.05
    fit = fit_pair(Pair("bright", 3, lr, hr))
    assert fit.gaussian.sigma == pytest.approx(1.5, rel=0.03)


def test_the_fit_is_closer_than_bicubic(make_pair):
    pair = make_pair("coffee", 4, blur(2.2), BICUBIC, {"op": "gaussian_noise", "sigma": 1})
    fit = fit_pair(pair)
    assert fit.psnr_fitted > fit.psnr_bicubic + 8
    assert psnr_rgb(bicubic_lr(pair), pair.lr) == pytest.approx(fit.psnr_bicubic, abs=0.5)
