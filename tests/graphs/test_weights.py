"""Laws of gradient weights and of the outer gradient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError

from metarestore.config.graph import WeightsSpec
from metarestore.graphs.relations import Relations
from metarestore.graphs.weights import (
    balancing,
    effective_tasks,
    relation_weights,
    relative_to_largest,
    signal_share,
    softmax_weights,
    standardised,
)

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


def test_balancing_by_own_norms_makes_all_norms_their_mean() -> None:
    norms = np.asarray([1, 20, 3, 0.1])
    np.testing.assert_allclose(balancing(norms) * norms, norms.mean())


specs = st.builds(
    WeightsSpec,
    rule=st.just("softmax"),
    temperature=temperatures,
    top=st.none() | st.integers(1, 12),
    shrink=st.booleans(),
    warmup_steps=st.sampled_from([0, 10]),
) | st.builds(WeightsSpec, rule=st.just("relu"), top=st.none() | st.integers(1, 12), shrink=st.booleans())


def related(values: np.ndarray, errors: float = 0.05, allowed: np.ndarray | None = None) -> Relations:
    names = tuple(f"d{k}" for k in range(len(values)))
    return Relations("t", names, values, np.full(len(values), errors), "response", 3, allowed=allowed)


@given(relations, specs, st.integers(0, 20), st.data())
def test_laws_of_all_weights(values: np.ndarray, spec: WeightsSpec, step: int, data: st.DataObject) -> None:
    """Mean 1, never negative, nothing for what is not allowed, and no less for what is nearer."""
    allowed = np.asarray(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    allowed[0] = True
    weights = relation_weights(related(values, allowed=allowed), spec, step, 20)
    assert weights.mean() == pytest.approx(1)
    assert (weights >= 0).all()
    assert not weights[~allowed].any()
    order = np.flatnonzero(allowed)[np.argsort(values[allowed], kind="stable")]
    if spec.top is None:
        assert (np.diff(weights[order]) >= -1e-9).all()


@given(relations, st.floats(1, 12))
def test_effective_chooses_the_temperature(values: np.ndarray, effective: float) -> None:
    if np.diff(np.sort(values)).min() < 0.05:
        return
    weights = relation_weights(related(values), WeightsSpec(effective=effective))
    assert effective_tasks(weights) == pytest.approx(min(effective, len(values)), rel=2e-2)


def test_relu_weights() -> None:
    np.testing.assert_allclose(
        relation_weights(related(np.asarray([0.6, -0.3, 0.2])), WeightsSpec(rule="relu")), [2.25, 0, 0.75]
    )
    np.testing.assert_array_equal(relation_weights(related(np.asarray([-0.6, -0.3])), WeightsSpec(rule="relu")), [1, 1])


def test_top_leaves_only_the_nearest() -> None:
    values = np.asarray([0.1, 0.9, 0.5, 0.7])
    weights = relation_weights(related(values), WeightsSpec(top=2))
    assert (weights > 0).tolist() == [False, True, False, True]
    np.testing.assert_array_equal(relation_weights(related(values), WeightsSpec(top=1)), [0, 4, 0, 0])
    only = relation_weights(related(values, allowed=values < 0.6), WeightsSpec(top=1))
    np.testing.assert_array_equal(only, [0, 0, 4, 0])


def test_warmup_goes_from_uniform_to_the_relations() -> None:
    relations, spec = related(np.asarray([0.1, 0.9, 0.5])), WeightsSpec(warmup_steps=10)
    last = relation_weights(relations, spec, 10, 20)
    np.testing.assert_array_equal(relation_weights(relations, spec, 0, 20), np.ones(3))
    np.testing.assert_allclose(relation_weights(relations, spec, 5, 20), (1 + last) / 2)
    np.testing.assert_array_equal(relation_weights(relations, spec, 15, 20), last)
    allowed = np.asarray([True, False, True])
    np.testing.assert_allclose(relation_weights(related(relations.values, allowed=allowed), spec, 0), [1.5, 0, 1.5])


def test_the_temperature_goes_geometrically_to_its_end() -> None:
    values = np.asarray([0.1, 0.9, 0.5])
    spec = WeightsSpec(temperature=0.25, final_temperature=4.0)
    for step, temperature in ((0, 0.25), (5, 1.0), (10, 4.0)):
        np.testing.assert_allclose(
            relation_weights(related(values), spec, step, 11), softmax_weights(values, temperature)
        )


def test_after_the_last_step_its_weights_stand() -> None:
    relations = related(np.asarray([0.1, 0.9, 0.5]))
    for spec in (WeightsSpec(final_temperature=4.0), WeightsSpec(warmup_steps=4)):
        np.testing.assert_array_equal(relation_weights(relations, spec, 4, 4), relation_weights(relations, spec, 3, 4))


def test_shrinking_tells_spread_from_error() -> None:
    """Relations that differ by their errors alone give uniform weights; exact ones are left as they are."""
    values = np.asarray([0.1, 0.9, 0.5])
    assert signal_share(values, np.zeros(3)) == 1
    assert signal_share(values, np.full(3, np.nan)) == 1
    # Sum of squares 0.32 about the mean, of errors 3 · 0.2² = 0.12.
    assert signal_share(values, np.full(3, 0.2)) == pytest.approx(1 - 0.12 / 0.32)
    spec = WeightsSpec(shrink=True)
    np.testing.assert_array_equal(relation_weights(related(values, 0.4), spec), np.ones(3))
    np.testing.assert_allclose(relation_weights(related(values, 0.0), spec), softmax_weights(values, 0.5))
    np.testing.assert_allclose(relation_weights(related(values, 0.2), spec), softmax_weights(values, 0.5 / 0.625))


def test_inner_rates_are_never_exceeded() -> None:
    np.testing.assert_array_equal(relative_to_largest([0.5, 2.0, 0.0]), [0.25, 1, 0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ({"rule": "relu", "temperature": 0.4}, "temperature is only valid for rule: softmax"),
        ({"rule": "relu", "effective": 3}, "effective is only valid for rule: softmax"),
        ({"effective": 3, "temperature": 0.4}, "remove temperature"),
        ({"effective": 0.5}, "greater than or equal to 1"),
    ],
)
def test_keys_that_do_not_go_together(text: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        WeightsSpec.model_validate(text)


@pytest.mark.parametrize("text", [{"rule": "relu"}, {"effective": 3.0}, {"final_temperature": 2.0}])
def test_a_resolved_configuration_is_read_back(text: dict[str, object]) -> None:
    spec = WeightsSpec.model_validate(text)
    assert WeightsSpec.model_validate(spec.model_dump()) == spec
