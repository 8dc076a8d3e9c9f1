"""The geometric self-ensemble: what it computes, and that the result no longer depends on the orientation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from metarestore.config.model import FSRCNNSpec, KDSRSpec
from metarestore.degradations import bicubic_upsample
from metarestore.degradations.dihedral import DIHEDRAL, flip_rotate, undo_flip_rotate
from metarestore.models.build import build_model
from metarestore.models.network import Network
from metarestore.models.restore import image_restorer
from metarestore.models.self_ensemble import self_ensemble


@pytest.fixture
def lr() -> Tensor:
    return torch.rand(2, 1, 7, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> Network:
    model = build_model(FSRCNNSpec(d=8, s=4, m=1), 2, seed=0)
    with torch.no_grad():
        model.get_parameter("tail.weight").mul_(100)  # so that the orientation shows
    return model.requires_grad_(False)


@pytest.mark.parametrize("turn", range(DIHEDRAL))
def test_turning_back_undoes_a_turn(lr: Tensor, turn: int) -> None:
    assert torch.equal(undo_flip_rotate(flip_rotate(lr, turn), turn), lr)


def test_the_turns_differ() -> None:
    image = torch.arange(6.0).reshape(2, 3)
    assert len({str(flip_rotate(image, turn).tolist()) for turn in range(DIHEDRAL)}) == DIHEDRAL


def test_what_has_no_sides_is_left_as_it_is(lr: Tensor) -> None:
    alone, together = bicubic_upsample(lr, 4), self_ensemble(lambda images: bicubic_upsample(images, 4))(lr)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_a_shift_becomes_the_mean_of_its_orientations() -> None:
    """Shifting by a pixel to the right: twice each of right, left, up and down."""
    image = torch.zeros(1, 1, 5, 5)
    image[..., 2, 2] = 1
    found = self_ensemble(lambda images: images.roll(1, dims=-1))(image)[0, 0]
    expected = torch.zeros(5, 5)
    for row, column in ((1, 2), (3, 2), (2, 1), (2, 3)):
        expected[row, column] = 0.25
    assert torch.equal(found, expected)


@pytest.mark.parametrize("turn", range(1, DIHEDRAL))
def test_the_result_turns_with_the_image(network: Network, lr: Tensor, turn: int) -> None:
    together = self_ensemble(network)
    torch.testing.assert_close(together(flip_rotate(lr, turn)), flip_rotate(together(lr), turn), atol=1e-5, rtol=0)
    assert not torch.allclose(network(flip_rotate(lr, turn)), flip_rotate(network(lr), turn), atol=1e-3)


@pytest.mark.parametrize("spec", [FSRCNNSpec(d=8, s=4, m=1), KDSRSpec(kind="kdsr", size="tiny")])
def test_photographs_are_restored_in_strips_as_in_one_piece(spec: FSRCNNSpec | KDSRSpec) -> None:
    model = build_model(spec, 2, seed=0)
    pixels = np.random.default_rng(0).integers(0, 256, (61, 20, 3), np.uint8)
    whole = image_restorer(model, ensemble=True)(pixels)
    in_strips = image_restorer(model, strip=20 * 30, ensemble=True)(pixels)
    assert whole.shape == (122, 40, 3)
    assert int(np.abs(whole.astype(int) - in_strips).max()) <= 1
    assert not np.array_equal(whole, image_restorer(model)(pixels))
