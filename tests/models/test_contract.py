"""What every registered network must do: one row of `EXAMPLES` for a new one."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from torch import Tensor

from metarestore.config.model import NETWORKS, BaseModelSpec, SpandrelSpec
from metarestore.errors import UserError
from metarestore.models.build import build_model
from metarestore.models.network import Network, collected_features
from metarestore.models.restore import image_restorer
from metarestore.testing.networks import NetworkContract, network_of, spec_of

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
    "zero_shot": {"kind": "zero_shot", "preprocessing": 4},
    "zero_shot, trunk alone": {"kind": "zero_shot", "preprocessing": 0},
    "ecbsr, rgb": {"kind": "ecbsr", "m": 1, "c": 4, "channels": "rgb"},
}
EXAMPLES |= {
    "pisr_teacher": {"kind": "pisr_teacher", "decoder": {"kind": "fsrcnn", "d": 8, "s": 4, "m": 1}, "d": 6, "s": 5},
    "pisr_teacher of compact": {"kind": "pisr_teacher", "decoder": {"kind": "compact"}, "d": 6, "s": 5},
}


class TestEveryNetwork(NetworkContract):
    examples = EXAMPLES


def test_every_kind_has_an_example() -> None:
    of_a_file = {SpandrelSpec}  # see test_spandrel.py
    assert {type(spec_of(example)) for example in EXAMPLES.values()} == set(NETWORKS.values()) - of_a_file


def test_every_network_names_features() -> None:
    assert all(network_of(example).feature_layers for example in EXAMPLES.values())


def test_every_network_states_its_receptive_field() -> None:
    """The contract skips networks that see the whole image; none of this package's does."""
    assert all(network_of(example).receptive_field is not None for example in EXAMPLES.values())


def test_an_unknown_feature_is_an_error() -> None:
    network = network_of(EXAMPLES["fsrcnn"])
    unknown = pytest.raises(ValueError, match="no feature 'none'; available: features")
    with unknown, collected_features(network, ["none"]):
        pass


def test_code_that_cannot_be_imported_is_named() -> None:
    class Other(BaseModelSpec):
        implementation: ClassVar[str] = "metarestore.models.nothing:Other"
        kind: str = "other"

    with pytest.raises(UserError, match=r"Other: metarestore.models.nothing:Other cannot be imported \(ModuleNotFound"):
        build_model(Other(), 2, seed=0)


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
