"""The small networks as published: sizes, names of weights, and branches that fold into plain convolutions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarestore.config.model import CompactSpec, ECBSRSpec, FSRCNNSpec
from metarestore.errors import UserError
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, load_vector, save_model
from metarestore.models.ecbsr import EDGES, Branches
from metarestore.models.parameters import initial_vector

COMPACT = {"superultracompact": (24, 8, 52_968), "ultracompact": (64, 8, 325_488), "compact": (64, 16, 621_424)}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_published_fsrcnn(scale: int) -> None:
    """One slope for each PReLU and no skip: 12,644 parameters at every scale."""
    published = build_model(FSRCNNSpec(residual="none", prelu="per_layer"), scale, seed=0)
    assert count(published) == 12_644
    assert count(build_model(FSRCNNSpec(), scale, seed=0)) == 12_809
    slopes = [layer.weight.numel() for layer in published.modules() if isinstance(layer, nn.PReLU)]
    assert slopes == [1] * 7
    with torch.no_grad():
        published.tail.weight.zero_()
        assert not published(torch.rand(1, 1, 5, 5)).any()


def test_weights_keep_the_form_of_their_prelu(tmp_path: Path) -> None:
    spec = FSRCNNSpec(d=8, s=4, m=1, prelu="per_layer")
    flat = initial_vector(build_model(spec, 2, seed=0))
    save_model(tmp_path / "model.safetensors", spec, 2, flat)
    assert torch.equal(initial_vector(load_model(tmp_path)), flat)
    other = FSRCNNSpec(d=8, s=4, m=1)
    with pytest.raises(UserError, match=r"another network \(prelu is per_layer, expected per_channel\)"):
        load_vector(tmp_path, other, 2, "training.init", build_model(other, 2, seed=0))


@pytest.mark.parametrize("size", COMPACT)
def test_compact_has_the_published_names_and_shapes(size: str) -> None:
    features, hidden, total = COMPACT[size]
    network = build_model(CompactSpec(kind="compact", size=size), 4, seed=0)  # type: ignore[arg-type]
    expected: dict[str, tuple[int, ...]] = {}
    for layer in range(hidden + 1):
        expected[f"body.{2 * layer}.weight"] = (features, features if layer else 3, 3, 3)
        expected[f"body.{2 * layer}.bias"] = (features,)
        expected[f"body.{2 * layer + 1}.weight"] = (features,)
    expected |= {f"body.{2 * hidden + 2}.weight": (48, features, 3, 3), f"body.{2 * hidden + 2}.bias": (48,)}
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == expected
    assert count(network) == total


@pytest.mark.parametrize("kind", ["compact", "ecbsr"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_skip_is_nearest_neighbour(kind: str, scale: int) -> None:
    spec = CompactSpec(kind="compact") if kind == "compact" else ECBSRSpec(kind="ecbsr", channels="rgb")
    network = build_model(spec, scale, seed=0)
    with torch.no_grad():
        for parameter in network.body[-1].parameters():
            parameter.zero_()
        lr = torch.rand(2, 3, 4, 5)
        torch.testing.assert_close(network(lr), F.interpolate(lr, scale_factor=scale, mode="nearest"))


def branch_by_branch(block: Branches, x: Tensor) -> Tensor:
    """The published block: every branch's 1×1 convolution sees the zeros around the image."""
    weights, framed = dict(block.named_parameters()), F.pad(x, (1, 1, 1, 1))

    def conv(name: str, maps: Tensor) -> Tensor:
        return F.conv2d(maps, weights[f"{name}.weight"], weights[f"{name}.bias"])

    total = conv("plain", framed) + conv("expanding.squeeze", conv("expanding.expand", framed))
    for index, edge in enumerate(EDGES.values()):
        reduced = conv(f"edges.{index}.reduce", framed)
        kernel = torch.tensor(edge, dtype=x.dtype).expand(reduced.shape[1], 1, 3, 3)
        filtered = F.conv2d(reduced, kernel, groups=reduced.shape[1])
        scale, bias = (weights[f"edges.{index}.{part}"][:, None, None] for part in ("scale", "bias"))
        total = total + scale * filtered + bias
    return total


def drawn(network: nn.Module) -> None:
    """Draws all parameters at random: the edge branches start near 0."""
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)) / 4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_branches_fold_exactly(dtype: torch.dtype, tolerance: float) -> None:
    block = Branches(5, 7)
    drawn(block)
    block, x = block.to(dtype), torch.rand(2, 5, 9, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = branch_by_branch(block, x)
    assert float((block(x) - expected).detach().abs().max()) <= tolerance * float(expected.detach().abs().max())
    if dtype == torch.float64:
        parameters = list(block.parameters())
        ours, theirs = (
            torch.autograd.grad(y.square().sum(), parameters) for y in (block(x), branch_by_branch(block, x))
        )
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


def test_a_plain_network_starts_from_one_with_branches(tmp_path: Path) -> None:
    specs = [ECBSRSpec(kind="ecbsr", branches=branches) for branches in (True, False)]
    trained, plain = (build_model(spec, 4, seed=index) for index, spec in enumerate(specs))
    drawn(trained)
    save_model(tmp_path / "model.safetensors", specs[0], 4, initial_vector(trained))
    flat = load_vector(tmp_path, specs[1], 4, "training.init", plain)
    assert len(flat) == count(plain) == 11_840
    torch.nn.utils.vector_to_parameters(flat, plain.parameters())
    lr = torch.rand(1, 1, 11, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = trained(lr)
        assert float((plain(lr) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert all(type(layer) in {nn.Conv2d, nn.PReLU} for layer in plain.body)
    save_model(tmp_path / "plain.safetensors", specs[1], 4, flat)
    with pytest.raises(UserError, match=r"training.init: .* branches cannot be recovered"):
        load_vector(tmp_path / "plain.safetensors", specs[0], 4, "training.init", trained)
