"""A trained network that is adapted to one photograph: few-shot adaptation with the photograph as its only shot."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from metarestore.config.adaptation import AdaptationOptimizerSpec
from metarestore.config.model import FSRCNNSpec, KDSRSpec, PISRTeacherSpec, ZeroShotNetworkSpec
from metarestore.degradations.resample import bicubic_upsample
from metarestore.learners.adaptation import adapt
from metarestore.learners.inner_rule import InnerRule
from metarestore.models.build import build_model, restore_rgb
from metarestore.models.colour import rgb_to_y
from metarestore.models.network import Network
from metarestore.models.parameters import Layout, initial_vector
from metarestore.models.restore import image_restorer, restored_strips, to_pixels
from metarestore.tasks.distribution import to_tensor
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.zero_shot.blur import Blur
from metarestore.zero_shot.network import NetworkOptions, internal_pair, restore_adapted
from metarestore.zero_shot.shapes import bicubic_kernel, gaussian_of

LR = to_tensor(ImageStore.open(ImageSource.embedded("test")).image("chelsea")[60:124, 100:165].copy())
ADAPTATION = AdaptationOptimizerSpec(steps=3, lr=1e-3)
BARE = NetworkOptions(adaptation=ADAPTATION, final_projections=0, keep_colour=False)
NETWORKS = {
    "luma": FSRCNNSpec(d=8, s=4, m=1),
    "rgb": ZeroShotNetworkSpec(kind="zero_shot", preprocessing=0),
    "kdsr": KDSRSpec(kind="kdsr", size="tiny"),
}


def network_of(name: str, scale: int = 2) -> Network:
    return build_model(NETWORKS[name], scale, 0)


def kernel(scale: int = 2) -> Tensor:
    return gaussian_of(torch.eye(2).double().numpy() * scale**2 / 2, scale)


def test_the_internal_pair_is_the_photograph_and_its_degraded_version() -> None:
    lr, hr = internal_pair(LR[None], Blur(bicubic_kernel(2), 2))
    assert torch.equal(hr, LR[None, :, :64, :64])
    assert torch.equal(lr, Blur(bicubic_kernel(2), 2).degrade(hr).clamp(0, 1))


def test_adaptation_is_that_to_the_pair_as_a_shot() -> None:
    network = network_of("luma")
    options = replace(BARE, kernel=kernel())
    pair = (rgb_to_y(side) for side in internal_pair(LR[None], Blur(kernel(), 2)))
    expected = adapt(network, initial_vector(network), *pair, ADAPTATION, rule=InnerRule("l1", 0.0))
    found = restore_adapted(LR, network, options)
    assert found.parameters is not None
    assert torch.equal(found.parameters, expected)
    network.load_state_dict(Layout.of(network).unflatten(expected))
    assert torch.equal(found.image, restore_rgb(network, LR[None], scale=2, channels="y")[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_no_steps_restore_as_the_network_does_without_adaptation(name: str) -> None:
    network = network_of(name)
    before = initial_vector(network)
    unadapted = replace(BARE, adaptation=AdaptationOptimizerSpec(steps=0))
    found = restore_adapted(LR, network, unadapted)
    pixels = to_pixels(LR)
    assert abs(to_pixels(found.image).astype(int) - image_restorer(network)(pixels)).max() <= 1
    adapted = restore_adapted(LR, network, BARE)
    assert not torch.equal(adapted.image, found.image)
    assert adapted.steps == {"network": 3}
    assert torch.equal(initial_vector(network), before)


def test_every_step_can_be_observed() -> None:
    seen: dict[int, Tensor] = {}

    def observe(step: int, restored: Callable[[], Tensor]) -> None:
        seen[step] = restored()

    found = restore_adapted(LR, network_of("luma"), BARE, observe=observe)
    assert list(seen) == [0, 1, 2, 3]
    assert torch.equal(seen[3], found.image)


@pytest.mark.parametrize("budget", [2.5, 100.0])
def test_a_budget_ends_the_adaptation(budget: float) -> None:
    ticks = itertools.count()
    found = restore_adapted(LR, network_of("luma"), replace(BARE, budget=budget), clock=lambda: float(next(ticks)))
    assert found.steps["network"] == (2 if budget < 3 else 3)


def test_colour_and_back_projection_are_those_of_zero_shot_restoration() -> None:
    network = network_of("rgb")
    found = restore_adapted(LR, network, NetworkOptions(kernel=kernel(), adaptation=ADAPTATION))
    bicubic = bicubic_upsample(LR[None], 2).clamp(0, 1)[0]
    assert float((found.image.mean((1, 2)) - bicubic.mean((1, 2))).abs().max()) * 255 < 0.5
    off = float((Blur(kernel(), 2).degrade(found.image[None]) - LR).abs().mean())
    bare = restore_adapted(LR, network, replace(BARE, kernel=kernel()))
    assert off < float((Blur(kernel(), 2).degrade(bare.image[None]) - LR).abs().mean())


def test_a_network_that_shifts_the_colour_is_corrected() -> None:
    network = network_of("luma")
    with torch.no_grad():
        network.get_parameter("tail.bias").add_(0.1)
    gaps = []
    for kept in (False, True):
        options = replace(BARE, adaptation=AdaptationOptimizerSpec(steps=0), keep_colour=kept)
        restored = restore_adapted(LR, network, options).image
        gaps.append(float((restored.mean((1, 2)) - bicubic_upsample(LR[None], 2)[0].mean((1, 2))).abs().max()) * 255)
    assert gaps[0] > 10
    assert gaps[1] < 0.5


def test_strips_leave_no_seam() -> None:
    network = network_of("rgb")
    whole, parts = (torch.cat(list(restored_strips(network, network, LR[None], n)), dim=1) for n in (10**6, 65 * 20))
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (1, 40), (31, 40), (33, 47)])
def test_images_of_any_size_are_restored(name: str, size: tuple[int, int]) -> None:
    found = restore_adapted(LR[:, : size[0], : size[1]], network_of(name), NetworkOptions(adaptation=ADAPTATION))
    assert found.image.shape == (3, 2 * size[0], 2 * size[1])
    assert 0 <= float(found.image.min()) <= float(found.image.max()) <= 1
    small = min(size) < 32
    assert found.steps == {"network": 0 if small else 3}
    assert any("smaller than 32 pixels; the network is not adapted" in reason for reason in found.skipped) == small


def test_what_cannot_be_adapted_is_said() -> None:
    flat = restore_adapted(torch.full((3, 48, 48), 0.4), network_of("luma"), BARE)
    assert "learning: the image has no contrast; the network is not adapted" in flat.skipped
    teacher = build_model(PISRTeacherSpec(kind="pisr_teacher"), 2, 0)
    with pytest.raises(ValueError, match="a teacher needs the HR image"):
        restore_adapted(LR, teacher)
    with pytest.raises(ValueError, match="not finite"):
        restore_adapted(LR * torch.nan, network_of("luma"))
