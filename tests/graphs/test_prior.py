"""Relations of earlier targets as prior knowledge: what agrees sharpens, what disagrees counts little."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metarestore.errors import UserError
from metarestore.graphs.estimate import estimate
from metarestore.graphs.graph import build_graph, relations_of, save_graph
from metarestore.graphs.prior import between_targets, combined
from metarestore.graphs.relations import Relations
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

values = hnp.arrays(np.float64, 5, elements=st.floats(-1, 1))
errors = hnp.arrays(np.float64, 5, elements=st.floats(0.01, 0.5))


def make(found: Any, error: Any, target: str = "t", names: str = "abcdefgh", **rest: Any) -> Relations:
    array = np.atleast_1d(np.asarray(found, np.float64))
    spread = np.broadcast_to(np.asarray(error, np.float64), array.shape).copy()
    return Relations(target, tuple(names[: len(array)]), array, spread, "response", 8, **rest)


def test_by_hand() -> None:
    """Equal errors and equal values: the mean of two, with an error smaller by √2."""
    found = combined(make([0.2, 0.6], 0.1), [make([0.2, 0.6], 0.1, "old")])
    np.testing.assert_allclose(found.values, [0.2, 0.6])
    np.testing.assert_allclose(found.standard_errors, 0.1 / np.sqrt(2))
    # Differences 0.2 with errors 0.1: τ² = 0.04 − 0.02, so precisions 100 and 100/3.
    found = combined(make([0.0, 0.4], 0.1), [make([0.2, 0.2], 0.1, "old")])
    np.testing.assert_allclose(found.values, [0.05, 0.35])
    np.testing.assert_allclose(found.standard_errors, np.sqrt(3) / 20)


def test_one_distribution_and_two_earlier_targets() -> None:
    """Precisions add up; a stronger prior counts as so many targets."""
    old = make(0.5, 0.2, "old")
    one = combined(make(0.5, 0.1), [old, dataclasses.replace(old, target="older")])
    two = combined(make(0.5, 0.1), [old], strength=2.0)
    assert one.standard_errors[0] == pytest.approx(1 / np.sqrt(100 + 25 + 25))
    np.testing.assert_allclose(one.standard_errors, two.standard_errors)


@given(values, errors, errors)
def test_what_agrees_sharpens(found: np.ndarray, error: np.ndarray, old: np.ndarray) -> None:
    result = combined(make(found, error), [make(found, old, "old")])
    np.testing.assert_allclose(result.values, found, atol=1e-12)
    assert (result.standard_errors < error).all()


@given(values, errors, values, errors)
def test_the_result_lies_between_and_no_prior_blurs(
    found: np.ndarray, error: np.ndarray, old: np.ndarray, old_error: np.ndarray
) -> None:
    result = combined(make(found, error), [make(old, old_error, "old")])
    assert (result.values >= np.minimum(found, old) - 1e-12).all()
    assert (result.values <= np.maximum(found, old) + 1e-12).all()
    assert (result.standard_errors <= error + 1e-12).all()
    assert result.estimated is not None
    np.testing.assert_array_equal(result.estimated, [found, error])


@given(values, errors, st.floats(0.1, 2), st.floats(0.1, 2))
def test_a_stronger_prior_pulls_more(found: np.ndarray, error: np.ndarray, weak: float, more: float) -> None:
    old = make(found[::-1], error, "old")
    near = combined(make(found, error), [old], weak)
    nearer = combined(make(found, error), [old], weak + more)
    before, after = (np.abs(result.values - old.values) for result in (near, nearer))
    assert (after <= before + 1e-12).all()
    assert (nearer.standard_errors < near.standard_errors).all()


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0])
def test_what_disagrees_changes_little(distance: float) -> None:
    """A shift by σ²/(σ² + τ²) of the distance, τ² being the distance squared less the errors: below 2 σ²/distance."""
    fresh = make(np.zeros(5), 0.05)
    found = combined(fresh, [make(np.full(5, distance), 0.05, "old")])
    assert np.abs(found.values).max() < 2 * 0.05**2 / distance
    assert found.standard_errors.min() > 0.97 * 0.05


def test_a_third_target_that_disagrees_leaves_the_agreeing_one_its_weight() -> None:
    fresh, alike, other = make([0.1, 0.5], 0.1), make([0.1, 0.5], 0.1, "alike"), make([0.9, -0.9], 0.01, "other")
    with_both = combined(fresh, [alike, other])
    np.testing.assert_allclose(with_both.values, combined(fresh, [alike]).values, atol=0.01)


def test_variance_between_targets_is_what_errors_do_not_explain() -> None:
    rng = np.random.default_rng(0)
    count, between = 20_000, 0.3
    truth = rng.standard_normal(count)
    found = truth + 0.2 * rng.standard_normal(count)
    old = truth + between * rng.standard_normal(count) + 0.1 * rng.standard_normal(count)
    estimate = between_targets(found, np.full(count, 0.2), old, np.full(count, 0.1))
    assert estimate == pytest.approx(between**2, rel=0.05)
    assert between_targets(np.zeros(3), np.ones(3), np.full(3, 0.5), np.ones(3)) == 0.0


def test_distributions_are_matched_by_name() -> None:
    old = Relations("old", ("c", "z", "a"), np.asarray([0.9, 0.0, 0.1]), np.full(3, 0.1), "response", 8)
    found = combined(make([0.1, 0.5, 0.9], 0.1), [old])
    np.testing.assert_allclose(found.values, [0.1, 0.5, 0.9])
    assert found.standard_errors[1] == pytest.approx(0.1)
    assert found.standard_errors[0] == found.standard_errors[2] < 0.08


def test_unknown_errors() -> None:
    """One unknown error is the largest of its estimate; where all are unknown nothing can be weighed."""
    fresh, old = make([0.0, 0.4], 0.1), make([0.2, 0.2], [0.05, np.nan], "old")
    np.testing.assert_array_equal(
        combined(fresh, [old]).values, combined(fresh, [make([0.2, 0.2], 0.05, "old")]).values
    )
    np.testing.assert_allclose(combined(fresh, [make([0.2, 0.2], np.nan, "old")]).values, fresh.values)
    unknown = make([0.0, 0.4], np.nan)
    assert combined(unknown, [old]) is unknown


def test_what_was_stated_or_came_from_a_prior_does_not_count_again() -> None:
    fresh = make([0.0, 0.4], 0.1)
    stated = combined(fresh, [make([0.9, 0.4], [0.0, 0.1], "old", stated=np.asarray([True, False]))])
    assert stated.values[0] == 0
    assert stated.standard_errors[0] == pytest.approx(0.1)
    own = np.asarray([[0.2, 0.2], [0.1, 0.1]])
    sharpened = make([0.1, 0.3], 0.01, "old", estimated=own)
    np.testing.assert_array_equal(
        combined(fresh, [sharpened]).values, combined(fresh, [make([0.2, 0.2], 0.1, "old")]).values
    )


def test_an_estimate_without_error_counts_as_an_estimate() -> None:
    """What has no spread is not therefore stated."""
    fresh = make([0.0, 0.4], 0.1)
    assert combined(fresh, [make([0.9, 0.4], [0.0, 0.1], "old")]).values[0] > 0


def related(study: Study) -> Relations:
    workspace = Workspace(study)
    return estimate(workspace, lambda jobs, flat: [job.run(workspace, flat) for job in jobs], workspace.initial())


@pytest.fixture
def learned(small_study: Callable[..., Study], tmp_path: Path) -> tuple[Relations, Path]:
    """A graph that says of an earlier camera the same as the estimate of the new one."""
    study = small_study()
    relations = dataclasses.replace(related(study), target="earlier")
    weights = dict.fromkeys(relations.auxiliary, 1.0)
    save_graph(build_graph(relations, weights, study.auxiliary, study.target, {}), tmp_path)
    return relations, tmp_path


def with_prior(small_study: Callable[..., Study], path: Path, **graph: Any) -> Study:
    return small_study(graph={"prior": {"graph": str(path)}, **graph})


def test_an_estimate_with_a_prior(small_study: Callable[..., Study], learned: tuple[Relations, Path]) -> None:
    relations, path = learned
    for place in (path, path / "graph.json"):
        found = related(with_prior(small_study, place))
        np.testing.assert_allclose(found.values, relations.values)
        np.testing.assert_allclose(found.standard_errors, relations.standard_errors / np.sqrt(2))


def test_experts_come_after_the_prior_and_controls_keep_out(
    small_study: Callable[..., Study], learned: tuple[Relations, Path]
) -> None:
    relations, path = learned
    found = related(with_prior(small_study, path, edges=[{"from": "bicubic", "relation": -0.5}]))
    assert (found.values[0], found.standard_errors[0]) == (-0.5, 0)
    of = {"kind": "response", "draws": 4}
    turned = related(with_prior(small_study, path, estimator={"kind": "inverted", "of": of}))
    np.testing.assert_allclose(turned.values, -relations.values)
    np.testing.assert_allclose(turned.standard_errors, relations.standard_errors / np.sqrt(2))
    for control in ("uniform", "random"):
        plain = related(small_study(graph={"estimator": {"kind": control}}))
        found = related(with_prior(small_study, path, estimator={"kind": control}))
        np.testing.assert_array_equal(found.values, plain.values)
        assert found.estimated is None


def test_a_prior_that_cannot_be_used_is_found_before_training(
    small_study: Callable[..., Study], learned: tuple[Relations, Path], tmp_path: Path
) -> None:
    relations, path = learned
    with pytest.raises(UserError, match=r"graph\.prior\.graph: .*nowhere: cannot be read"):
        with_prior(small_study, tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds relations by response, .* cannot be combined with .* gradient"):
        with_prior(small_study, path, estimator={"kind": "gradient"})
    study = small_study()
    other = {**study.auxiliary, "bicubic": study.auxiliary["blur_iso_wide"]}
    weights = dict.fromkeys(relations.auxiliary, 1.0)
    save_graph(build_graph(relations, weights, other, study.target, {}), tmp_path / "changed")
    with pytest.raises(UserError, match=r"graph\.prior\.graph: the task 'bicubic' differs from that of"):
        with_prior(small_study, tmp_path / "changed")


def test_a_graph_after_a_prior_remembers_its_own_estimate(
    small_study: Callable[..., Study], learned: tuple[Relations, Path], tmp_path: Path
) -> None:
    study = with_prior(small_study, learned[1])
    found = related(study)
    graph = build_graph(found, dict.fromkeys(found.auxiliary, 1.0), study.auxiliary, study.target, {})
    again = relations_of(graph)
    assert again.estimated is not None
    np.testing.assert_array_equal(again.estimated, found.estimated)
    np.testing.assert_array_equal(Relations.from_json(found.to_json()).estimated, found.estimated)
