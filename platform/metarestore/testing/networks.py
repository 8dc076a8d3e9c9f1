"""Contract tests of networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.func import functional_call, vmap

from metarestore.config.model import AnyModelSpec, ModelSpec
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, save_model
from metarestore.models.kdsr import KDSR
from metarestore.models.network import Network, collected_features, features_of
from metarestore.models.parameters import Layout, initial_vector
from metarestore.models.restore import image_restorer
from metarestore.testing.contract import Contract

Example = Mapping[str, Any]
SCALES = (2, 3, 4)
every_scale = pytest.mark.parametrize("scale", SCALES)


def spec_of(example: Example) -> AnyModelSpec:
    """Parses the section `model` of an experiment."""
    spec: AnyModelSpec = TypeAdapter(ModelSpec).validate_python(example)
    return spec


def network_of(example: Example, scale: int = 2, seed: int = 0) -> Network:
    """Builds a network in double precision."""
    return build_model(spec_of(example), scale, seed).double()


def positive(network: Network) -> Network:
    """Makes all weights positive, so that paths from an input pixel to an output pixel cannot cancel."""
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            rng = torch.Generator().manual_seed(index)
            parameter.copy_(torch.rand(parameter.shape, generator=rng, dtype=torch.float64) / parameter[0].numel())
    return network


def images(network: Network, height: int, width: int, count: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
    """Returns LR images, followed by HR images for a teacher."""
    rng, planes, s = torch.Generator().manual_seed(seed), 1 if network.channels == "y" else 3, network.scale
    lr = torch.rand(count, planes, height, width, generator=rng, dtype=torch.float64)
    hr = torch.rand(count, planes, s * height, s * width, generator=rng, dtype=torch.float64)
    return (lr, hr) if network.privileged else (lr,)


class NetworkContract(Contract):
    """Tests networks; an example is the section `model` of an experiment, preferably of a small network."""

    @every_scale
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_shape_and_dtype(self, example: Example, scale: int, dtype: torch.dtype) -> None:
        """A restored image has the expected size and the dtype of the input; network and specification agree."""
        network, spec = network_of(example, scale).to(dtype), spec_of(example)
        lr, *hr = (tensor.to(dtype) for tensor in images(network, 7, 9))
        with torch.no_grad():
            restored = network(lr, *hr)
        assert restored.shape == (2, lr.shape[1], 7 * scale, 9 * scale)
        assert restored.dtype == dtype
        assert torch.isfinite(restored).all()
        channels = getattr(spec, "channels", network.channels)  # a file may determine them
        assert (network.scale, network.channels, network.privileged) == (scale, channels, len(hr) == 1)
        assert spec.privileged == network.privileged

    def test_an_image_is_restored_alike_alone_and_in_a_batch(self, example: Example) -> None:
        """An image does not depend on the other images of its batch."""
        network = network_of(example)
        given = images(network, 8, 6, count=3)
        with torch.no_grad():
            together = network(*given)
            alone = [network(*(tensor[index : index + 1] for tensor in given)) for index in range(3)]
        torch.testing.assert_close(torch.cat(alone), together, rtol=1e-10, atol=1e-12)

    @every_scale
    def test_the_receptive_field_is_as_stated(self, example: Example, scale: int) -> None:
        """An output pixel depends on pixels at the stated radius, on at least one side, and on none beyond it."""
        network = positive(network_of(example, scale))
        radius = network.receptive_field
        if radius is None:
            pytest.skip("the network depends on the whole image")
        middle, side = radius + 2, 2 * radius + 5
        lr, *hr = images(network, 3, side, count=1)
        if isinstance(network, KDSR):  # the embedding depends on the whole image, so it is fixed here
            given, embedding = lr.requires_grad_(), torch.ones(1, 16, dtype=torch.float64)
            restored = network(lr, embedding=embedding)
        else:
            given = (hr[0] if hr else lr).requires_grad_()
            restored = network(lr, *hr)
        columns = slice(scale * middle, scale * (middle + 1))
        gradient = torch.autograd.grad(restored[..., columns].sum(), given)[0].abs().sum(dim=(0, 1, 2))
        gradient = gradient.view(side, -1).sum(dim=1)  # HR pixels are summed over each LR pixel
        used = torch.nonzero(gradient).flatten()
        before, after = middle - int(used[0]), int(used[-1]) - middle
        assert max(before, after) == radius
        sides = network.receptive_sides
        assert sides is not None
        assert (before <= sides[0], after <= sides[1]) == (True, True)

    def test_a_checkpoint_holds_the_network(self, example: Example, tmp_path: Path) -> None:
        """Equal weights are saved as equal bytes, and a loaded network restores the same images."""
        spec, network = spec_of(example), network_of(example, 3, seed=5).float()
        for file in ("a/model.safetensors", "b/model.safetensors"):
            save_model(tmp_path / file, spec, 3, initial_vector(network))
        assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
        loaded = load_model(tmp_path / "a")
        given = [tensor.float() for tensor in images(network, 6, 7)]
        with torch.no_grad():
            assert torch.equal(loaded(*given), network(*given))
        assert (type(loaded), loaded.scale, loaded.channels) == (type(network), 3, network.channels)

    def test_many_tasks_at_once_are_restored_as_one_by_one(self, example: Example) -> None:
        """With separate parameters for each of T tasks, values and gradients agree with a loop over tasks."""
        network, count = network_of(example), 3
        flat = torch.stack([initial_vector(network_of(example, seed=seed)) for seed in range(count)]).requires_grad_()
        layout = Layout.of(network)
        each = [images(network, 6, 5, seed=seed) for seed in range(count)]
        given = [torch.stack(tensors) for tensors in zip(*each, strict=True)]

        def restored(flat: Tensor, *given: Tensor) -> Tensor:
            output: Tensor = functional_call(network, layout.unflatten(flat), given)
            return output

        together = vmap(restored)(flat, *given)
        looped = torch.stack([restored(*task) for task in zip(flat, *given, strict=True)])
        torch.testing.assert_close(together, looped, rtol=1e-8, atol=1e-10)
        gradients = [torch.autograd.grad(output.square().sum(), flat)[0] for output in (together, looped)]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-8)

    def test_named_features(self, example: Example) -> None:
        """A feature is the output of the named layer, also under `vmap`; the restored image does not change."""
        network = network_of(example)
        names, given = tuple(network.feature_layers), images(network, 6, 5)
        params = {key: torch.stack([value, value]) for key, value in dict(network.named_parameters()).items()}
        twice = [torch.stack([tensor, tensor.flip(0)]) for tensor in given]

        def called(params: dict[str, Tensor], *given: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            with collected_features(network, names) as features:
                restored: Tensor = functional_call(network, params, given)
            return restored, dict(features)

        with torch.no_grad():
            restored, features = vmap(called)(params, *twice)
            torch.testing.assert_close(restored[0], network(*given))
            for key, layer in network.feature_layers.items():
                assert features[key].shape[:2] == (2, 2)
                assert features[key].dim() == 5
                torch.testing.assert_close(features[key][0], features[key][1].flip(0))
                before = features[key][0].clone()
                torch.testing.assert_close(_output(network, layer, given), before)  # not modified in place since
            for key in names:  # each alone, without the layers after it
                torch.testing.assert_close(features_of(network, [key], *given)[key], features[key][0])
        assert features_of(network, [], *given) == {}
        assert not any(module._forward_hooks for module in network.modules())

    @every_scale
    def test_strips_do_not_show(self, example: Example, scale: int) -> None:
        """A photograph that is restored in strips equals the one restored as a whole."""
        network = positive(network_of(example, scale)).float()
        if network.privileged or network.receptive_field is None:
            pytest.skip("the network is a teacher, or restores images in tiles")
        pixels = np.random.default_rng(0).integers(0, 256, (71, 12, 3), np.uint8)
        whole, strips = (image_restorer(network, strip=12 * rows)(pixels) for rows in (100, 9))
        assert whole.shape == (71 * scale, 12 * scale, 3)
        assert int(np.abs(whole.astype(int) - strips).max()) <= 1  # floating-point sums may be rounded differently


def _output(network: Network, layer: str, given: tuple[Tensor, ...]) -> Tensor:
    outputs: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: outputs.append(output.clone())
    )
    network(*given)
    handle.remove()
    return outputs[-1]
