"""KDSR: published sizes, what its parts compute, and what its output depends on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import vmap

from metarestore.config.model import KDSRSpec
from metarestore.errors import UserError
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, load_vector, save_model
from metarestore.models.dynamic import channels_last, dynamic_depthwise
from metarestore.models.kdsr import KDSR, SIZES, Encoder
from metarestore.models.parameters import Layout, initial_vector
from metarestore.models.restore import image_restorer

FROZEN = 24
"""Parameters of the published code's two frozen shifts by the mean colour; here a buffer of 3 numbers."""


def sized(size: str, scale: int, estimator: str = "student", seed: int = 0) -> KDSR:
    return build_model(KDSRSpec(kind="kdsr", size=size, estimator=estimator), scale, seed)


def tiny(scale: int = 4, estimator: str = "student", seed: int = 0) -> KDSR:
    return sized("tiny", scale, estimator, seed).double()


def trained(network: KDSR) -> KDSR:
    """Makes all weights positive, as no initial ones are: every layer then looks as far as it can."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(uniform(*parameter.shape, seed=len(name)) / max(parameter[0].numel(), 1))
    return network


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("size", "estimator", "count"),
    [
        ("m", "student", 5_795_099),
        ("m", "teacher", 5_822_747),
        ("l", "student", 14_191_003),
        ("l", "teacher", 14_246_299),
        ("m", "none", 4_463_963),
        ("s", "student", 986_939),
        ("tiny", "student", 150_859),
    ],
)
def test_numbers_of_parameters_at_scale_4(size: str, estimator: str, count: int) -> None:
    with torch.device("meta"):
        network = sized(size, 4, estimator)
    assert sum(p.numel() for p in network.parameters()) + FROZEN == count


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("estimator", ["student", "teacher", "none"])
def test_shapes(scale: int, estimator: str) -> None:
    network = tiny(scale, estimator)
    lr, hr = uniform(2, 3, 7, 9), uniform(2, 3, 7 * scale, 9 * scale)
    assert network(lr, hr).shape == hr.shape
    assert network.describe(lr, hr).shape == (2, 16)
    if estimator != "none":
        assert network.encode(lr, hr).distilled.shape == (2, 64)


def test_another_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="scale must be 2, 3 or 4, got 5"):
        sized("tiny", 5)


def test_the_page_tells_the_sizes() -> None:
    page = (Path(__file__).parents[2] / "docs/kdsr.md").read_text()
    for name, size in SIZES.items():
        assert f"| `{name}` | {size.features} | {size.blocks} | {size.encoder_blocks} |" in page


def looped(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Every channel of every image by itself."""
    rows = [
        torch.cat([F.conv2d(image[None, None, c], kernel[None, None, c], padding=1) for c in range(len(image))], dim=1)
        for image, kernel in zip(images, kernels, strict=True)
    ]
    return torch.cat(rows)


@pytest.mark.parametrize("layout", [lambda x: x, channels_last], ids=["by channel", "by pixel"])
def test_dynamic_convolution_is_that_of_each_image(layout: Callable[[torch.Tensor], torch.Tensor]) -> None:
    images, kernels = uniform(3, 4, 6, 5), uniform(3, 4, 3, 3, seed=1)
    torch.testing.assert_close(dynamic_depthwise(layout(images), kernels), looped(images, kernels))


@pytest.mark.parametrize("layout", [lambda x: x, channels_last], ids=["by channel", "by pixel"])
def test_derivatives_of_the_dynamic_convolution(layout: Callable[[torch.Tensor], torch.Tensor]) -> None:
    images, kernels = uniform(2, 3, 5, 4).requires_grad_(), uniform(2, 3, 3, 3, seed=1).requires_grad_()

    def convolved(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
        return dynamic_depthwise(layout(images), kernels)

    assert torch.autograd.gradcheck(convolved, (images, kernels))
    assert torch.autograd.gradgradcheck(convolved, (images, kernels))


def test_dynamic_convolution_of_many_tasks() -> None:
    images, kernels = uniform(4, 2, 3, 5, 6), uniform(4, 2, 3, 3, 3, seed=1)
    expected = torch.stack([looped(*pair) for pair in zip(images, kernels, strict=True)])
    torch.testing.assert_close(vmap(dynamic_depthwise)(images, kernels), expected)
    shared = vmap(dynamic_depthwise, in_dims=(None, 0))(images[0], kernels)
    torch.testing.assert_close(shared, torch.stack([looped(images[0], kernel) for kernel in kernels]))
    moved = vmap(dynamic_depthwise, in_dims=(1, 0))(images.movedim(0, 1), kernels)
    torch.testing.assert_close(moved, expected)


def test_a_teacher_sees_lr_then_the_pixels_of_hr() -> None:
    network = tiny(2, "teacher")
    seen: list[torch.Tensor] = []
    network.estimator.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    lr, hr = uniform(1, 3, 2, 3), uniform(1, 3, 4, 6, seed=1)
    network.describe(lr, hr)
    assert seen[0].shape == (1, 3 + 3 * 4, 2, 3)
    torch.testing.assert_close(seen[0][:, :3], lr)
    for colour in range(3):
        for row in range(2):
            for column in range(2):
                plane = seen[0][:, 3 + 4 * colour + 2 * row + column]
                torch.testing.assert_close(plane, hr[:, colour, row::2, column::2])


def test_a_teacher_needs_hr() -> None:
    with pytest.raises(ValueError, match="needs the HR images as input"):
        tiny(2, "teacher")(uniform(1, 3, 4, 4))
    with pytest.raises(UserError, match="the network is a teacher"):
        image_restorer(tiny(2, "teacher"))


def test_a_description_does_not_depend_on_its_neighbours() -> None:
    network, lr = tiny(), uniform(4, 3, 12, 10)
    together = network.describe(lr)
    assert float(together.detach().std(dim=0).max()) > 0
    torch.testing.assert_close(torch.cat([network.describe(one[None]) for one in lr]), together)


def test_strips_describe_the_whole() -> None:
    encoder = trained(tiny()).estimator
    assert isinstance(encoder, Encoder)
    lr = uniform(1, 3, 61, 20)
    for strip in (20 * 7, 20 * 60, 20 * 100):
        torch.testing.assert_close(encoder.in_strips(lr, strip), encoder(lr), rtol=1e-12, atol=0)


def test_a_crop_describes_the_middle() -> None:
    network, lr = tiny(), uniform(2, 3, 20, 15)
    torch.testing.assert_close(network.describe(lr, crop=6), network.describe(lr[..., 7:13, 4:10]))
    torch.testing.assert_close(network.describe(lr, crop=99), network.describe(lr))
    teacher, hr = tiny(2, "teacher"), uniform(2, 3, 40, 30, seed=1)
    expected = teacher.describe(lr[..., 7:13, 4:10], hr[..., 14:26, 8:20])
    torch.testing.assert_close(teacher.describe(lr, hr, crop=6), expected)


def test_a_photograph_may_be_restored_by_what_a_crop_says() -> None:
    network = sized("tiny", 2)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    lr = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = network(lr, embedding=network.describe(lr, crop=16))
        np.testing.assert_allclose(network.for_image(lr, crop=16)(lr), expected, atol=1e-6)
    found = image_restorer(network, crop=16)(pixels)
    rounded = (expected[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert int(np.abs(found.astype(int) - rounded).max()) <= 1


def test_the_output_depends_on_the_embedding() -> None:
    network, lr = tiny(), uniform(2, 3, 8, 8)
    own = network.describe(lr)
    torch.testing.assert_close(network(lr, embedding=own), network(lr))
    assert float((network(lr, embedding=own + 1) - network(lr)).detach().abs().max()) > 1e-4
    slope = torch.autograd.grad(network(lr).sum(), network.estimator.body[0].weight)[0]
    assert float(slope.abs().max()) > 0


def test_without_an_estimator_every_image_has_the_embedding_1() -> None:
    network, lr = tiny(estimator="none"), uniform(2, 3, 8, 8)
    assert torch.equal(network.describe(lr), torch.ones(2, 16, dtype=torch.float64))
    with pytest.raises(ValueError, match="no degradation encoder"):
        network.encode(lr)


def published(network: KDSR, lr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
    """The published structure, layer by layer: every convolution is followed by LeakyReLU(0.1) where one is written."""
    weights = dict(network.named_parameters())
    _, blocks, depth = SIZES[network.size]

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def rectified(x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(x, 0.1)

    planes = torch.cat([lr, F.pixel_unshuffle(hr, network.scale)], dim=1) if network.privileged else lr
    x = rectified(conv("estimator.body.0", planes))
    for block in range(2, 2 + depth):
        name = f"estimator.body.{block}.body"
        x = x + conv(f"{name}.2", rectified(conv(f"{name}.0", x)))
    for layer in range(3):
        x = rectified(conv(f"estimator.body.{2 + depth + 2 * layer}", x))
    distilled = rectified(linear("estimator.mix.2", rectified(linear("estimator.mix.0", x.mean(dim=(2, 3))))))
    embedding = rectified(linear("estimator.compress.0", distilled))
    mean = torch.tensor([0.4488, 0.4371, 0.4040])[:, None, None]
    head = x = conv("restorer.head", lr - mean)
    for block in range(blocks):
        name = f"restorer.blocks.{block}"
        kernels = linear(f"{name}.kernels.2", rectified(linear(f"{name}.kernels.0", embedding)))
        x = x + conv(f"{name}.mix", rectified(looped(x, kernels.unflatten(1, (-1, 3, 3)))))
    x = conv("restorer.join", x) + head
    for layer, factor in enumerate({2: (2,), 3: (3,), 4: (2, 2)}[network.scale]):
        x = F.pixel_shuffle(conv(f"restorer.grow.{layer}", x), factor)
    return conv("restorer.tail", x) + mean


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("estimator", ["student", "teacher"])
def test_the_structure_is_the_published_one(scale: int, estimator: str) -> None:
    network, generator = tiny(scale, estimator), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    lr, hr = uniform(2, 3, 6, 5), uniform(2, 3, 6 * scale, 5 * scale, seed=1)
    torch.testing.assert_close(network(lr, hr), published(network, lr, hr))


@pytest.mark.parametrize("estimator", ["student", "none"])
def test_strips_share_one_embedding_and_do_not_show(estimator: str) -> None:
    network = sized("tiny", 2, estimator)
    if estimator == "student":
        with torch.no_grad():
            network.estimator.compress[0].weight.mul_(30)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 20, 3), np.uint8)
    pixels[:45] //= 4
    whole = image_restorer(network)(pixels)
    alone = image_restorer(network)(pixels[:45])[:60]  # strips of their own would be described differently
    assert (int(np.abs(whole[:60].astype(int) - alone).max()) > 1) == (estimator == "student")
    in_strips = image_restorer(network, strip=20 * 11)(pixels)
    assert int(np.abs(whole.astype(int) - in_strips).max()) <= 1
    lr = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        direct = (network(lr)[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert int(np.abs(whole.astype(int) - direct).max()) <= 1


def test_an_output_pixel_depends_on_the_receptive_field() -> None:
    network = trained(tiny(2))
    side = 2 * network.receptive_field + 5
    lr = uniform(1, 3, 1, side).requires_grad_()
    restored = network(lr, embedding=torch.ones(1, 16, dtype=torch.float64))
    middle = network.receptive_field + 2
    slope = torch.autograd.grad(restored[0, :, :, 2 * middle : 2 * middle + 2].sum(), lr)[0].abs().sum(dim=(0, 1, 2))
    seen = torch.nonzero(slope).flatten()
    assert (middle - int(seen[0]), int(seen[-1]) - middle) == (network.receptive_field, network.receptive_field)


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    spec = KDSRSpec(kind="kdsr", size="tiny")
    network = build_model(spec, 3, seed=5)
    flat = initial_vector(network)
    save_model(tmp_path / "model.safetensors", spec, 3, flat)
    found = load_model(tmp_path)
    assert (found.scale, found.channels, found.privileged) == (3, "rgb", False)
    assert torch.equal(initial_vector(found), flat)
    lr = uniform(1, 3, 6, 6).float()
    assert torch.equal(found(lr), network(lr))
    other = KDSRSpec(kind="kdsr", size="s")
    with pytest.raises(UserError, match=r"another network \(size is tiny, expected s\)"):
        load_vector(tmp_path, other, 3, "training.init", network)
    with pytest.raises(UserError, match=r"another network \(scale is 3, expected 2\)"):
        load_vector(tmp_path, spec, 2, "training.init", build_model(spec, 2, seed=5))


@pytest.mark.parametrize(("before", "after"), [("none", "teacher"), ("teacher", "student"), ("student", "none")])
def test_a_network_starts_from_one_with_another_estimator(tmp_path: Path, before: str, after: str) -> None:
    specs = [KDSRSpec(kind="kdsr", size="tiny", estimator=kind) for kind in (before, after)]
    first, fresh = build_model(specs[0], 2, seed=5), build_model(specs[1], 2, seed=6)
    save_model(tmp_path / "model.safetensors", specs[0], 2, initial_vector(first))
    found = Layout.of(fresh).unflatten(load_vector(tmp_path, specs[1], 2, "training.init", fresh))
    taken, own = dict(first.named_parameters()), dict(fresh.named_parameters())
    for name, value in found.items():
        assert torch.equal(value, (taken if name.startswith("restorer.") else own)[name])


def test_an_estimator_hardly_changes_what_a_network_without_one_has_learned(tmp_path: Path) -> None:
    none, student = tiny(2, "none"), tiny(2, seed=1)
    student.restorer.load_state_dict(none.restorer.state_dict())
    lr = uniform(2, 3, 9, 9)
    with torch.no_grad():
        away = (student(lr) - none(lr)).abs().max() / none(lr).abs().max()
    assert 0 < float(away) < 0.05


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_colours_start_upscaled_bilinearly(scale: int) -> None:
    network = tiny(scale)
    restorer = network.restorer
    with torch.no_grad():  # the colours alone
        restorer.head.weight[3:] = 0
        restorer.join.weight.zero_()
    lr = uniform(1, 3, 9, 8)
    expected = lr
    for factor in restorer.factors:
        expected = F.interpolate(expected, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = (..., slice(2 * scale, -2 * scale), slice(2 * scale, -2 * scale))  # the layers see zeros around their maps
    torch.testing.assert_close(network(lr)[inner], expected[inner], rtol=0, atol=1e-7)  # thirds, in float32


@pytest.mark.parametrize("size", ["tiny", "s", "m", "l"])
def test_embeddings_start_telling_noise_from_blur(size: str) -> None:
    """Noise and blurred noise lie further apart than images of each, around an embedding of 1."""
    network = sized(size, 4)
    noise, blurred = uniform(8, 3, 16, 16).float(), F.avg_pool2d(uniform(8, 3, 48, 48, seed=1).float(), 3)
    with torch.no_grad():
        told = [network.describe(images) for images in (noise, blurred)]
    assert float((told[0].mean(dim=0) - told[1].mean(dim=0)).norm()) > 3 * float(told[0].std(dim=0).norm())
    torch.testing.assert_close(told[0], torch.ones_like(told[0]), rtol=0, atol=0.3)


@pytest.mark.parametrize("size", ["tiny", "s", "m", "l"])
def test_the_restorer_starts_near_its_colours(size: str) -> None:
    network = sized(size, 4)
    lr = F.interpolate(uniform(1, 3, 4, 4).float(), size=16, mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        away = network(lr) - F.interpolate(lr, scale_factor=4, mode="bilinear")
    assert float(away[..., 8:-8, 8:-8].abs().mean()) < 0.1


@pytest.mark.parametrize("estimator", ["student", "teacher"])
def test_embeddings_start_blind_to_brightness(estimator: str) -> None:
    network, lr, hr = tiny(2, estimator), uniform(1, 3, 9, 9), uniform(1, 3, 18, 18)
    even = torch.tensor([0.1, 0.2, 0.3])[:, None, None]  # of any colour
    maps = [
        network.estimator.body[0](network.encoder_input(x, y))[..., 1:-1, 1:-1]
        for x, y in ((lr, hr), (lr + even, hr + even))
    ]
    torch.testing.assert_close(maps[1], maps[0], rtol=0, atol=1e-7)
