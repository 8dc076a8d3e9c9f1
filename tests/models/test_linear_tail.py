"""The linear tail: one convolution and a frame, in place of layers."""

from __future__ import annotations

import pytest
import torch

from metarestore.learners.precision import Bfloat16
from metarestore.models.linear_tail import Layer, composed_tail, layered_tail


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("factors", [(2, 1), (3, 1), (2, 2, 1)])
@pytest.mark.parametrize("size", [(3, 3), (3, 8), (9, 7)])
def test_one_convolution_and_a_frame_equal_the_layers(factors: tuple[int, ...], size: tuple[int, int]) -> None:
    outputs = [*(4 * factor**2 for factor in factors[:-1]), 3]
    layers = [
        Layer(uniform(count, 4, 3, 3, seed=count) - 0.5, uniform(count), factor)
        for count, factor in zip(outputs, factors, strict=True)
    ]
    features = uniform(2, 4, *size) - 0.5
    torch.testing.assert_close(composed_tail(features, layers), layered_tail(features, layers))


@pytest.mark.parametrize("factors", [(2, 1), (3, 1), (2, 2, 1)])
def test_one_convolution_equals_the_layers_in_bfloat16(factors: tuple[int, ...]) -> None:
    outputs = [*(4 * factor**2 for factor in factors[:-1]), 3]
    layers = [
        Layer(uniform(count, 4, 3, 3, seed=count).float() - 0.5, uniform(count).float(), factor)
        for count, factor in zip(outputs, factors, strict=True)
    ]
    features = uniform(2, 4, 9, 7).float() - 0.5
    expected = layered_tail(features, layers)
    with Bfloat16():
        found = composed_tail(features, layers)
    away = float((found - expected).abs().max() / expected.abs().max())
    assert 0 < away < 4 * 2**-8  # a few roundings to 8 bits


def test_the_composed_tail_has_the_same_slopes() -> None:
    weights = [(uniform(16, 4, 3, 3) - 0.5).requires_grad_(), (uniform(3, 4, 3, 3, seed=1) - 0.5).requires_grad_()]
    biases = [uniform(16).requires_grad_(), uniform(3).requires_grad_()]
    features = uniform(1, 4, 6, 5).requires_grad_()
    layers = [Layer(w, b, factor) for w, b, factor in zip(weights, biases, (2, 1), strict=True)]
    leaves = [features, *weights, *biases]
    ours = torch.autograd.grad(composed_tail(features, layers).square().sum(), leaves)
    torch.testing.assert_close(ours, torch.autograd.grad(layered_tail(features, layers).square().sum(), leaves))
