"""Analytic cases: what known filters and known noise must be measured as."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from metarestore.degradations.resample import bicubic_downsample
from metarestore.graphs.identification import FEATURES, fit_filter, gains, identify
from metarestore.workspace.process import prepare_process

GAIN, DIRECTION, REST, BRIGHTNESS = slice(0, 6), slice(6, 12), slice(15, 19), 23


@pytest.fixture(autouse=True)
def one_thread() -> None:
    prepare_process()


def scenes(count: int = 4, side: int = 256) -> Tensor:
    """Random HR images (count, 3, side, side) with detail at every scale and bright and dark regions."""
    rng = torch.Generator().manual_seed(0)
    fine = torch.rand(count, 1, side, side, generator=rng)
    coarse = [torch.rand(count, 1, side // k, side // k, generator=rng) for k in (4, 16, 64)]
    layers = [fine, *(torch.nn.functional.interpolate(layer, size=(side, side), mode="bicubic") for layer in coarse)]
    return (0.1 + 0.8 * sum(layers) / len(layers)).clamp(0.1, 0.9).expand(-1, 3, -1, -1).contiguous()


def blurred(images: Tensor, kernel: list[list[float]]) -> Tensor:
    weight = torch.tensor(kernel)
    weight = (weight / weight.sum()).expand(3, 1, *weight.shape)
    padded = torch.nn.functional.pad(
        images, [weight.shape[-1] // 2] * 2 + [weight.shape[-2] // 2] * 2, mode="replicate"
    )
    return torch.nn.functional.conv2d(padded, weight, groups=3)


def test_bicubic_downsampling_changes_nothing() -> None:
    hr = scenes()
    found = identify(bicubic_downsample(hr, 4)[None], hr, 4)[0]
    assert found.shape == (4, FEATURES)
    np.testing.assert_allclose(found[:, :15], 0, atol=0.03)
    # Its rest is the rounding to 8 bit, which the power is floored by: at most twice the floor, ln(2) above it.
    assert (found[:, REST] < np.log(2 / 255**2 / 12) + 0.3).all()


def test_a_known_filter_is_found() -> None:
    """The gain of [1 2 1]/4 along x is cos²(πf); a shift of the pair changes none of it."""
    rng = np.random.default_rng(0)
    clean = rng.random((1, 48, 48))
    smooth = (np.roll(clean, 1, -1) + 2 * clean + np.roll(clean, -1, -1)) / 4
    for lr in (smooth, np.roll(smooth, 1, -2)):
        filters, rest = fit_filter(lr[None], clean, 3)
        assert np.abs(rest).max() < 2e-3
        spectrum = np.abs(np.fft.fft(filters[0].sum(axis=0), 64))[:33]
        np.testing.assert_allclose(spectrum, np.cos(np.pi * np.arange(33) / 64) ** 2, atol=0.01)


def test_gain_does_not_depend_on_the_direction_of_the_blur() -> None:
    along_x = np.zeros((1, 7, 7))
    along_x[0, 3] = [0, 1, 4, 6, 4, 1, 0]
    along_x /= along_x.sum()
    along_y = along_x.transpose(0, 2, 1)
    for x, y in zip(gains(along_x, 6), gains(along_y, 6), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-9)
    round_one = along_y[0] @ along_x[0]
    assert gains(round_one[None], 6)[1].max() < 0.3 * gains(along_x, 6)[1].max()


def test_blur_lowers_the_gain_and_noise_raises_the_rest() -> None:
    hr = scenes()
    lr = bicubic_downsample(hr, 4)
    noise = 0.02 * torch.randn(lr.shape, generator=torch.Generator().manual_seed(0))
    clean, soft, noisy = identify(torch.stack([lr, blurred(lr, [[1, 2, 1], [2, 4, 2], [1, 2, 1]]), lr + noise]), hr, 4)
    assert (np.diff(soft[:, GAIN], axis=1) < 0).all()
    assert (soft[:, GAIN][:, 3:] < -0.5).all()
    assert (soft[:, REST] < noisy[:, REST] - 3).all()
    # White noise of standard deviation 0.02 in each of R, G, B has this variance in luma.
    weights = np.asarray([65.481, 128.553, 24.966]) / 255
    variance = 0.02**2 * np.square(weights).sum()
    np.testing.assert_allclose(noisy[:, REST].mean(), np.log(variance), atol=0.15)
    assert np.abs(clean[:, DIRECTION]).max() < 0.03


def test_elongated_blur_shows_in_the_direction() -> None:
    hr = scenes()
    lr = bicubic_downsample(hr, 4)
    round_one, long_one = identify(
        torch.stack([blurred(lr, [[1, 2, 1], [2, 4, 2], [1, 2, 1]]), blurred(lr, [[1, 2, 1]])]), hr, 4
    )
    assert long_one[:, 9].min() > 3 * round_one[:, 9].max()


def test_photon_noise_grows_with_brightness_and_white_noise_does_not() -> None:
    hr = scenes()
    lr = bicubic_downsample(hr, 4)
    field = torch.randn(lr.shape, generator=torch.Generator().manual_seed(0))
    white, photon = identify(torch.stack([lr + 0.02 * field, lr + 0.04 * lr.clamp(min=0).sqrt() * field]), hr, 4)
    assert abs(white[:, BRIGHTNESS].mean()) < 0.15
    assert photon[:, BRIGHTNESS].mean() > 0.5


@pytest.mark.parametrize("side", [4, 8, 12, 32])
def test_small_shots_give_finite_features(side: int) -> None:
    hr = torch.rand(2, 3, 4 * side, 4 * side, generator=torch.Generator().manual_seed(0))
    found = identify(bicubic_downsample(hr, 4).clamp(0, 1)[None], hr, 4)
    assert np.isfinite(found).all()
    flat = torch.full_like(hr, 0.5)
    assert np.isfinite(identify(bicubic_downsample(flat, 4)[None], flat, 4)).all()
