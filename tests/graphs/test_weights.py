"""Laws of gradient weights and of the outer gradient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metarestore.graphs.weights import balancing, effective_tasks, mean_shares, softmax_weights, standardised

relations = hnp.arrays(np.float64, st.integers(2, 12), elements=st.floats(-1, 1).map(lambda v: round(v, 6)))
temperatures = st.floats(0.05, 10)


@given(relations, temperatures)
def test_weights_are_positive_with_mean_one(values: np.ndarray, temperature: float) -> None:
    weights = softmax_weights(values, temperature)
    assert (weights > 0).all() or temperature < 0.2
    assert weights.mean() == pytest.approx(1)


@given(relations, temperatures)
def test_a_nearer_distribution_never_weighs_less(values: np.ndarray, temperature: float) -> None:
    order = np.argsort(values)
    assert (np.diff(softmax_weights(values, temperature)[order]) >= -1e-9).all()


@given(relations, st.floats(0.1, 5), st.floats(-3, 3))
def test_weights_ignore_the_estimators_unit(values: np.ndarray, scale: float, shift: float) -> None:
    if values.std() < 1e-3:
        return
    np.testing.assert_allclose(softmax_weights(values * scale + shift, 0.5), softmax_weights(values, 0.5), rtol=1e-6)


def test_limits_of_the_temperature() -> None:
    values = [0.1, 0.9, 0.5]
    np.testing.assert_allclose(softmax_weights(values, 1e6), np.ones(3), atol=1e-5)
    np.testing.assert_allclose(softmax_weights(values, 1e-3), [0, 3, 0], atol=1e-9)
    np.testing.assert_array_equal(softmax_weights([0.3, 0.3], 0.1), [1, 1])
    with pytest.raises(ValueError, match="above 0, got 0"):
        softmax_weights(values, 0)


@given(relations)
def test_standardised_values_have_mean_zero_and_unit_spread(values: np.ndarray) -> None:
    z = standardised(values)
    assert z.mean() == pytest.approx(0, abs=1e-9)
    assert z.std() == pytest.approx(0 if np.ptp(values) == 0 else 1, abs=1e-6)


@given(st.integers(1, 20))
def test_effective_tasks(count: int) -> None:
    assert effective_tasks(np.full(count, 0.7)) == pytest.approx(count)
    assert effective_tasks([1.0] + [0.0] * (count - 1)) == pytest.approx(1)


def test_equal_weights_share_equally_and_one_weight_takes_all() -> None:
    np.testing.assert_allclose(mean_shares(np.ones(5)), 1 / 5)
    np.testing.assert_array_equal(mean_shares([0, 0, 2, 0, 0]), [0, 0, 1, 0, 0])


def test_a_common_factor_of_the_weights_changes_nothing() -> None:
    weights = np.asarray([0.5, 1.0, 2.0, 0.25])
    np.testing.assert_array_equal(mean_shares(weights), mean_shares(4 * weights))


def test_balancing_by_own_norms_makes_all_norms_their_mean() -> None:
    norms = np.asarray([1, 20, 3, 0.1])
    np.testing.assert_allclose(balancing(norms) * norms, norms.mean())


def test_the_smallest_weights_still_make_a_mean() -> None:
    np.testing.assert_allclose(mean_shares([1e-200, 3e-200]), [0.25, 0.75])
    np.testing.assert_array_equal(mean_shares([0.0, 0.0]), 0.0)
