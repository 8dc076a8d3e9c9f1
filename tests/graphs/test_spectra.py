"""Mean spectra: what they tell, and relations as distances between them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarestore.degradations.resample import bicubic_downsample
from metarestore.graphs.spectra import compare_spectra, relation_matrix, response, spectral_relations


def test_bicubic_has_no_response() -> None:
    hr = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    lr = bicubic_downsample(hr, 4).clamp(0, 1)
    np.testing.assert_allclose(response(lr, hr, 4), 0, atol=1e-5)


def test_white_noise_raises_and_blur_lowers_the_high_frequencies() -> None:
    rng = torch.Generator().manual_seed(0)
    hr = torch.nn.functional.avg_pool2d(torch.rand(4, 3, 202, 202, generator=rng), 11, stride=1)
    lr = bicubic_downsample(hr, 4)
    noisy = response((lr + 0.02 * torch.randn(lr.shape, generator=rng)).clamp(0, 1), hr, 4)
    blurred = response(torch.nn.functional.avg_pool2d(lr, 3, stride=1, padding=1), hr, 4)
    assert noisy[:, -4:].mean() > 1
    assert blurred[:, 4:8].mean() < -1


def test_relations_of_responses() -> None:
    """1 for the very same response, falling with the distance; a wide distribution is near if it holds the target."""
    rng = np.random.default_rng(0)
    target = rng.standard_normal((3, 16))
    same = np.broadcast_to(target, (8, 3, 16))
    near, far = same + 0.5, same + 3.0
    wide = np.concatenate([same[:2], same[2:] + 9.0])
    values = spectral_relations(target, np.stack([same, near, far, wide]))
    assert values[0] == pytest.approx(1)
    assert values[3] == pytest.approx(1)
    assert values[0] > values[1] > values[2] > -1
    matrix = relation_matrix(target, np.stack([same, near, far, wide]))
    np.testing.assert_allclose(matrix[-1, :-1], values)


def test_comparison_of_spectra() -> None:
    """Values and matrix agree; exact copies have no error over shots; one shot has no reliability."""
    rng = np.random.default_rng(0)
    target = rng.standard_normal((4, 16))
    auxiliary = target + rng.standard_normal((3, 8, 1, 1)) * np.asarray([0.1, 1.0, 3.0])[:, None, None, None]
    found = compare_spectra(target, auxiliary, 0)
    assert found.values[0] > found.values[1] > found.values[2]
    np.testing.assert_array_equal(found.matrix[-1, :-1], found.values)
    assert (found.standard_errors > 0).all()
    assert found.reliability == pytest.approx(1)
    assert np.isnan(compare_spectra(target[:1], auxiliary[:, :, :1], 0).reliability)
