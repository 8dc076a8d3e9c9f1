"""Networks: the sub-pixel form, colour, parameters as a vector, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from metarestore.config.model import FSRCNNSpec
from metarestore.degradations.resample import bicubic_upsample
from metarestore.errors import UserError
from metarestore.models.build import build_model, restore_rgb, to_channels
from metarestore.models.checkpoint import load_model, save_model
from metarestore.models.colour import rgb_to_y, rgb_to_ycbcr, ycbcr_to_rgb
from metarestore.models.parameters import Layout, initial_vector
from metarestore.models.restore import image_restorer
from metarestore.models.subpixel import subpixel_conv_transpose


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("outputs", [1, 3])
def test_subpixel_form_equals_the_transposed_convolution(
    scale: int, dtype: torch.dtype, tolerance: float, outputs: int
) -> None:
    rng = torch.Generator().manual_seed(scale)
    features = torch.rand(2, 7, 9, 11, generator=rng, dtype=dtype)
    weight = 0.05 * torch.randn(7, outputs, 9, 9, generator=rng, dtype=dtype)
    bias = torch.randn(outputs, generator=rng, dtype=dtype)
    expected = F.conv_transpose2d(features, weight, bias, stride=scale, padding=4, output_padding=scale - 1)
    found = subpixel_conv_transpose(features, weight, bias, scale)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


def test_subpixel_form_has_the_same_gradients() -> None:
    rng = torch.Generator().manual_seed(0)
    features = torch.rand(1, 3, 5, 5, generator=rng, dtype=torch.float64)
    weight = torch.randn(3, 1, 9, 9, generator=rng, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(1, dtype=torch.float64)
    ours = torch.autograd.grad(subpixel_conv_transpose(features, weight, bias, 3).square().sum(), weight)[0]
    direct = F.conv_transpose2d(features, weight, bias, stride=3, padding=4, output_padding=2)
    expected = torch.autograd.grad(direct.square().sum(), weight)[0]
    torch.testing.assert_close(ours, expected)


def test_published_parameter_count() -> None:
    """FSRCNN(56, 12, 4): 12,464 weights (Dong et al., 2016, table 1), plus biases and PReLU slopes."""
    model = build_model(FSRCNNSpec(), scale=4, seed=0)
    kernels = sum(p.numel() for p in model.parameters() if p.dim() == 4)
    assert kernels == 12_464


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("channels", ["y", "rgb"])
def test_a_residual_network_starts_near_bicubic(scale: int, channels: str) -> None:
    model = build_model(FSRCNNSpec(channels=channels), scale=scale, seed=0)  # type: ignore[arg-type]
    planes = 1 if channels == "y" else 3
    lr = torch.rand(2, planes, 12, 10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        restored = model(lr)
    assert restored.shape == (2, planes, 12 * scale, 10 * scale)
    assert float((restored - bicubic_upsample(lr, scale)).abs().max()) < 0.2


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    a = initial_vector(build_model(FSRCNNSpec(), 4, seed=7))
    assert torch.equal(torch.get_rng_state(), state), "global random state was changed"
    torch.manual_seed(2)
    assert torch.equal(a, initial_vector(build_model(FSRCNNSpec(), 4, seed=7)))
    assert not torch.equal(a, initial_vector(build_model(FSRCNNSpec(), 4, seed=8)))


def test_layout_round_trip() -> None:
    model = build_model(FSRCNNSpec(d=8, s=4, m=1), 2, seed=0)
    layout = Layout.of(model)
    flat = torch.arange(layout.size, dtype=torch.float32)
    assert torch.equal(layout.flatten(layout.unflatten(flat)), flat)
    with pytest.raises(ValueError, match=f"expected {layout.size} parameters"):
        layout.unflatten(flat[1:])


def test_luma_is_matlab_s() -> None:
    """White is 235, black 16, and pure colours have the weights of BT.601."""
    colours = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    y = rgb_to_y(colours[:, :, None, None])[:, 0, 0, 0] * 255
    expected = [16, 235, 16 + 65.481, 16 + 128.553, 16 + 24.966]
    np.testing.assert_allclose(y.numpy(), expected, atol=1e-9)


def test_colour_round_trip_and_gray_has_no_chroma() -> None:
    rgb = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(ycbcr_to_rgb(rgb_to_ycbcr(rgb)), rgb)
    torch.testing.assert_close(rgb_to_ycbcr(rgb)[:, :1], rgb_to_y(rgb))
    gray = rgb[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(rgb_to_ycbcr(gray)[:, 1:] * 255, torch.full((2, 2, 4, 5), 128.0, dtype=torch.float64))


def test_channels() -> None:
    rgb = torch.rand(2, 3, 4, 4)
    assert to_channels(rgb, "rgb") is rgb
    assert torch.equal(to_channels(rgb, "y"), rgb_to_y(rgb))


def test_equal_weights_give_equal_files_and_load_back(tmp_path: Path) -> None:
    spec = FSRCNNSpec(d=8, s=4, m=1, channels="rgb")
    flat = initial_vector(build_model(spec, 3, seed=5))
    for name in ("a", "b"):
        save_model(tmp_path / name / "model.safetensors", spec, 3, flat)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    model = load_model(tmp_path / "a")
    assert (model.scale, model.channels) == (3, "rgb")
    assert torch.equal(initial_vector(model), flat)


def test_files_that_are_no_networks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.safetensors: no such file"):
        load_model(tmp_path)
    (tmp_path / "bad.safetensors").write_bytes(b"not a network")
    with pytest.raises(UserError, match="not a safetensors file"):
        load_model(tmp_path / "bad.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="was not written by metarestore"):
        load_model(tmp_path / "other.safetensors")


def test_a_network_of_another_shape_is_named(tmp_path: Path) -> None:
    model = build_model(FSRCNNSpec(d=8, s=4, m=1), 2, seed=0)
    metadata = {"metarestore": '{"model": {"kind": "fsrcnn", "d": 9, "s": 4, "m": 1}, "scale": 2}'}
    for name, description in (("a", metadata), ("b", {"metarestore": "{"}), ("c", {"metarestore": "{}"})):
        save_file(dict(model.state_dict()), tmp_path / f"{name}.safetensors", description)
        with pytest.raises(UserError, match=f"{name}.safetensors: its weights do not match its description"):
            load_model(tmp_path / f"{name}.safetensors")


def test_a_gray_photograph_stays_gray() -> None:
    network = build_model(FSRCNNSpec(d=8, s=4, m=1), 2, seed=0)
    gray = np.repeat(np.random.default_rng(0).integers(0, 256, (9, 13, 1), np.uint8), 3, axis=2)
    restored = image_restorer(network)(gray)
    assert restored.shape == (18, 26, 3)
    assert int(np.ptp(restored.astype(int), axis=2).max()) <= 1


def test_restoring_keeps_the_chroma_of_bicubic() -> None:
    network = build_model(FSRCNNSpec(d=8, s=4, m=1), 2, seed=0)
    lr = 0.25 + 0.5 * torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    restored = restore_rgb(network, lr, scale=2, channels="y")
    expected = rgb_to_ycbcr(bicubic_upsample(lr, 2))[:, 1:]
    inside = ((restored > 0) & (restored < 1)).all(dim=1, keepdim=True).expand(-1, 2, -1, -1)
    torch.testing.assert_close(rgb_to_ycbcr(restored)[:, 1:][inside], expected[inside], atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_strips_do_not_show(scale: int) -> None:
    network = build_model(FSRCNNSpec(d=8, s=4, m=2), scale, seed=0)
    with torch.no_grad():
        network.tail.weight.mul_(100)  # so that a strip's missing surroundings would show
    pixels = np.random.default_rng(0).integers(0, 256, (61, 20, 3), np.uint8)
    whole = image_restorer(network)(pixels)
    in_strips = image_restorer(network, strip=20 * 7)(pixels)
    assert whole.shape == in_strips.shape
    assert int(np.abs(whole.astype(int) - in_strips).max()) <= 1  # float sums may round the other way
