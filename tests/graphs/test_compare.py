"""Laws of relations between sets of feature vectors, on points that are drawn here."""

from __future__ import annotations

import numpy as np
import pytest

from metarestore.graphs.compare import compare, distances

CENTRES = np.asarray([[0.0, 0, 0], [8, 0, 0], [0, 8, 0], [0, 0, 8]])


def drawn(seed: int, shots: int = 6, draws: int = 20, spread: float = 1.0) -> np.ndarray:
    """Draws of four distributions around CENTRES, (4, draws, shots, 3)."""
    rng = np.random.default_rng(seed)
    return CENTRES[:, None, None] + spread * rng.standard_normal((4, draws, shots, 3))


def test_a_draw_of_a_distribution_is_related_to_it_alone() -> None:
    auxiliary = drawn(0)
    for i in range(4):
        values = compare(drawn(1)[i, 0], auxiliary, seed=0).values
        assert values.argmax() == i
        assert values[i] > 0.95
        assert np.delete(values, i).max() < 0.2


def test_a_mixture_is_related_to_its_parts_and_not_to_a_wide_distribution_that_holds_them() -> None:
    rng = np.random.default_rng(2)
    auxiliary = np.concatenate([drawn(0), 3 + 8 * rng.standard_normal((1, 20, 6, 3))])
    other = drawn(3)
    target = np.concatenate([other[1, 0, :3], other[2, 0, 3:]])
    values = compare(target, auxiliary, seed=0).values
    assert set(np.argsort(-values)[:2]) == {1, 2}
    assert values[[1, 2]].min() > 0.7


def test_content_of_the_shots_cancels() -> None:
    """What a shot adds to every feature vector changes no relation."""
    auxiliary, target = drawn(0), drawn(1)[2, 0]
    content = 100 * np.random.default_rng(3).standard_normal((6, 3))
    plain, shifted = compare(target, auxiliary, 0), compare(target + content, auxiliary + content, 0)
    np.testing.assert_allclose(plain.values, shifted.values, atol=1e-9)
    np.testing.assert_allclose(plain.matrix, shifted.matrix, atol=1e-9)


def test_units_of_the_features_cancel() -> None:
    auxiliary, target = drawn(0), drawn(1)[2, 0]
    units = np.asarray([1e-3, 1.0, 1e4])
    np.testing.assert_allclose(
        compare(target, auxiliary, 0).values, compare(target * units, auxiliary * units, 0).values
    )


def test_features_that_never_vary_do_not_matter() -> None:
    auxiliary, target = drawn(0), drawn(1)[2, 0]
    wider = [np.concatenate([array, np.ones((*array.shape[:-1], 2))], axis=-1) for array in (target, auxiliary)]
    np.testing.assert_allclose(compare(target, auxiliary, 0).values, compare(wider[0], wider[1], 0).values, atol=1e-9)


def test_values_fall_with_the_distance_and_a_target_like_none_is_related_to_none() -> None:
    auxiliary = drawn(0)
    rows = [compare(drawn(1)[0, 0] + np.asarray([step, 0, 0]), auxiliary, 0).values for step in (0.0, 3.0, 4.5, 8.0)]
    assert np.all(np.diff([row[0] for row in rows]) < 0)
    assert rows[0][0] > 0.7
    aliens = [compare(drawn(1)[0, 0] - away, auxiliary, 0).values.max() for away in (20, 200, 1e4)]
    assert aliens[0] < 0.3
    assert aliens[1] < 0
    assert np.all(np.diff(aliens) < 0)


def test_distributions_without_spread_are_told_apart_by_one_shot() -> None:
    auxiliary = np.broadcast_to(np.asarray([0.0, 1.0, 3.0])[:, None, None, None], (3, 6, 1, 2)).copy()
    values = compare(auxiliary[1, 0], auxiliary, 0).values
    assert int(values.argmax()) == 1
    assert values[1] > 0.9


def test_matrix() -> None:
    found = compare(drawn(1)[0, 0], drawn(0), 0)
    np.testing.assert_allclose(found.matrix, found.matrix.T)
    np.testing.assert_array_equal(np.diag(found.matrix), 1)
    np.testing.assert_array_equal(found.matrix[-1, :-1], found.values)
    assert np.abs(found.matrix).max() <= 1


def test_error_covers_the_spread_over_targets() -> None:
    """For a target half-way between two distributions, where the value depends on the sample."""
    auxiliary = drawn(0)
    targets = [drawn(seed)[0, 0] + np.asarray([3.5, 0, 0]) for seed in range(1, 31)]
    found = [compare(target, auxiliary, 0) for target in targets]
    spread = np.std([one.values[1] for one in found], ddof=1)
    error = np.median([one.standard_errors[1] for one in found])
    assert 0.4 * spread < error < 3 * spread


@pytest.mark.parametrize(
    ("count", "draws", "shots", "features"), [(1, 2, 1, 1), (2, 2, 1, 40), (3, 2, 2, 5), (12, 4, 3, 2)]
)
def test_small_sets_give_defined_results(count: int, draws: int, shots: int, features: int) -> None:
    rng = np.random.default_rng(0)
    found = compare(rng.standard_normal((shots, features)), rng.standard_normal((count, draws, shots, features)), 0)
    assert np.isfinite(found.values).all()
    assert np.abs(found.values).max() <= 1
    assert np.isfinite(found.standard_errors).all()
    assert np.isnan(found.reliability) or abs(found.reliability) <= 1
    assert np.isnan(found.reliability) == (shots == 1 or count < 3)


def test_distance_is_the_log_of_the_share() -> None:
    certain, excluded = 0.0, -50.0
    half = np.asarray([[certain, excluded, excluded, excluded]] * 2 + [[excluded, certain, excluded, excluded]] * 2)
    found = distances(half)
    np.testing.assert_allclose(found[:2], np.log(2), atol=1e-9)
    assert found[2] == pytest.approx(50)
