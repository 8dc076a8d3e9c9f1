"""One shot of another white balance or exposure is named among the others, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarestore.tasks.shot_colour import off_colour_shots


def shots(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Shots of one camera: HR is brighter by 3% and warmer by 2%, and by another 2% from shot to shot."""
    rng = np.random.default_rng(seed)
    lr = torch.from_numpy(rng.uniform(0.3, 0.9, (count, 3, 1, 1)) * np.ones((1, 1, 8, 8)))
    gains = np.asarray([1.05, 1.03, 1.01]) * (1 + rng.uniform(-0.02, 0.02, (count, 1)))
    hr = torch.nn.functional.interpolate(lr * torch.from_numpy(gains)[..., None, None], scale_factor=4)
    return lr.float(), hr.float()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_ordinary_shots_are_not_named(count: int) -> None:
    for seed in range(20):
        assert off_colour_shots(*shots(seed, count)) == ()


@pytest.mark.parametrize(
    "gains", [(0.88, 0.96, 0.76), (1.0, 1.0, 0.8), (1.15, 0.95, 1.15), (0.7, 0.7, 0.7), (1.3, 1.3, 1.3)]
)
@pytest.mark.parametrize("count", [3, 5, 8])
@pytest.mark.parametrize("side", ["lr", "hr"])
def test_one_shot_of_another_colour_is_named_alone(gains: tuple[float, ...], count: int, side: str) -> None:
    for seed in range(5):
        lr, hr = shots(seed, count)
        odd = seed % count
        (lr if side == "lr" else hr)[odd] *= torch.tensor(gains)[:, None, None]
        assert off_colour_shots(lr, hr) == (odd,)


def test_black_shots_and_shots_that_all_differ_are_not_named() -> None:
    lr, hr = shots(0, 5)
    lr[2], hr[2] = 0, 0
    assert off_colour_shots(lr, hr) == ()
    lr, hr = shots(1, 6)
    hr *= torch.linspace(0.6, 1.4, 6)[:, None, None, None]
    assert off_colour_shots(lr, hr) == ()
