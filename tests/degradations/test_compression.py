"""Codecs against files written and read, and the differentiable model of JPEG against the real codec."""

import math

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from skimage import data

from metarestore.degradations import OPERATIONS

BACKENDS = ["opencv", "torch"]


def from_levels(levels):
    """Turns levels (H, W, 3) into an image (1, 3, H, W)."""
    return torch.from_numpy(levels.transpose(2, 0, 1)[None].copy()).float() / 255


def file_written_and_read(path, levels, flags):
    cv2.imwrite(str(path), cv2.cvtColor(levels, cv2.COLOR_RGB2BGR), flags)
    return from_levels(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))


def psnr(image, reference):
    return -10 * math.log10((image.clamp(0, 1) - reference).square().mean())


@pytest.fixture(scope="module")
def photograph():
    """A photograph whose sides are no multiples of 16."""
    return data.astronaut()[20:230, 120:370]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("subsampling", "factor"), [(420, 0x221111), (422, 0x211111), (444, 0x111111)])
@pytest.mark.parametrize("quality", [1, 35, 100])
def test_jpeg_equals_a_file_written_and_read(apply, tmp_path, photograph, subsampling, factor, quality, backend):
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    expected = file_written_and_read(tmp_path / "image.jpg", photograph, flags)
    params = {"quality": quality, "subsampling": subsampling, "codec": "libjpeg"}
    assert torch.equal(apply("jpeg", from_levels(photograph), backend=backend, **params), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("quality", [1, 50, 100])
def test_webp_equals_a_file_written_and_read(apply, tmp_path, photograph, quality, backend):
    expected = file_written_and_read(tmp_path / "image.webp", photograph, [cv2.IMWRITE_WEBP_QUALITY, quality])
    image = from_levels(photograph)
    result = apply("webp", image, backend=backend, quality=quality)
    assert torch.equal(result, expected)
    assert not torch.equal(result, image)  # lossy even at 100


@pytest.mark.parametrize("op", ["jpeg", "webp"])
def test_error_falls_with_quality(apply, photograph, op):
    image = from_levels(photograph)
    extra = {"subsampling": 420, "codec": "libjpeg"} if op == "jpeg" else {}
    errors = [psnr(apply(op, image, quality=quality, **extra), image) for quality in (5, 30, 60, 95)]
    assert errors == sorted(errors)


@pytest.mark.parametrize("codec", ["libjpeg", "differentiable"])
def test_jpeg_keeps_colours_apart(apply, codec):
    """Luma weighs green most: with red and blue exchanged, a pure red image would come back blue."""
    red = torch.zeros(1, 3, 16, 16)
    red[:, 0] = 1
    assert (apply("jpeg", red, quality=95, subsampling=420, codec=codec) - red).abs().max() < 0.02


@pytest.mark.parametrize(("quality", "least"), [(10, 35.0), (50, 40.0), (90, 42.0)])
def test_differentiable_jpeg_has_the_quality_scale_of_libjpeg(apply, photograph, quality, least):
    """It lies much nearer to the real codec's result than either lies to the photograph."""
    image, params = from_levels(photograph), {"quality": quality, "subsampling": 420}
    real = apply("jpeg", image, codec="libjpeg", **params)
    model = apply("jpeg", image, codec="differentiable", backend="torch", **params)
    assert psnr(model, real) > least
    assert psnr(model, real) > psnr(real, image) + 5
    assert psnr(model, image) == pytest.approx(psnr(real, image), abs=1.0)


def test_auto_is_the_backends_own_codec(apply, photograph):
    image, params = from_levels(photograph), {"quality": 40, "subsampling": 420}
    for backend, codec in (("opencv", "libjpeg"), ("torch", "differentiable")):
        chosen = apply("jpeg", image, backend=backend, codec="auto", **params)
        assert torch.equal(chosen, apply("jpeg", image, backend=backend, codec=codec, **params))
    params["subsampling"] = 444
    chosen = apply("jpeg", image, backend="torch", codec="auto", **params)
    assert torch.equal(chosen, apply("jpeg", image, codec="libjpeg", **params))


def test_differentiable_jpeg_is_the_same_on_both_backends(apply, noise_image):
    image, params = noise_image(37, 50), {"quality": 40, "subsampling": 420, "codec": "differentiable"}
    batched = apply("jpeg", np.repeat(image, 3, axis=0), backend="torch", **params)
    assert (batched - apply("jpeg", image, **params)).abs().max() < 1e-4


def test_differentiable_jpeg_does_not_depend_on_threads(apply, noise_image):
    image, params = noise_image(300, 260), {"quality": 40, "subsampling": 420, "codec": "differentiable"}
    before = torch.get_num_threads()
    results = []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        results.append(apply("jpeg", image, **params))
    torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("quality", [1, 50, 100])
def test_differentiable_jpeg_has_gradients(apply, photograph, quality):
    image = from_levels(photograph).requires_grad_()
    result = apply("jpeg", image, backend="torch", quality=quality, subsampling=420, codec="differentiable")
    result.square().sum().backward()
    assert image.grad.isfinite().all()
    assert image.grad.abs().mean() > 0.01


def test_differentiable_jpeg_has_one_subsampling():
    with pytest.raises(ValidationError, match="supports only subsampling 420, got 444; use libjpeg"):
        OPERATIONS["jpeg"].model_validate({"op": "jpeg", "quality": 9, "subsampling": 444, "codec": "differentiable"})


def test_webp_quality_stops_at_100():
    """Above 100, OpenCV encodes without loss."""
    with pytest.raises(ValidationError, match="101 is above 100"):
        OPERATIONS["webp"].model_validate({"op": "webp", "quality": 101})
