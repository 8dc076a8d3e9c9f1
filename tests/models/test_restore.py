"""Arrays that can be restored: types and channels come back as they went in; anything else is one clear error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from metarestore.config.model import FSRCNNSpec, KDSRSpec
from metarestore.errors import UserError
from metarestore.models.build import build_model
from metarestore.models.network import Network
from metarestore.models.restore import image_restorer

RNG = np.random.default_rng(0)
RGB = np.kron(RNG.integers(0, 256, (6, 5, 3)), np.ones((4, 4, 1))).astype(np.uint8)
GRAY = np.ascontiguousarray(RGB[..., 0])
ALPHA = np.ascontiguousarray(RGB[..., 1])


def fsrcnn(channels: str = "y") -> Network:
    return build_model(FSRCNNSpec(d=8, s=4, m=1, channels=channels), 2, seed=0)


@pytest.fixture(params=["y", "rgb", "kdsr"])
def network(request: pytest.FixtureRequest) -> Network:
    if request.param != "kdsr":
        return fsrcnn(request.param)
    return build_model(KDSRSpec(kind="kdsr", size="tiny"), 2, seed=0)


AS: dict[str, Any] = {
    "uint16": lambda pixels: pixels.astype(np.uint16) * 257,
    "float32": lambda pixels: pixels.astype(np.float32) / np.float32(255),
    "float64": lambda pixels: pixels.astype(np.float64) / 255,
    "big-endian": lambda pixels: (pixels.astype(np.float64) / 255).astype(">f4"),
    "read-only": lambda pixels: np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape),
    "low is above high": lambda pixels: np.flipud(np.flipud(pixels).copy()),
}


@pytest.mark.parametrize("kind", AS)
@pytest.mark.parametrize("pixels", [RGB, GRAY, np.dstack([GRAY, ALPHA])], ids=["RGB", "gray", "gray and alpha"])
def test_the_same_photograph_is_restored_alike_in_every_type(kind: str, pixels: np.ndarray, network: Network) -> None:
    given = AS[kind](pixels)
    restored = image_restorer(network)(given)
    expected = image_restorer(network)(pixels)
    assert restored.dtype == given.dtype.newbyteorder("=")
    assert restored.shape == expected.shape
    white = {"f": 1.0, "u": float(np.iinfo(given.dtype).max) if given.dtype.kind == "u" else 1.0}[given.dtype.kind]
    assert np.abs(restored / white - expected / 255).max() <= 0.51 / 255
    assert expected.std() > 20


@pytest.mark.parametrize("shape", [(24, 20), (24, 20, 1), (24, 20, 2), (24, 20, 3), (24, 20, 4)])
def test_channels_come_back(shape: tuple[int, ...], network: Network) -> None:
    pixels = RNG.integers(0, 256, shape, np.uint8)
    assert image_restorer(network)(pixels).shape == (48, 40, *shape[2:])


def test_gray_is_the_luma_of_the_same_picture_in_colour(network: Network) -> None:
    gray = image_restorer(network)(GRAY.astype(np.float32) / 255)
    colour = image_restorer(network)(np.repeat(GRAY[..., None], 3, axis=2).astype(np.float32) / 255)
    np.testing.assert_allclose(gray, colour @ np.array([0.299, 0.587, 0.114]), atol=2e-3)


def test_alpha_is_restored_by_itself_and_leaves_the_colours_alone(network: Network) -> None:
    restore = image_restorer(network)
    restored = restore(np.dstack([RGB, ALPHA]))
    np.testing.assert_array_equal(restored[..., :3], restore(RGB))
    assert np.corrcoef(restored[..., 3].ravel(), np.kron(ALPHA, np.ones((2, 2))).ravel())[0, 1] > 0.9


@pytest.mark.parametrize("level", [0, 77, 255])
def test_what_is_equally_opaque_stays_so(level: int, network: Network) -> None:
    restored = image_restorer(network)(np.dstack([RGB, np.full_like(ALPHA, level)]))
    assert np.unique(restored[..., 3]).tolist() == [level]


def test_strips_do_not_show_in_alpha() -> None:
    network = fsrcnn()
    pixels = np.dstack([RGB, ALPHA]).repeat(3, axis=0)
    whole, strips = image_restorer(network)(pixels), image_restorer(network, strip=20 * 7)(pixels)
    assert int(np.abs(whole.astype(int) - strips).max()) <= 1


WRONG: dict[str, tuple[Any, str]] = {
    "floats up to 255": (RGB.astype(np.float64), r"values from .* to 2\d\d"),
    "floats just above 1": (np.full((4, 4), 1.01), "values from 1.01 to 1.01"),
    "negative floats": (np.full((4, 4, 3), -0.5, np.float32), "values from -0.5"),
    "NaN": (np.full((4, 4), np.nan), "values from nan to nan"),
    "one NaN": (np.where(np.eye(4) > 0, np.nan, 0.5), "values from nan"),
    "infinite": (np.full((4, 4), np.inf), "values from inf"),
    "int64": (RGB.astype(np.int64), "has int64 values"),
    "bool": (GRAY > 99, "has bool values"),
    "float16": (RGB.astype(np.float16) / 256, "has float16 values"),
    "complex": (GRAY * 1j, "has complex128 values"),
    "a path": ("photo.png", "must be a NumPy array, got str"),
    "an image": (Image.fromarray(RGB), "must be a NumPy array, got Image"),
    "a tensor": (torch.zeros(3, 4, 4), "must be a NumPy array, got Tensor"),
    "channels first": (RGB.transpose(2, 0, 1), r"has the shape \(3, 24, 20\)"),
    "a batch": (RGB[None], r"has the shape \(1, 24, 20, 3\)"),
    "a line": (GRAY[0], r"has the shape \(20,\)"),
    "nothing": (RGB[:0], r"has the shape \(0, 20, 3\)"),
}


@pytest.mark.parametrize(("pixels", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_restored_is_one_clear_error(pixels: Any, message: str) -> None:
    with pytest.raises(
        UserError, match=f"^restore: the photograph .*{message}.*; give uint8 values of 0..255, "
    ) as caught:
        image_restorer(fsrcnn())(pixels)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("channels", ["y", "rgb"])
def test_a_smaller_factor_has_the_grid_of_the_photograph_and_no_seams(scale: int, channels: str) -> None:
    network = build_model(FSRCNNSpec(d=8, s=4, m=1, channels=channels), 4, seed=0)
    pixels = RGB.repeat(3, axis=0).astype(np.float32) / 255
    whole, strips = (image_restorer(network, strip=strip, scale=scale)(pixels) for strip in (10**6, 20 * 7))
    assert whole.shape == (scale * pixels.shape[0], scale * pixels.shape[1], 3)
    np.testing.assert_allclose(whole, strips, atol=1e-5)
    large = torch.from_numpy(image_restorer(network)(pixels)).permute(2, 0, 1)[None]
    expected = (
        F.interpolate(large, size=whole.shape[:2], mode="bicubic", antialias=True)[0].permute(1, 2, 0).clamp(0, 1)
    )
    assert np.abs(whole - expected.numpy()).mean() < (0.01 if channels == "rgb" else 0.02)


def test_a_larger_factor_is_refused() -> None:
    with pytest.raises(UserError, match="--scale: the network upscales by 2, not by 3; write --scale 2"):
        image_restorer(fsrcnn(), scale=3)
