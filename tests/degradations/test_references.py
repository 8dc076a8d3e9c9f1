"""Operations against independent computations: other libraries, float64 matrices, formulas of noise."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from scipy import ndimage

from metarestore.degradations import OPERATIONS, Pipeline, bicubic_downsample, bicubic_upsample, replay
from metarestore.degradations.blur import disc_kernel, gaussian_kernel
from metarestore.degradations.camera import to_linear, to_srgb

CATALOGUE = sorted((Path(__file__).parents[2] / "tasks").glob("*.yaml"))


def apply(op, images, seeds=None, **params):
    images = torch.as_tensor(images)
    return OPERATIONS[op].apply(images, params, seeds or list(range(len(images))))


def noise_image(height, width, seed=0):
    return np.random.default_rng(seed).random((1, 3, height, width), dtype=np.float32)


# Blur -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.4, 1.3, 4.0])
@pytest.mark.parametrize("size", [(40, 51), (7, 9)], ids=["larger than the kernel", "smaller than the kernel"])
def test_gaussian_blur_equals_scipy(sigma, size):
    image = noise_image(*size)
    expected = ndimage.gaussian_filter(image.astype(np.float64), (0, 0, sigma, sigma), mode="reflect", truncate=8)
    blurred = apply("gaussian_blur", image, sigma=sigma, ratio=1.0, angle=0.0).numpy()
    assert np.abs(blurred - expected).max() <= 1e-5


@pytest.mark.parametrize(("angle", "sigmas"), [(0.0, (1.0, 2.5)), (90.0, (2.5, 1.0)), (180.0, (1.0, 2.5))])
def test_elongated_blur_equals_scipy_along_the_axes(angle, sigmas):
    image = noise_image(40, 51)
    expected = ndimage.gaussian_filter(image.astype(np.float64), (0, 0, *sigmas), mode="reflect", truncate=8)
    blurred = apply("gaussian_blur", image, sigma=1.0, ratio=2.5, angle=angle).numpy()
    assert np.abs(blurred - expected).max() <= 1e-5


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 135.0])
def test_elongated_kernel_has_the_covariance_of_its_parameters(angle):
    short, long = 1.5, 3.0
    kernel = gaussian_kernel(short, long / short, angle).astype(np.float64)
    offsets = np.arange(len(kernel)) - len(kernel) // 2
    x, y = np.meshgrid(offsets, -offsets)  # y upwards, so that angles are counter-clockwise
    covariance = [[(kernel * a * b).sum() for a in (x, y)] for b in (x, y)]
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turn = np.array([[cosine, -sine], [sine, cosine]])
    assert np.allclose(covariance, turn @ np.diag([long**2, short**2]) @ turn.T, atol=1e-3)


@pytest.mark.parametrize("radius", [2.3, 4.0, 6.5])
def test_disc_has_the_second_moment_of_its_radius(radius):
    kernel = disc_kernel(radius).astype(np.float64)
    offsets = np.arange(len(kernel)) - len(kernel) // 2
    variance = (kernel * offsets[:, None] ** 2).sum()
    # A sharp disc has variance r²/4 along an axis; an edge that falls over one pixel is a mean over r ± 1/2.
    expected = (radius**4 + radius**2 / 2 + 1 / 80) / (radius**2 + 1 / 12) / 4
    assert variance == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("op", "params"),
    [
        ("gaussian_blur", {"sigma": 0.0, "ratio": 1.0, "angle": 0.0}),
        ("gaussian_blur", {"sigma": 0.0, "ratio": 3.0, "angle": 20.0}),
        ("defocus_blur", {"radius": 0.0}),
        ("unsharp_mask", {"amount": 0.0, "radius": 2.0}),
        ("gamma", {"exponent": 1.0}),
        ("colour_shift", {"red": 1.0, "blue": 1.0, "brightness": 1.0}),
        ("gaussian_noise", {"sigma": 0.0, "gray": False}),
        ("sensor_noise", {"shot": 0.0, "read": 0.0}),
    ],
)
def test_zero_strength_changes_nothing(op, params):
    image = noise_image(20, 24)
    assert np.abs(apply(op, image, **params).numpy() - image).max() < 1e-6


@pytest.mark.parametrize(
    ("op", "params"),
    [
        ("gaussian_blur", {"sigma": 3.0, "ratio": 1.0, "angle": 0.0}),
        ("gaussian_blur", {"sigma": 2.0, "ratio": 2.0, "angle": 30.0}),
        ("defocus_blur", {"radius": 4.0}),
        ("unsharp_mask", {"amount": 2.0, "radius": 3.0}),
        ("downsample", {"method": "bicubic", "scale": 4}),
        ("downsample", {"method": "bilinear", "scale": 4}),
        ("downsample", {"method": "area", "scale": 4}),
    ],
)
def test_flat_image_has_no_rim(op, params):
    assert (apply(op, np.full((1, 3, 12, 20), 0.7, np.float32), **params) - 0.7).abs().max() < 2e-6


# Resampling -----------------------------------------------------------------------------------------------------------


def imresize_matrix(length: int, factor: float) -> np.ndarray:
    """Returns the weights (round(length·factor), length) of MATLAB's imresize, bicubic with antialiasing."""
    stretch = max(1.0, 1.0 / factor)
    matrix = np.zeros((round(length * factor), length))
    for row in range(len(matrix)):
        centre = (row + 0.5) / factor - 0.5
        taps = np.arange(math.floor(centre - 2 * stretch) - 1, math.ceil(centre + 2 * stretch) + 2)
        x = np.abs(taps - centre) / stretch
        weights = np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2) * (x < 2)
        mirror = np.concatenate([np.arange(length), np.arange(length)[::-1]])
        np.add.at(matrix[row], mirror[taps % (2 * length)], weights / weights.sum())
    return matrix


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(5, 8), (1, 2)])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_bicubic_equals_imresize(scale, size, direction):
    height, width = (scale * size[0], scale * size[1]) if direction == "down" else size
    factor = 1 / scale if direction == "down" else scale
    image = np.random.default_rng(0).random((2, 3, height, width))
    expected = imresize_matrix(height, factor) @ image @ imresize_matrix(width, factor).T
    resample = bicubic_downsample if direction == "down" else bicubic_upsample
    exact, single = resample(torch.from_numpy(image), scale), resample(torch.from_numpy(image).float(), scale)
    assert exact.dtype == torch.float64
    assert np.abs(exact.numpy() - expected).max() <= 1e-12 * np.abs(expected).max()
    assert single.dtype == torch.float32
    assert np.abs(single.numpy() - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("method", ["bilinear", "area"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_other_methods_keep_a_ramp_centred(method, scale):
    ramp = (torch.arange(40.0 * scale) / (40 * scale)).expand(1, 3, 8 * scale, -1).contiguous()
    centres = (torch.arange(40) * scale + (scale - 1) / 2) / (40 * scale)
    lr = apply("downsample", ramp, method=method, scale=scale)
    assert (lr - centres)[..., 2:-2].abs().max() < 1e-6  # away from the border, where the ramp is mirrored


def test_bicubic_upsample_under_vmap_and_grad():
    """The gradient of a linear map's square is 2 AᵀA x, with A the independent matrix."""
    images = torch.rand(5, 2, 3, 6, 7, dtype=torch.float64)

    def energy(x: torch.Tensor) -> torch.Tensor:
        return bicubic_upsample(x, 3).square().sum()

    gradients = torch.func.vmap(torch.func.grad(energy))(images)
    rows, columns = (torch.from_numpy(imresize_matrix(n, 3)) for n in (6, 7))
    assert torch.allclose(gradients, 2 * (rows.T @ rows) @ images @ (columns.T @ columns), rtol=1e-12)


def test_image_must_be_a_multiple_of_the_scale():
    with pytest.raises(ValueError, match="multiple of scale 4, got 10x8; crop it first"):
        bicubic_downsample(torch.zeros(1, 3, 10, 8), 4)
    with pytest.raises(ValueError, match="multiple of scale 4, got 8x10; crop it first"):
        apply("downsample", torch.zeros(1, 3, 8, 10), method="area", scale=4)


# Sampling convention --------------------------------------------------------------------------------------------------


def smooth_images(count: int, size: int, shift: float = 0.0) -> np.ndarray:
    """Returns gray images (count, size, size) of slow waves around 0.5, moved right and down by `shift` pixels."""
    rng = np.random.default_rng(5)
    position = np.arange(size) - shift
    y, x = np.meshgrid(position, position, indexing="ij")
    images = np.full((count, size, size), 0.5)
    for index in range(count):
        for angle, phase in rng.uniform(0, 2 * np.pi, (12, 2)):
            frequency = 2 * np.pi / rng.uniform(16, 40)
            images[index] += 0.045 * np.sin((np.cos(angle) * x + np.sin(angle) * y) * frequency + phase)
    return images


def measured_shift(images: np.ndarray, references: np.ndarray, crop: int = 24) -> np.ndarray:
    """Returns by how many pixels (down, right) `images` are moved: least squares on gain, offset and the gradient."""
    inner = (slice(None), slice(crop, -crop), slice(crop, -crop))
    down, right = (gradient[inner].ravel() for gradient in np.gradient(references, axis=(1, 2)))
    columns = np.stack([references[inner].ravel(), np.ones(down.size), down, right], axis=1)
    gain, _, *slopes = np.linalg.lstsq(columns, images[inner].ravel(), rcond=None)[0]
    return -np.array(slopes) / gain


def test_the_measurement_sees_a_shift():
    assert np.allclose(measured_shift(smooth_images(4, 128, 0.3), smooth_images(4, 128)), 0.3, atol=0.02)


@pytest.mark.parametrize("path", CATALOGUE, ids=lambda path: path.stem)
def test_catalogue_does_not_shift_lr_against_hr(path):
    task = YAML(typ="safe", pure=True).load(path)
    if task["kind"] != "synthetic":
        pytest.skip("not synthetic")
    hr = smooth_images(24, 192)
    images = torch.from_numpy(hr).float()[:, None].expand(-1, 3, -1, -1)
    for index in range(3):
        draws = Pipeline.model_validate(task["pipeline"]).draw((index,), task["scale"])
        lr = replay(images, draws, list(range(24))).mean(1, keepdim=True)
        restored = bicubic_upsample(lr, task["scale"])
        assert np.abs(measured_shift(restored[:, 0].numpy(), hr)).max() < 0.05


# Noise ----------------------------------------------------------------------------------------------------------------


def assert_moments(values: np.ndarray, mean: float, variance: float, fourth: float) -> None:
    """Checks mean and variance within 3 standard errors; `fourth` is the fourth central moment."""
    assert abs(values.mean() - mean) < 3 * math.sqrt(variance / values.size)
    assert abs(values.var() - variance) < 3 * math.sqrt((fourth - variance**2) / values.size)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sigma", [2.0, 25.0])
def test_gaussian_noise_has_its_variance_at_every_level(level, sigma):
    noisy = (
        apply("gaussian_noise", np.full((2, 3, 64, 64), level, np.float32), sigma=sigma, gray=False).double().numpy()
    )
    variance = (sigma / 255) ** 2
    assert_moments(noisy, level, variance, 3 * variance**2)


def test_gray_noise_is_the_same_in_all_channels():
    noisy = apply("gaussian_noise", np.full((1, 3, 16, 16), 0.5, np.float32), sigma=9.0, gray=True)
    assert torch.equal(noisy[:, 0], noisy[:, 1])
    assert torch.equal(noisy[:, 0], noisy[:, 2])


@pytest.mark.parametrize("level", [0.05, 0.4, 1.0])
@pytest.mark.parametrize("peak", [20.0, 400.0])
def test_poisson_variance_is_value_over_peak(level, peak):
    noisy = apply("poisson_noise", np.full((2, 3, 64, 64), level, np.float32), peak=peak).double().numpy()
    photons = level * peak
    assert_moments(noisy, level, level / peak, photons * (1 + 3 * photons) / peak**4)


def linear_light(srgb: np.ndarray | float) -> np.ndarray:
    """Decodes sRGB in float64, by the standard's formula."""
    srgb = np.asarray(srgb, dtype=np.float64)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def test_srgb_curve_follows_the_standard_and_is_inverted():
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    assert np.abs(to_linear(values) - linear_light(values)).max() < 1e-6
    assert np.abs(to_srgb(to_linear(values)) - values).max() < 1e-5
    assert to_srgb(np.array([-1, 2], dtype=np.float32)).tolist() == pytest.approx([0, 1])


@pytest.mark.parametrize("level", [0.3, 0.5, 0.8])
@pytest.mark.parametrize(("shot", "read"), [(1e-3, 0.0), (0.0, 5e-3), (5e-4, 3e-3)])
def test_sensor_noise_variance_grows_with_light(level, shot, read):
    noisy = apply("sensor_noise", np.full((2, 3, 64, 64), level, np.float32), shot=shot, read=read)
    light = float(linear_light(np.float32(level)))
    variance = shot * light + read**2
    assert_moments(linear_light(noisy.numpy()), light, variance, 3 * variance**2)


# Compression and processing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("subsampling", "factor"), [(420, 0x221111), (422, 0x211111), (444, 0x111111)])
@pytest.mark.parametrize("quality", [1, 35, 100])
def test_jpeg_equals_a_file_written_and_read(tmp_path, subsampling, factor, quality):
    levels = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)
    file = str(tmp_path / "image.jpg")
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    cv2.imwrite(file, cv2.cvtColor(levels, cv2.COLOR_RGB2BGR), flags)
    expected = cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB)
    image = torch.from_numpy(levels.transpose(2, 0, 1)[None].copy()).float() / 255
    result = apply("jpeg", image, quality=quality, subsampling=subsampling)
    assert torch.equal(result[0].permute(1, 2, 0), torch.from_numpy(expected).float() / 255)


def test_jpeg_keeps_colours_apart():
    """Luma weighs green most: with red and blue exchanged, a pure red image would come back blue."""
    red = torch.zeros(1, 3, 16, 16)
    red[:, 0] = 1
    assert (apply("jpeg", red, quality=95, subsampling=420) - red).abs().max() < 0.02


def test_unsharp_mask_adds_what_the_blur_takes_away():
    image = noise_image(32, 30)
    blurred = ndimage.gaussian_filter(image.astype(np.float64), (0, 0, 1.5, 1.5), mode="reflect", truncate=8)
    sharpened = apply("unsharp_mask", image, amount=0.8, radius=1.5).numpy()
    assert np.abs(sharpened - (image + 0.8 * (image - blurred))).max() < 2e-5


def test_colour_shift_multiplies_linear_light():
    image = noise_image(16, 16) * np.float32(0.8)
    shifted = linear_light(apply("colour_shift", image, red=1.2, blue=0.9, brightness=1.1).numpy())
    gains = np.array([1.2, 1.0, 0.9])[:, None, None] * 1.1
    assert np.abs(shifted - linear_light(image) * gains).max() < 1e-5


def test_gamma_is_a_power_of_the_encoded_value():
    image = noise_image(16, 16)
    assert np.abs(apply("gamma", image, exponent=1.7).numpy() - image.astype(np.float64) ** 1.7).max() < 1e-6
