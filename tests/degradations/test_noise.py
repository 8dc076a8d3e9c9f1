"""The law of each noise: mean, variance against intensity, correlation of the channels, on both backends."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from metarestore.degradations.pointwise import FEW_COUNTS, NumpyFields, many_counts

BACKENDS = ["opencv", "torch"]
LUMA = np.array([0.299, 0.587, 0.114])


def flat(level, size=64, count=2):
    """Returns images (count, 3, size, size) of one value, or of one colour."""
    return np.broadcast_to(np.float32(level).reshape(-1, 1, 1), (count, 3, size, size)).copy()


def linear_light(srgb):
    """Decodes sRGB in float64, by the standard's formula."""
    srgb = np.asarray(srgb, dtype=np.float64)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def assert_moments(values, mean, variance, fourth):
    """Checks mean and variance within 3 standard errors; `fourth` is the fourth central moment."""
    assert abs(values.mean() - mean) < 3 * math.sqrt(variance / values.size)
    assert abs(values.var() - variance) < 3 * math.sqrt((fourth - variance**2) / values.size)


def assert_covariance(errors, expected):
    """Checks the covariance of the channels of (N, 3, H, W), within 4 standard errors of nearly normal values."""
    samples = errors.transpose(1, 0, 2, 3).reshape(3, -1)
    bound = 4 * np.sqrt((np.outer(expected.diagonal(), expected.diagonal()) + expected**2) / samples.shape[1])
    assert (np.abs(np.cov(samples) - expected) < bound).all()


@pytest.mark.parametrize(
    ("op", "params"),
    [
        ("gaussian_noise", {"sigma": 0.0, "correlation": 0.0}),
        ("gaussian_noise", {"sigma": 0.0, "correlation": 0.5}),
        ("poisson_noise", {"peak": 20.0, "strength": 0.0, "correlation": 0.5}),
        ("speckle_noise", {"sigma": 0.0, "correlation": 0.0}),
        ("sensor_noise", {"shot": 0.0, "read": 0.0}),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_strength_changes_nothing(apply, noise_image, op, params, backend):
    image = noise_image(20, 24)
    assert np.abs(apply(op, image, backend=backend, **params).numpy() - image).max() < 2e-6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sigma", [2.0, 25.0])
def test_gaussian_noise_has_its_variance_at_every_level(apply, level, sigma, backend):
    noisy = apply("gaussian_noise", flat(level), backend=backend, sigma=sigma, correlation=0.0).double().numpy()
    variance = (sigma / 255) ** 2
    assert_moments(noisy, level, variance, 3 * variance**2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.8])
def test_gaussian_channels_have_the_stated_covariance(apply, correlation, backend):
    noisy = apply("gaussian_noise", flat(0.5, 128), backend=backend, sigma=25.5, correlation=correlation)
    expected = 0.01 * ((1 - correlation) * np.eye(3) + correlation)
    assert_covariance(noisy.double().numpy() - 0.5, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("op", "params"),
    [("gaussian_noise", {"sigma": 9.0}), ("speckle_noise", {"sigma": 9.0}), ("poisson_noise", {"strength": 2.0})],
)
def test_fully_correlated_noise_is_the_same_in_all_channels(apply, op, params, backend):
    params = {"peak": 30.0, **params} if op == "poisson_noise" else params
    noisy = apply(op, flat(0.5, 16), backend=backend, correlation=1.0, **params)
    assert noisy[:, 0].std() > 0
    assert torch.equal(noisy[:, 0], noisy[:, 1])
    assert torch.equal(noisy[:, 0], noisy[:, 2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("level", [0.05, 0.4, 1.0])
@pytest.mark.parametrize(("peak", "strength"), [(20.0, 1.0), (400.0, 1.0), (60.0, 2.5)])
def test_poisson_variance_is_value_over_peak(apply, level, peak, strength, backend):
    noisy = apply("poisson_noise", flat(level), backend=backend, peak=peak, strength=strength, correlation=0.0)
    photons, scale = level * peak, strength / peak
    assert_moments(noisy.double().numpy(), level, photons * scale**2, photons * (1 + 3 * photons) * scale**4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("correlation", [0.0, 0.4, 1.0])
def test_poisson_channels_share_the_count_of_the_luma(apply, correlation, backend):
    colour, peak = np.array([0.7, 0.3, 0.5]), 200.0
    noisy = apply("poisson_noise", flat(colour, 128), backend=backend, peak=peak, strength=1.0, correlation=correlation)
    expected = ((1 - correlation) * np.diag(colour) + correlation * (LUMA @ colour)) / peak
    assert_covariance(noisy.double().numpy() - colour[:, None, None], expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("surroundings", [0.0, 1.0, "texture"])
def test_poisson_noise_of_a_pixel_depends_on_its_own_value_alone(apply, noise_image, surroundings, backend):
    """A patch is degraded as it would be inside its photograph: no statistics of the content enter."""
    image = noise_image(96, 192) if surroundings == "texture" else flat(surroundings, 192, 1)[:, :, :96]
    image[..., 96:] = 0.4
    noisy = apply("poisson_noise", image, backend=backend, peak=50.0, strength=1.0, correlation=0.0)
    assert_moments(noisy[..., 96:].double().numpy(), 0.4, 0.4 / 50, 20 * 61 / 50**4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("level", [0.1, 0.5, 1.0])
def test_speckle_variance_is_the_square_of_the_value(apply, level, backend):
    noisy = apply("speckle_noise", flat(level), backend=backend, sigma=30.0, correlation=0.0).double().numpy()
    variance = (30 / 255 * level) ** 2
    assert_moments(noisy, level, variance, 3 * variance**2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("level", [0.3, 0.5, 0.8])
@pytest.mark.parametrize(("shot", "read"), [(1e-3, 0.0), (0.0, 5e-3), (5e-4, 3e-3)])
def test_sensor_noise_variance_grows_with_light(apply, level, shot, read, backend):
    noisy = apply("sensor_noise", flat(level), backend=backend, shot=shot, read=read)
    light = float(linear_light(np.float32(level)))
    variance = shot * light + read**2
    assert_moments(linear_light(noisy.numpy()), light, variance, 3 * variance**2)


@pytest.mark.parametrize(
    ("op", "params"),
    [
        ("gaussian_noise", {"sigma": 9.0, "correlation": 0.5}),
        ("poisson_noise", {"peak": 30.0, "strength": 1.0, "correlation": 0.5}),
        ("speckle_noise", {"sigma": 9.0, "correlation": 0.0}),
        ("sensor_noise", {"shot": 1e-2, "read": 0.0}),
    ],
)
class TestTorchBackend:
    def test_field_depends_on_the_images_own_seed_alone(self, apply, noise_image, op, params):
        image = noise_image(20, 24)
        batch = apply(op, np.repeat(image, 3, axis=0), [7, 8, 7], backend="torch", **params)
        assert torch.equal(batch[0], batch[2])
        assert not torch.equal(batch[0], batch[1])
        assert torch.allclose(batch[1:2], apply(op, image, [8], backend="torch", **params), atol=1e-6)

    def test_gradients_are_finite_from_black_to_white(self, apply, op, params):
        image = torch.linspace(0, 1, 3 * 20 * 24).reshape(1, 3, 20, 24).requires_grad_()
        apply(op, image, backend="torch", **params).sum().backward()
        assert image.grad.isfinite().all()
        assert image.grad.abs().mean() > 0.1


# Counts of large expectations


def law_of_many_counts(rate):
    """Returns the probabilities of the counts 0, 1, 2, ..., by the normal probability of what maps to each."""
    normal = np.linspace(-7, 7, 700_001)
    counts = many_counts(np.full(normal.shape, rate), normal)[:-1].astype(int)
    return np.bincount(counts, weights=np.diff(special.ndtr(normal)))


@pytest.mark.parametrize(("rate", "error"), [(FEW_COUNTS, 4e-4), (6.5, 2e-4), (10.0, 1e-4), (50.0, 1e-4), (1e3, 1e-4)])
def test_many_counts_follow_the_law_of_poisson(rate, error):
    law = law_of_many_counts(rate)
    counts = np.arange(len(law))
    assert np.abs(np.cumsum(law) - stats.poisson.cdf(counts, rate)).max() < error
    mean = (law * counts).sum()
    variance = (law * (counts - mean) ** 2).sum()
    skewness = (law * (counts - mean) ** 3).sum() / variance**1.5
    assert mean == pytest.approx(rate, rel=3e-4)
    assert variance == pytest.approx(rate, rel=1e-3)
    assert skewness == pytest.approx(rate**-0.5, rel=0.02)


@pytest.mark.parametrize("rate", [0.0, 0.3, 3.9, 4.0, 7.0, 40.0, 900.0, 1e6])
def test_counts_are_those_of_scipy(rate):
    """A count never differs from its law by more than Kolmogorov's bound at the level 0.1%."""
    expected = np.full((200, 200, 3), rate, dtype=np.float32)
    counts = np.sort((NumpyFields(5).count_error(expected) + expected).ravel())
    assert counts.min() >= 0
    values, last = np.unique(counts, return_counts=True)
    assert np.array_equal(values, np.rint(values))
    distance = np.abs(np.cumsum(last) / counts.size - stats.poisson.cdf(values, rate)).max()
    assert distance < 1.95 / math.sqrt(counts.size)
