"""Resampling against float64 matrices, OpenCV and PyTorch."""

import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from metarestore.degradations import bicubic_downsample, bicubic_upsample
from metarestore.degradations.exportable import upsample_by_convolution
from metarestore.degradations.interpolation import nearest_index, resample_batch, resample_image, weights

METHODS = ["bicubic", "bilinear", "area", "nearest", "lanczos"]


def imresize_matrix(length: int, out: int) -> np.ndarray:
    """Returns the weights (out, length) of MATLAB's imresize, bicubic with antialiasing."""
    factor = out / length
    stretch = max(1.0, 1.0 / factor)
    matrix = np.zeros((out, length))
    for row in range(out):
        centre = (row + 0.5) / factor - 0.5
        taps = np.arange(math.floor(centre - 2 * stretch) - 1, math.ceil(centre + 2 * stretch) + 2)
        x = np.abs(taps - centre) / stretch
        values = np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2) * (x < 2)
        mirror = np.concatenate([np.arange(length), np.arange(length)[::-1]])
        np.add.at(matrix[row], mirror[taps % (2 * length)], values / values.sum())
    return matrix


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(5, 8), (1, 2)])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_bicubic_equals_imresize(scale, size, direction):
    large, small = (scale * size[0], scale * size[1]), size
    (height, width), (rows, columns) = (large, small) if direction == "down" else (small, large)
    image = np.random.default_rng(0).random((2, 3, height, width))
    expected = imresize_matrix(height, rows) @ image @ imresize_matrix(width, columns).T
    resample = bicubic_downsample if direction == "down" else bicubic_upsample
    exact, single = resample(torch.from_numpy(image), scale), resample(torch.from_numpy(image).float(), scale)
    assert exact.dtype == torch.float64
    assert np.abs(exact.numpy() - expected).max() <= 1e-12 * np.abs(expected).max()
    assert single.dtype == torch.float32
    assert np.abs(single.numpy() - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("out", [5, 16, 23, 64, 100])
def test_bicubic_to_any_size_equals_imresize(out):
    assert np.abs(weights(64, out, "bicubic", True).toarray() - imresize_matrix(64, out)).max() < 1e-6


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(9, 31), (64, 40), (71, 90), (4, 4)])
def test_both_backends_agree(method, antialias, size, noise_image):
    image = noise_image(40, 52)
    batch = resample_batch(torch.from_numpy(image), size, method, antialias)
    single = resample_image(np.ascontiguousarray(image[0].transpose(1, 2, 0)), size, method, antialias)
    assert single.shape == (*size, 3)
    assert np.abs(batch[0].permute(1, 2, 0).numpy() - single).max() < 2e-6


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("out", [8, 16, 29, 64, 150])
def test_flat_stays_flat_and_a_ramp_stays_centred(method, antialias, out):
    matrix = weights(64, out, method, antialias).toarray().astype(np.float64)
    assert np.allclose(matrix.sum(axis=1), 1, atol=1e-6)
    ramp = matrix @ np.arange(64.0)
    middle = (np.arange(out) + 0.5) * 64 / out - 0.5
    inner = (middle > 3 * max(1, 64 / out)) & (middle < 63 - 3 * max(1, 64 / out))
    # A sampled kernel wiggles around the line, and the middle of a pixel at the edge of what it covers is not covered.
    slack = {"nearest": 0.5 * max(1, 64 / out) + 1e-4, "area": 0.5}.get(method, 0.1)
    assert (np.abs(ramp - middle)[inner] <= slack).all()
    assert method == "nearest" or abs((ramp - middle)[inner].mean()) < 0.01


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_nearest_takes_the_pixel_before_the_middle(scale):
    assert nearest_index(8 * scale, 8).tolist() == [scale * n + (scale - 1) // 2 for n in range(8)]
    assert nearest_index(8, 8 * scale).tolist() == [n // scale for n in range(8 * scale)]


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(20, 70), (64, 33)])
def test_without_antialiasing_equals_pytorch(mode, size, noise_image):
    image = torch.from_numpy(noise_image(40, 52))
    expected = F.interpolate(image, size=size, mode=mode, align_corners=False)
    assert (resample_batch(image, size, mode, False) - expected).abs().max() < 1e-5


def test_area_shrinks_as_opencv_does(noise_image):
    image = noise_image(40, 52)
    expected = cv2.resize(image[0].transpose(1, 2, 0), (33, 17), interpolation=cv2.INTER_AREA)
    result = resample_batch(torch.from_numpy(image), (17, 33), "area", True)[0].permute(1, 2, 0).numpy()
    assert np.abs(result - expected).max() < 1e-6


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_area_is_the_mean_of_each_block(scale, noise_image, apply):
    image = torch.from_numpy(noise_image(6 * scale, 5 * scale))
    result = apply("downsample", image, size=(6, 5), method="area", antialias=True, scale=scale)
    assert torch.allclose(result, F.avg_pool2d(image, scale), atol=1e-6)


@pytest.mark.parametrize("backend", ["opencv", "torch"])
def test_resize_goes_to_the_rounded_size(backend, noise_image, apply):
    image = noise_image(40, 52)
    common = {"method": "bilinear", "antialias": True, "backend": backend, "size": (10, 13)}
    assert apply("resize", image, factor=0.33, of="image", **common).shape == (1, 3, 13, 17)
    assert apply("resize", image, factor=1.5, of="lr", **common).shape == (1, 3, 15, 20)
    assert apply("resize", image, factor=0.01, of="image", **common).shape == (1, 3, 4, 4)
    assert torch.equal(apply("resize", image, factor=1.0, of="image", **common), torch.from_numpy(image))


def test_bicubic_upsample_under_vmap_and_grad():
    images = torch.rand(2, 3, 1, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def energy(x: torch.Tensor) -> torch.Tensor:
        return bicubic_upsample(x, 3).square().sum()

    gradients = torch.func.vmap(torch.func.grad(energy))(images)
    rows, columns = (torch.from_numpy(imresize_matrix(n, 3 * n)) for n in (6, 7))
    assert torch.allclose(gradients, 2 * (rows.T @ rows) @ images @ (columns.T @ columns), rtol=1e-12)


def test_image_must_be_a_multiple_of_the_scale():
    with pytest.raises(ValueError, match="multiple of scale 4, got 10x8; crop it first"):
        bicubic_downsample(torch.zeros(1, 3, 10, 8), 4)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(2, 3), (5, 8), (17, 31)])
def test_bicubic_as_a_convolution_is_the_same(scale, size):
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = bicubic_upsample(images.double(), scale)
    torch.testing.assert_close(upsample_by_convolution(images.double(), scale), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(upsample_by_convolution(images, scale), expected.float(), rtol=0, atol=1e-6)
    # PyTorch computes positions in the precision of the image, so its own error grows with the size.
    torch.testing.assert_close(bicubic_upsample(images, scale), expected.float(), rtol=0, atol=5e-6)
