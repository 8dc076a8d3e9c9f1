"""What every registered network must do: one row of `EXAMPLES` for a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.func import functional_call, vmap

from metarestore.config.base import Strict
from metarestore.config.model import AnyModelSpec, ModelSpec
from metarestore.models.build import NETWORKS, build_model
from metarestore.models.checkpoint import load_model, save_model
from metarestore.models.kdsr import KDSR
from metarestore.models.network import Network, collected_features, features_of
from metarestore.models.parameters import Layout, initial_vector
from metarestore.models.restore import image_restorer

EXAMPLES: dict[str, dict[str, Any]] = {
    "fsrcnn": {"kind": "fsrcnn", "d": 8, "s": 4, "m": 1},
    "fsrcnn, published": {"kind": "fsrcnn", "d": 8, "s": 4, "m": 2, "residual": "none", "prelu": "per_layer"},
    "fsrcnn, rgb": {"kind": "fsrcnn", "channels": "rgb", "d": 8, "s": 4, "m": 0},
    "kdsr": {"kind": "kdsr", "size": "tiny"},
    "kdsr, teacher": {"kind": "kdsr", "size": "tiny", "estimator": "teacher"},
    "kdsr, no estimator": {"kind": "kdsr", "size": "tiny", "estimator": "none"},
    "compact": {"kind": "compact"},
    "compact, luma": {"kind": "compact", "channels": "y"},
    "ecbsr": {"kind": "ecbsr", "m": 2, "c": 6},
    "ecbsr, plain": {"kind": "ecbsr", "m": 2, "c": 6, "branches": False},
    "ecbsr, rgb": {"kind": "ecbsr", "m": 1, "c": 4, "channels": "rgb"},
}
EXAMPLES |= {
    "pisr_teacher": {"kind": "pisr_teacher", "decoder": {"kind": "fsrcnn", "d": 8, "s": 4, "m": 1}, "d": 6, "s": 5},
    "pisr_teacher of compact": {"kind": "pisr_teacher", "decoder": {"kind": "compact"}, "d": 6, "s": 5},
}
SCALES = (2, 3, 4)
every_network = pytest.mark.parametrize("name", EXAMPLES)


def spec_of(name: str) -> AnyModelSpec:
    return TypeAdapter(ModelSpec).validate_python(EXAMPLES[name])


def network_of(name: str, scale: int = 2, seed: int = 0) -> Network:
    """A network in double precision."""
    return build_model(spec_of(name), scale, seed).double()


def positive(network: Network) -> Network:
    """Makes all weights positive, so that no path from an input pixel to an output pixel cancels another."""
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            rng = torch.Generator().manual_seed(index)
            parameter.copy_(torch.rand(parameter.shape, generator=rng, dtype=torch.float64) / parameter[0].numel())
    return network


def images(network: Network, height: int, width: int, count: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
    """LR images, and for a teacher HR images after them."""
    rng, planes, s = torch.Generator().manual_seed(seed), 1 if network.channels == "y" else 3, network.scale
    lr = torch.rand(count, planes, height, width, generator=rng, dtype=torch.float64)
    hr = torch.rand(count, planes, s * height, s * width, generator=rng, dtype=torch.float64)
    return (lr, hr) if network.privileged else (lr,)


def test_every_kind_is_registered_and_has_an_example() -> None:
    kinds = set(get_args(AnyModelSpec))
    assert set(NETWORKS) == kinds
    assert {type(spec_of(name)) for name in EXAMPLES} == kinds


def test_an_unknown_kind_is_an_error() -> None:
    class Other(Strict):
        kind: str = "other"

    with pytest.raises(TypeError, match="Other is not the specification of a registered network"):
        build_model(Other(), 2, seed=0)  # type: ignore[arg-type]


@every_network
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype(name: str, scale: int, dtype: torch.dtype) -> None:
    network = network_of(name, scale).to(dtype)
    lr, *hr = (tensor.to(dtype) for tensor in images(network, 7, 9))
    with torch.no_grad():
        restored = network(lr, *hr)
    assert restored.shape == (2, lr.shape[1], 7 * scale, 9 * scale)
    assert restored.dtype == dtype
    assert torch.isfinite(restored).all()
    assert (network.scale, network.channels, network.privileged) == (scale, spec_of(name).channels, len(hr) == 1)
    assert spec_of(name).privileged == network.privileged


@every_network
def test_an_image_is_restored_alike_alone_and_in_a_batch(name: str) -> None:
    network = network_of(name)
    given = images(network, 8, 6, count=3)
    with torch.no_grad():
        together = network(*given)
        alone = [network(*(tensor[index : index + 1] for tensor in given)) for index in range(3)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-10, atol=1e-12)


@every_network
@pytest.mark.parametrize("scale", SCALES)
def test_the_receptive_field_is_as_stated(name: str, scale: int) -> None:
    """An output pixel depends on no pixel beyond the stated radius, and on pixels at it, or one pixel nearer.

    One nearer: at x3 a strided layer sees less on the right, a transposed convolution less on the left.
    """
    network = positive(network_of(name, scale))
    radius = network.receptive_field
    assert radius is not None
    middle, side = radius + 2, 2 * radius + 5
    lr, *hr = images(network, 3, side, count=1)
    if isinstance(network, KDSR):  # the embedding is of the whole image, and computed once
        given, embedding = lr.requires_grad_(), torch.ones(1, 16, dtype=torch.float64)
        restored = network(lr, embedding=embedding)
    else:
        given = (hr[0] if hr else lr).requires_grad_()
        restored = network(lr, *hr)
    columns = slice(scale * middle, scale * (middle + 1))
    gradient = torch.autograd.grad(restored[..., columns].sum(), given)[0].abs().sum(dim=(0, 1, 2))
    gradient = gradient.view(side, -1).sum(dim=1)  # of HR pixels, those of an LR pixel
    seen = torch.nonzero(gradient).flatten()
    assert radius - 1 <= max(middle - int(seen[0]), int(seen[-1]) - middle) <= radius


@every_network
def test_a_checkpoint_holds_the_network(name: str, tmp_path: Path) -> None:
    spec, network = spec_of(name), network_of(name, 3, seed=5).float()
    for file in ("a/model.safetensors", "b/model.safetensors"):
        save_model(tmp_path / file, spec, 3, initial_vector(network))
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    found = load_model(tmp_path / "a")
    given = [tensor.float() for tensor in images(network, 6, 7)]
    with torch.no_grad():
        assert torch.equal(found(*given), network(*given))
    assert (type(found), found.scale, found.channels) == (type(network), 3, network.channels)


@every_network
def test_many_tasks_at_once_are_restored_as_one_by_one(name: str) -> None:
    """Each of T tasks has parameters of its own; values and gradients agree."""
    network, count = network_of(name), 3
    flat = torch.stack([initial_vector(network_of(name, seed=seed)) for seed in range(count)]).requires_grad_()
    layout = Layout.of(network)
    each = [images(network, 6, 5, seed=seed) for seed in range(count)]
    given = [torch.stack(tensors) for tensors in zip(*each, strict=True)]

    def restored(flat: Tensor, *given: Tensor) -> Tensor:
        return functional_call(network, layout.unflatten(flat), given)

    together = vmap(restored)(flat, *given)
    looped = torch.stack([restored(*task) for task in zip(flat, *given, strict=True)])
    torch.testing.assert_close(together, looped, rtol=1e-8, atol=1e-10)
    gradients = [torch.autograd.grad(output.square().sum(), flat)[0] for output in (together, looped)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-8)


@every_network
def test_named_features(name: str) -> None:
    """A feature is the output of the layer that it names, also under `vmap`; the restored image stays the same."""
    network = network_of(name)
    names, given = tuple(network.feature_layers), images(network, 6, 5)
    assert names
    params = {key: torch.stack([value, value]) for key, value in dict(network.named_parameters()).items()}
    twice = [torch.stack([tensor, tensor.flip(0)]) for tensor in given]

    def called(params: dict[str, Tensor], *given: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with collected_features(network, names) as features:
            restored = functional_call(network, params, given)
        return restored, dict(features)

    with torch.no_grad():
        restored, features = vmap(called)(params, *twice)
        torch.testing.assert_close(restored[0], network(*given))
        for key, layer in network.feature_layers.items():
            assert features[key].shape[:2] == (2, 2)
            assert features[key].dim() == 5
            torch.testing.assert_close(features[key][0], features[key][1].flip(0))
            before = features[key][0].clone()
            module, seen = network.get_submodule(layer), []
            handle = module.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output.clone()))
            network(*given)
            handle.remove()
            torch.testing.assert_close(seen[-1], before)  # and nothing overwrote it after it was collected
        for key in names:  # alone, without what comes after it
            torch.testing.assert_close(features_of(network, [key], *given)[key], features[key][0])
    assert not any(module._forward_hooks for module in network.modules())
    assert features_of(network, [], *given) == {}
    with (
        pytest.raises(ValueError, match=f"no feature 'none'; available: {names[0]}"),
        collected_features(network, ["none"]),
    ):
        pass


@pytest.mark.parametrize("name", [name for name in EXAMPLES if not spec_of(name).privileged])
@pytest.mark.parametrize("scale", SCALES)
def test_strips_do_not_show(name: str, scale: int) -> None:
    network = positive(network_of(name, scale)).float()
    pixels = np.random.default_rng(0).integers(0, 256, (71, 12, 3), np.uint8)
    whole, strips = (image_restorer(network, strip=12 * rows)(pixels) for rows in (100, 9))
    assert whole.shape == (71 * scale, 12 * scale, 3)
    assert int(np.abs(whole.astype(int) - strips).max()) <= 1  # float sums may round the other way


class Whole(Network):
    """Adds an image's mean to every pixel: what it restores depends on all pixels."""

    tile = 16

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.channels = 2, "rgb"

    @property
    def receptive_field(self) -> None:
        return None

    def forward(self, lr: Tensor) -> Tensor:
        self.sizes = {*getattr(self, "sizes", ()), tuple(lr.shape[-2:])}
        up = lr.repeat_interleave(2, -1).repeat_interleave(2, -2)
        return (up + lr.mean(dim=(-2, -1), keepdim=True)) / 2


def test_a_network_that_sees_the_whole_image_restores_tiles_of_its_size() -> None:
    network = Whole()
    flat = np.full((41, 23, 3), 100, np.uint8)
    assert (image_restorer(network)(flat) == 100).all()  # the weights of overlapping tiles sum to 1
    assert network.sizes == {(16, 16)}
    network.sizes = set()
    image_restorer(network)(flat[:9])
    assert network.sizes == {(9, 16)}
    step = flat.copy()
    step[20:] = 200
    jumps = np.abs(np.diff(image_restorer(network)(step)[:, 0, 0].astype(int)))
    assert int(jumps.argmax()) == 39  # the edge itself
    assert np.delete(jumps, 39).max() <= 12  # tiles fade into each other
