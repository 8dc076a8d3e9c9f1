import numpy as np
import pytest

from metarestore.fitting.camera import fit_pair
from metarestore.fitting.noise import fit_noise

BLUR = {"op": "gaussian_blur", "sigma": 2.0}
NEAREST = {"op": "downsample", "method": "nearest"}


def noise_of(pair):
    return fit_pair(pair).noise


@pytest.mark.parametrize("sigma", [0.7, 2.0, 8.0])
@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_the_strength_of_white_noise_is_found(make_pair, name, sigma):
    noise = noise_of(make_pair(name, 4, BLUR, NEAREST, {"op": "gaussian_noise", "sigma": sigma}))
    assert noise.sigma == pytest.approx(sigma, rel=0.15)
    assert noise.growing < 0.5
    assert abs(noise.correlation) < 0.15


@pytest.mark.parametrize("peak", [100, 1000])
def test_photon_noise_grows_with_the_level(make_pair, peak):
    noise = noise_of(make_pair("coffee", 4, BLUR, NEAREST, {"op": "poisson_noise", "peak": peak}))
    assert 255 / noise.per_level == pytest.approx(peak, rel=0.2)
    assert noise.growing > 0.8


def test_gray_noise_is_told_from_colour_noise(make_pair):
    steps = (BLUR, NEAREST, {"op": "gaussian_noise", "sigma": 4, "correlation": 1})
    assert noise_of(make_pair("chelsea", 3, *steps, side=288)).correlation > 0.85


def test_a_clean_image_is_quiet(make_pair):
    assert noise_of(make_pair("chelsea", 3, BLUR, NEAREST, side=288)).sigma < 0.3


def test_noise_is_found_behind_jpeg(make_pair):
    steps = ({"op": "gaussian_noise", "sigma": 5}, {"op": "jpeg", "quality": 85, "codec": "libjpeg"})
    names = ("coffee", "chelsea", "astronaut", "rocket")
    fits = [fit_pair(make_pair(name, 4, BLUR, NEAREST, *steps)) for name in names]
    assert {fit.jpeg.quality for fit in fits} == {85}
    # Compression takes part of the noise away and adds errors of its own: a single pair may be a quarter off.
    assert np.mean([fit.noise.sigma for fit in fits]) == pytest.approx(5, rel=0.15)


def test_edges_that_the_model_misses_are_no_noise():
    """The residual of a displaced pattern is as strong as its edges; the noise of the image is 1."""
    rng = np.random.default_rng(0)
    down, right = np.mgrid[:128, :128]
    pattern = 128 + 60 * np.sin(0.2 * down) * np.sin(right**2 / 400)
    model = np.repeat(pattern[..., None], 3, axis=-1)
    lr = np.roll(model, 1, axis=1) * 0.2 + model * 0.8 + rng.normal(0, 1, model.shape)
    assert np.std(lr - model) > 2
    assert fit_noise(np.rint(lr), model).sigma == pytest.approx(1, abs=0.4)


def test_an_image_without_usable_pixels_has_no_noise():
    black = np.zeros((40, 40, 3))
    assert fit_noise(black, black).sigma == 0
