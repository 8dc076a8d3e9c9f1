"""The contrast of descriptors: what it counts, and what it does not depend on."""

from __future__ import annotations

import math

import pytest
import torch

from metarestore.learners.contrast import content_share, contrastive_losses, log_scale
from metarestore.seeds import derived_seed


def drawn(*shape: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(derived_seed(0, "contrast"))
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def test_tasks_that_are_told_apart_by_hand() -> None:
    """Two tasks in opposite directions: one image of the own task at cosine 1, two of the other at −1."""
    told = 2**0.5 * torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]], dtype=torch.float64).expand(2, 2, 2)  # scale 1
    expected = math.log(1 + 2 * math.exp(-2 / 0.5))
    assert contrastive_losses(told, 0.5).tolist() == pytest.approx([expected] * 2, rel=1e-12)


def test_where_nothing_is_told_apart_every_image_is_as_likely() -> None:
    descriptors = torch.ones(4, 3, 5, dtype=torch.float64)
    assert contrastive_losses(descriptors, 0.2).tolist() == pytest.approx([math.log(11)] * 4)


def test_content_is_counted_by_its_variance() -> None:
    """Contents at ±3 and tasks at ±1 along one axis: the shares of the variance are 9 to 1."""
    contents, tasks = torch.tensor([3.0, -3.0]), torch.tensor([1.0, -1.0])
    descriptors = (contents[None, :] + tasks[:, None])[..., None].double()
    assert float(content_share(descriptors)) == pytest.approx(9)
    found, without = (
        contrastive_losses(d, 0.5) - log_scale(d) ** 2 for d in (descriptors, descriptors - contents[:, None])
    )
    torch.testing.assert_close(found, without + math.log(10))


@pytest.mark.parametrize(("size", "expected"), [(1.0, 0.0), (math.e, 1.0), (math.e**-2, -2.0)])
def test_the_scale_is_held_at_one(size: float, expected: float) -> None:
    assert float(log_scale(torch.full((2, 2, 3), -size))) == pytest.approx(expected, abs=1e-6)


def test_only_directions_from_the_common_part_count() -> None:
    descriptors = drawn(5, 3, 6)
    moved = 7 * descriptors + drawn(6)
    found, expected = (contrastive_losses(d, 0.2) - log_scale(d) ** 2 for d in (moved, descriptors))
    torch.testing.assert_close(found, expected)


def test_tasks_of_another_order_have_their_losses_in_that_order() -> None:
    descriptors, order = drawn(5, 3, 6), [3, 0, 4, 1, 2]
    torch.testing.assert_close(contrastive_losses(descriptors[order], 0.2), contrastive_losses(descriptors, 0.2)[order])


def test_descriptors_are_pulled_together_by_task() -> None:
    """Gradient steps on descriptors that are content alone make them descriptors of tasks."""
    found = (drawn(1, 3, 4) + 0.05 * drawn(4, 3, 4)).requires_grad_()
    before = float(content_share(found.detach()))
    for _ in range(300):
        (slope,) = torch.autograd.grad(contrastive_losses(found, 0.2).mean(), found)
        found = (found - 0.05 * slope / slope.norm()).detach().requires_grad_()
    assert before > 20
    assert float(content_share(found.detach())) < 0.05
    least = math.log(2)  # the two other images of the own task share its probability
    assert least < float(contrastive_losses(found.detach(), 0.2).max()) < least + 0.02
    assert float(log_scale(found.detach())) == pytest.approx(0, abs=0.05)
