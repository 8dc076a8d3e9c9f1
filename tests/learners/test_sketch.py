"""Sketches keep inner products: without bias, with the stated variance, and linearly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metarestore.learners.sketch import cosine_error, cosines, mean_cosine, sketched

SEEDS = 400


def pair(cosine: float, length: int, seed: int = 0) -> np.ndarray:
    """Two vectors (2, P) with a given cosine and norms of 3 and 0.5."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((length, 2)))[0].T
    second = cosine * basis[0] + np.sqrt(1 - cosine**2) * basis[1]
    return np.stack([3.0 * basis[0], 0.5 * second])


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("cosine", [-0.5, 0.0, 0.3, 0.9])
def test_inner_products_are_unbiased_and_have_the_stated_variance(cosine: float, size: int) -> None:
    vectors = pair(cosine, 4000)
    found = np.asarray([np.prod(sketched(vectors, size, seed), axis=0).sum() for seed in range(SEEDS)])
    squares = np.square(vectors)
    variance = (squares[0].sum() * squares[1].sum() + (1.5 * cosine) ** 2 - 2 * (squares[0] * squares[1]).sum()) / size
    assert abs(found.mean() - 1.5 * cosine) < 4 * np.sqrt(variance / SEEDS)
    assert found.var(ddof=1) == pytest.approx(variance, rel=0.35)


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("cosine", [-0.5, 0.0, 0.3, 0.9])
def test_cosines_of_sketches_have_the_stated_standard_error(cosine: float, size: int) -> None:
    vectors = pair(cosine, 4000)
    found = np.asarray([cosines(sketched(vectors, size, seed))[0, 1] for seed in range(SEEDS)])
    error = float(cosine_error(cosine, size))
    # A correlation of m pairs is biased by about c(1 − c²)/2m, which is far below its error.
    assert abs(found.mean() - cosine) < 4 * error / np.sqrt(SEEDS) + 1 / size
    assert found.std(ddof=1) == pytest.approx(error, rel=0.2)


@settings(max_examples=40, deadline=None)
@given(
    cosine=st.floats(-0.99, 0.99),
    length=st.integers(500, 5000),
    size=st.sampled_from([64, 128, 256, 512]),
    seed=st.integers(0, 10**6),
)
def test_any_cosine_is_found_within_five_standard_errors(cosine: float, length: int, size: int, seed: int) -> None:
    found = cosines(sketched(pair(cosine, length, seed), size, seed))[0, 1]
    assert abs(found - cosine) < 5 * float(cosine_error(0.0 if abs(cosine) < 0.5 else cosine, size)) + 5 / size


def test_a_sketch_is_linear_and_repeats() -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 2, 700)).astype(np.float32)
    found = sketched(vectors, 32)
    assert found.shape == (3, 2, 32)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(sketched(vectors[1, 0], 32), found[1, 0])
    np.testing.assert_allclose(found.mean(axis=0), sketched(vectors.mean(axis=0), 32), atol=1e-5)
    assert not np.array_equal(sketched(vectors, 32, seed=1), found)


def test_cosines_of_zero_vectors_are_zero() -> None:
    assert cosines([[0.0, 0.0], [3.0, 4.0]]).tolist() == [[0.0, 0.0], [0.0, 1.0]]
    assert mean_cosine([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]) == pytest.approx(1 / 3)
    assert mean_cosine([[1.0, 0.0]]) == 1.0
