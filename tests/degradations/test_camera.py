"""Colour, sharpening, lenses and the small camera pipeline against formulas and analytic cases, on both backends."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from metarestore.degradations.colour import to_linear, to_srgb
from metarestore.degradations.isp import demosaic, inverse_tone_curve, mixed, tone_curve, unmixed

BACKENDS = ["opencv", "torch"]
STILL = {"red": 0.0, "blue": 0.0, "red_y": 0.0, "red_x": 0.0, "blue_y": 0.0, "blue_x": 0.0}
CAMERA = {"shot": 0.0, "read": 0.0, "red_gain": 2.1, "blue_gain": 1.7, "tone": 1.0, "crosstalk": 0.5}
PLAIN = {"red_gain": 1.0, "blue_gain": 1.0, "tone": 0.0, "crosstalk": 0.0}
LEVELS = {
    "gain_red": 1.0,
    "gain_green": 1.0,
    "gain_blue": 1.0,
    "offset_red": 0.0,
    "offset_green": 0.0,
    "offset_blue": 0.0,
}
NOTHING = [
    ("unsharp_mask", {"amount": 0.0, "radius": 2.0, "threshold": 0.0}),
    ("unsharp_mask", {"amount": 2.0, "radius": 0.0, "threshold": 0.0}),
    ("gamma", {"exponent": 1.0}),
    ("colour_shift", {"red": 1.0, "blue": 1.0, "brightness": 1.0}),
    ("levels", LEVELS),
    ("vignette", {"strength": 0.0, "centre_y": 0.3, "centre_x": -1.0}),
    ("chromatic_aberration", STILL),
]
SOMETHING = [
    ("unsharp_mask", {"amount": 1.5, "radius": 1.2, "threshold": 4.0}),
    ("gamma", {"exponent": 2.2}),
    ("to_linear", {}),
    ("to_srgb", {}),
    ("colour_shift", {"red": 1.2, "blue": 0.8, "brightness": 1.1}),
    ("levels", {**LEVELS, "gain_red": 1.1, "offset_blue": -7.0}),
    ("vignette", {"strength": 0.6, "centre_y": 0.3, "centre_x": -1.0}),
    ("chromatic_aberration", {**STILL, "red": 9.0, "blue": -6.0, "red_y": 0.4, "blue_x": -1.3}),
    ("isp", CAMERA),
]


def linear_light(srgb):
    """Decodes sRGB in float64, by the standard's formula."""
    srgb = np.asarray(srgb, dtype=np.float64)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("op", "params"), NOTHING)
def test_zero_strength_changes_nothing(apply, noise_image, op, params, backend):
    image = noise_image(20, 24)
    assert np.abs(apply(op, image, backend=backend, **params).numpy() - image).max() < 2e-6


@pytest.mark.parametrize(("op", "params"), SOMETHING)
class TestTorchBackend:
    def test_equals_opencv(self, apply, noise_image, op, params):
        images = np.concatenate([noise_image(45, 52, seed) for seed in range(3)])
        images[:, :, :9, :9], images[:, :, 9:20, :9] = 0, 1
        exact = apply(op, images, **params)
        assert (exact - torch.from_numpy(images)).abs().max() > 0.02
        assert (apply(op, images, backend="torch", **params).clamp(0, 1) - exact.clamp(0, 1)).abs().max() < 1e-4

    def test_has_finite_gradients_from_black_to_white(self, apply, op, params):
        image = torch.linspace(0, 1, 3 * 20 * 24).reshape(1, 3, 20, 24).requires_grad_()
        apply(op, image, backend="torch", **params).sum().backward()
        assert image.grad.isfinite().all()
        assert image.grad.abs().mean() > 0.05


def test_srgb_curve_follows_the_standard_and_is_inverted():
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    assert np.abs(to_linear(values) - linear_light(values)).max() < 1e-6
    assert np.abs(to_srgb(to_linear(values)) - values).max() < 1e-5
    assert to_srgb(np.array([-1, 2], dtype=np.float32)).tolist() == pytest.approx([0, 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_to_linear_then_to_srgb_is_the_identity(apply, noise_image, backend):
    image = noise_image(16, 16)
    light = apply("to_linear", image, backend=backend)
    assert np.abs(light.numpy() - linear_light(image)).max() < 1e-6
    assert np.abs(apply("to_srgb", light, backend=backend).numpy() - image).max() < 1e-5


def test_colour_shift_multiplies_linear_light(apply, noise_image):
    image = noise_image(16, 16) * np.float32(0.8)
    shifted = linear_light(apply("colour_shift", image, red=1.2, blue=0.9, brightness=1.1).numpy())
    gains = np.array([1.2, 1.0, 0.9])[:, None, None] * 1.1
    assert np.abs(shifted - linear_light(image) * gains).max() < 1e-5


def test_levels_are_a_line_for_each_channel(apply, noise_image):
    image = noise_image(16, 16)
    params = {"gain_red": 1.2, "gain_green": 0.9, "gain_blue": 1.1}
    params |= {"offset_red": 5.1, "offset_green": -2.55, "offset_blue": 0.0}
    expected = image * np.array([1.2, 0.9, 1.1])[:, None, None] + np.array([0.02, -0.01, 0])[:, None, None]
    assert np.abs(apply("levels", image, **params).numpy() - expected).max() < 1e-6


def test_gamma_is_a_power_of_the_encoded_value(apply, noise_image):
    image = noise_image(16, 16)
    assert np.abs(apply("gamma", image, exponent=1.7).numpy() - image.astype(np.float64) ** 1.7).max() < 1e-6


@pytest.mark.parametrize("threshold", [0.0, 20.0])
def test_unsharp_mask_adds_what_the_blur_takes_away(apply, noise_image, threshold):
    image = noise_image(32, 30)
    blurred = ndimage.gaussian_filter(image.astype(np.float64), (0, 0, 1.5, 1.5), mode="reflect", truncate=8)
    difference = image - blurred
    shrunk = np.sign(difference) * np.maximum(np.abs(difference) - threshold / 255, 0)
    sharpened = apply("unsharp_mask", image, amount=0.8, radius=1.5, threshold=threshold).numpy()
    assert np.abs(sharpened - (image + 0.8 * shrunk)).max() < 2e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_sharpening_leaves_a_flat_image_without_rim(apply, backend):
    flat = np.full((1, 3, 12, 20), 0.7, np.float32)
    sharpened = apply("unsharp_mask", flat, backend=backend, amount=2.0, radius=3.0, threshold=0.0)
    assert (sharpened - 0.7).abs().max() < 2e-6


def test_vignette_takes_its_strength_from_the_corners(apply):
    image = np.full((1, 3, 31, 41), 0.8, np.float32)
    light = linear_light(apply("vignette", image, strength=0.6, centre_y=0.5, centre_x=0.5).numpy()) / linear_light(0.8)
    assert np.abs(light[..., [0, 0, -1, -1], [0, -1, 0, -1]] - 0.4).max() < 1e-5
    assert np.abs(light[..., 15, 20] - 1).max() < 1e-5
    assert (np.diff(light[..., 15, 20:]) < 0).all()
    # On the way to a corner at distance r = 25, tan² of the angle is that of the corner times (15 / 25)².
    tan_squared = (0.4**-0.5 - 1) * (15 / 25) ** 2
    assert light[0, 0, 0, 20] == pytest.approx((1 + tan_squared) ** -2, abs=1e-5)


def test_vignette_of_a_patch_beside_the_axis_darkens_one_side(apply):
    image = np.full((1, 3, 21, 21), 0.8, np.float32)
    light = linear_light(apply("vignette", image, strength=0.5, centre_y=0.5, centre_x=3.0).numpy()) / linear_light(0.8)
    assert np.abs(light[..., [0, -1], 0] - 0.5).max() < 1e-5
    assert (np.diff(light[0, 0, 10]) > 0).all()
    assert light.max() < 1


def waves(size, y=0.0, x=0.0, factor=1.0):
    """Returns a smooth image (1, 3, size, size), magnified by `factor` about its centre, then moved by (y, x)."""
    position = np.arange(size) - (size - 1) / 2
    down, right = np.meshgrid((position - y) / factor, (position - x) / factor, indexing="ij")
    plane = 0.5 + 0.2 * np.sin(down / 5) + 0.2 * np.sin(right / 6 + 1)
    return np.broadcast_to(plane, (1, 3, size, size)).astype(np.float32)


@pytest.mark.parametrize("backend", BACKENDS)
def test_chromatic_aberration_magnifies_and_moves_red_and_blue(apply, backend):
    params = {**STILL, "red": 10.0, "blue": -5.0, "red_x": 0.7, "blue_y": -1.2}
    fringed = apply("chromatic_aberration", waves(101), backend=backend, **params).numpy()[0, :, 5:-5, 5:-5]
    expected = [waves(101, x=0.7, factor=1.01), waves(101), waves(101, y=-1.2, factor=0.995)]
    for channel in range(3):
        assert np.abs(fringed[channel] - expected[channel][0, channel, 5:-5, 5:-5]).max() < 1e-3
    assert np.array_equal(fringed[1], waves(101)[0, 1, 5:-5, 5:-5])


def test_red_moves_outwards_by_parts_per_thousand_of_the_radius(apply):
    """A bright line 40 pixels from the centre moves by 0.8 pixels at 20 parts per thousand."""
    image = np.zeros((1, 3, 101, 101), np.float32)
    image[..., 90] = 1
    moved = apply("chromatic_aberration", image, **{**STILL, "red": 20.0}).numpy()[0, :, 50]
    centroid = (moved[0] * np.arange(101)).sum() / moved[0].sum()
    assert centroid == pytest.approx(90.8, abs=0.02)
    assert moved[1].argmax() == 90


def ramp(height, width):
    """Returns a plane (height, width, 3) of another slope and offset for each colour."""
    y, x = np.mgrid[:height, :width]
    planes = [0.2 + 0.01 * x + 0.004 * y, 0.3 - 0.003 * x + 0.006 * y, 0.7 - 0.008 * y]
    return np.stack(planes, axis=-1).astype(np.float32)


def mosaic_of(image):
    """Samples an RGGB mosaic, written out pixel by pixel."""
    mosaic = image[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = image[::2, ::2, 0], image[1::2, 1::2, 2]
    return mosaic


@pytest.mark.parametrize("size", [(12, 14), (13, 15)])
@pytest.mark.parametrize("kind", [np.asarray, lambda mosaic: torch.from_numpy(mosaic)[None]])
def test_demosaicing_reproduces_constants_and_ramps(size, kind):
    flat = np.broadcast_to(np.float32([0.2, 0.5, 0.9]), (*size, 3))
    assert np.abs(np.squeeze(np.asarray(demosaic(kind(mosaic_of(flat))))) - flat).max() < 1e-6
    restored = np.squeeze(np.asarray(demosaic(kind(mosaic_of(ramp(*size))))))
    assert np.abs(restored - ramp(*size))[2:-2, 2:-2].max() < 1e-6


def test_demosaicing_keeps_what_was_measured(noise_image):
    image = noise_image(20, 22)[0].transpose(1, 2, 0).copy()
    assert np.abs(mosaic_of(demosaic(mosaic_of(image))) - mosaic_of(image)).max() < 1e-6


@pytest.mark.parametrize("strength", [0.0, 1e-4, 0.3, 1.0])
def test_tone_curve_is_inverted(strength):
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    assert np.abs(tone_curve(inverse_tone_curve(values, strength), strength) - values).max() < 1e-5
    assert (np.diff(tone_curve(values, strength)) > 0).all()


def test_crosstalk_is_undone(noise_image):
    light = noise_image(6, 7)[0].transpose(1, 2, 0)
    assert np.abs(unmixed(mixed(light, 0.5), 0.5) - light).max() < 1e-6
    gray = np.full((2, 2, 3), 0.3, np.float32)
    assert np.abs(mixed(gray, 0.5) - gray).max() < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("params", [CAMERA, {**CAMERA, **PLAIN}])
def test_camera_without_noise_returns_a_smooth_image(apply, params, backend):
    """Below the highlights, which saturate, and away from the border, where the image's slope breaks off."""
    image = waves(96) * np.float32([0.8, 1.0, 0.9])[:, None, None]
    error = np.abs(apply("isp", image, backend=backend, **params).numpy() - image)
    assert error[..., 2:-2, 2:-2].max() < 2 / 255
    assert error.mean() < 0.6 / 255


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_camera_keeps_black_and_white(apply, level, backend):
    image = np.full((1, 3, 12, 12), level, np.float32)
    assert (apply("isp", image, backend=backend, **CAMERA) - level).abs().max() < 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_noise_of_the_camera_is_the_sensors_times_the_gain(apply, gain, backend):
    """At red pixels nothing is interpolated: light there is gain · (light / gain + noise)."""
    shot, read, level = 2e-4, 4e-3, 0.6
    params = {**PLAIN, "red_gain": gain, "shot": shot, "read": read}
    noisy = apply("isp", np.full((2, 3, 160, 160), level, np.float32), backend=backend, **params)
    red = linear_light(noisy.numpy())[:, 0, ::2, ::2]
    light = float(linear_light(level))
    variance = gain**2 * (shot * light / gain + read**2)
    assert abs(red.mean() - light) < 3 * math.sqrt(variance / red.size)
    assert abs(red.var() - variance) < 3 * variance * math.sqrt(2 / red.size)


def test_interpolated_pixels_have_noise_that_neighbours_share(apply):
    noisy = apply("isp", np.full((1, 3, 128, 128), 0.5, np.float32), **PLAIN, shot=2e-4, read=0.0).numpy()[0, 0] - 0.5
    correlation = (noisy[:, 1:] * noisy[:, :-1]).mean() / noisy.var()
    assert correlation > 0.2
