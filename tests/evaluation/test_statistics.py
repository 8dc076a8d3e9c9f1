"""Errors come from the spread between photographs, never from the number of crops."""

import math

import numpy as np
import pytest
import scipy.stats

from metarestore.evaluation.statistics import (
    bootstrap_difference,
    cluster_means,
    crossed_difference,
    mean_and_error,
    paired_difference,
    random_effects,
)


def figures(seed, count, mean=30.0):
    return np.random.default_rng(seed).normal(mean, 2, count)


def test_clusters_keep_the_order_in_which_they_are_first_named():
    means = cluster_means([1.0, 10.0, 3.0, 100.0], ["sea", "hill", "sea", "apple"])
    np.testing.assert_array_equal(means, [2, 10, 100])


def test_clusters_are_averaged_along_the_last_axis():
    values = np.random.default_rng(0).normal(size=(2, 3, 6))
    means = cluster_means(values, list("aabbab"))
    assert means.shape == (2, 3, 2)
    np.testing.assert_allclose(means[..., 0], values[..., [0, 1, 4]].mean(-1), rtol=1e-15)
    np.testing.assert_allclose(means[..., 1], values[..., [2, 3, 5]].mean(-1), rtol=1e-15)


@pytest.mark.parametrize("copies", [2, 7])
def test_duplicating_crops_does_not_shrink_the_error(copies):
    values, clusters = figures(0, 12), [f"photo{index // 3}" for index in range(12)]
    once = mean_and_error(cluster_means(values, clusters))
    often = mean_and_error(cluster_means(np.repeat(values, copies), np.repeat(clusters, copies).tolist()))
    assert (often.mean, often.standard_error) == pytest.approx((once.mean, once.standard_error), rel=1e-12)
    assert once.count == often.count == 4
    naive = mean_and_error(np.repeat(values, copies)).standard_error
    assert naive < mean_and_error(values).standard_error  # what clustering protects from


@pytest.mark.parametrize("count", [2, 5, 40])
def test_standard_error_is_that_of_the_mean(count):
    values = figures(1, count)
    estimate = mean_and_error(values)
    assert estimate.count == count
    assert estimate.mean == pytest.approx(values.mean(), rel=1e-14)
    assert estimate.standard_error == pytest.approx(scipy.stats.sem(values), rel=1e-12)


@pytest.mark.parametrize("count", [2, 5, 40])
@pytest.mark.parametrize("gain", [0.0, 0.3, 3.0])
def test_interval_is_the_paired_t_interval(count, gain):
    b = figures(2, count)
    a = b + gain + np.random.default_rng(count).normal(0, 0.5, count)
    ours = paired_difference(a, b)
    reference = scipy.stats.ttest_rel(a, b)
    interval = reference.confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    alone = scipy.stats.ttest_1samp(a - b, 0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((alone.low, alone.high), rel=1e-9)
    assert ours.beyond_noise is bool(reference.pvalue < 0.05)
    assert ours.count == count


def test_pairing_removes_the_spread_between_photographs():
    b = figures(3, 10)
    wobble = np.random.default_rng(3).normal(0, 0.01, 10)
    assert paired_difference(b + 0.1 + wobble, b).beyond_noise
    assert not scipy.stats.ttest_ind(b + 0.1 + wobble, b).pvalue < 0.05


def test_swapping_the_methods_turns_the_interval_round():
    a, b = figures(4, 9), figures(5, 9)
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert (back.mean, back.low, back.high) == (-forth.mean, -forth.high, -forth.low)
    assert forth.beyond_noise is back.beyond_noise


def test_equal_methods_are_not_told_apart():
    a = figures(6, 5)
    difference = paired_difference(a, a)
    assert (difference.mean, difference.low, difference.high, difference.beyond_noise) == (0, 0, 0, False)


def test_one_photograph_says_nothing_about_noise():
    assert mean_and_error([31.0]).standard_error == math.inf
    difference = paired_difference([40.0], [10.0])
    assert (difference.mean, difference.low, difference.high) == (30, -math.inf, math.inf)
    assert difference.beyond_noise is False


def test_infinite_figures_are_never_beyond_noise():
    difference = paired_difference([math.inf, math.inf, 30.0], [math.inf, 29.0, 28.0])
    assert math.isnan(difference.low)
    assert difference.beyond_noise is False


def test_misuse_is_named():
    with pytest.raises(ValueError, match=r"got 3 for values of shape \(2,\)"):
        cluster_means([1.0, 2.0], ["a", "b", "c"])
    with pytest.raises(ValueError, match="at least one value"):
        mean_and_error([])
    with pytest.raises(ValueError, match=r"must be paired, got shapes \(1,\) and \(2,\)"):
        paired_difference([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("trainings", "photographs", "rest"), [(0.0, 1.0, 0.3), (1.0, 0.3, 0.3), (0.3, 0.3, 1.0), (1, 1, 1)]
)
def test_an_interval_over_trainings_and_photographs_holds_the_truth_as_often_as_it_says(trainings, photographs, rest):
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        table = (
            trainings * rng.normal(size=(3, 1))
            + photographs * rng.normal(size=(1, 18))
            + rest * rng.normal(size=(3, 18))
        )
        difference = crossed_difference(0.7 + table)
        held += difference.low <= 0.7 <= difference.high
    assert held / 2000 >= 0.94


def test_where_trainings_agree_the_interval_is_that_over_photographs():
    differences = np.tile(figures(0, 18, mean=0.3), (3, 1))
    crossed, paired = crossed_difference(differences), paired_difference(differences[0], np.zeros(18))
    assert (crossed.mean, crossed.standard_error) == pytest.approx((paired.mean, paired.standard_error))
    assert (crossed.low, crossed.high) == pytest.approx((paired.low, paired.high))


@pytest.mark.parametrize("shape", [(1, 18), (3, 1)])
def test_one_training_or_photograph_says_nothing_of_others(shape):
    difference = crossed_difference(np.ones(shape))
    assert not difference.beyond_noise
    assert difference.low == -math.inf


@pytest.mark.parametrize("shape", [(3,), (0, 4), (2, 0)])
def test_a_crossed_comparison_needs_a_table(shape):
    with pytest.raises(ValueError, match="table of trainings and photographs"):
        crossed_difference(np.ones(shape))


def test_bootstrap_of_additive_effects_has_the_variance_of_both() -> None:
    """For a_s + b_p the mean of resampled rows and columns is the sum of two independent means."""
    rng = np.random.default_rng(0)
    trainings, photographs = rng.normal(0, 0.3, 5), rng.normal(0.2, 1.0, 40)
    found = bootstrap_difference(trainings[:, None] + photographs[None])
    assert found.mean == pytest.approx(trainings.mean() + photographs.mean())
    assert found.standard_error**2 == pytest.approx(trainings.var() / 5 + photographs.var() / 40, rel=0.05)
    reach = 1.96 * found.standard_error
    assert (found.low, found.high) == pytest.approx((found.mean - reach, found.mean + reach), abs=0.1 * reach)
    assert found.count == 40


def test_bootstrap_by_hand_of_two_photographs() -> None:
    """Resampling 0 and 1 gives 0, ½ and 1 with probabilities ¼, ½, ¼; equal trainings change nothing."""
    for trainings in (1, 3):
        found = bootstrap_difference([[0.0, 1.0]] * trainings)
        assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)
        assert found.standard_error == pytest.approx(np.sqrt(1 / 8), rel=0.05)
        assert not found.beyond_noise


def test_bootstrap_is_repeatable_and_needs_a_spread() -> None:
    table = np.random.default_rng(1).normal(1, 0.1, (3, 6))
    assert bootstrap_difference(table, 4) == bootstrap_difference(table, 4)
    assert bootstrap_difference(table).beyond_noise
    assert bootstrap_difference(table).low < crossed_difference(table).mean < bootstrap_difference(table).high
    assert not bootstrap_difference([[2.0]]).beyond_noise
    with pytest.raises(ValueError, match="a table of trainings and photographs"):
        bootstrap_difference([1.0, 2.0])


def test_random_effects_of_photographs_alone_are_the_paired_interval():
    differences = figures(0, 18, mean=0.3)
    paired = paired_difference(differences, np.zeros(18))
    for table in (differences, differences[None], differences[None, None]):
        found = random_effects(table)
        assert (found.mean, found.low, found.high) == pytest.approx((paired.mean, paired.low, paired.high))


def test_each_axis_adds_the_variance_of_its_means():
    seeds, folds, photographs = (figures(k, n) for k, n in ((0, 2), (1, 4), (2, 6)))
    table = seeds[:, None, None] + folds[:, None] + photographs
    parts = [part.var(ddof=1) / part.size for part in (seeds, folds, photographs)]
    assert random_effects(table).standard_error == pytest.approx(math.sqrt(sum(parts)))
    parts[1] *= 1 + 4 * 0.5 / 0.5
    assert random_effects(table, (0, 0.5, 0)).standard_error == pytest.approx(math.sqrt(sum(parts)))
    assert random_effects(table, (0, 1, 0)).standard_error == pytest.approx(math.sqrt(parts[0] + parts[2]))


@pytest.mark.parametrize("shared", [0.2, 0.6])
def test_correlated_samples_hold_the_truth_as_often_as_independent_ones(shared):
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        choices = math.sqrt(shared) * rng.normal() + math.sqrt(1 - shared) * rng.normal(size=(5, 1))
        found = random_effects(choices + 0.3 * rng.normal(size=(1, 18)), (shared, 0.0))
        held += found.low <= 0 <= found.high
    assert 0.93 <= held / 2000 <= 0.97


def test_random_effects_of_nothing_known():
    assert random_effects(np.ones((3, 1))).low == -math.inf
    with pytest.raises(ValueError, match=r"one correlation per axis is required: got 1 for shape \(3, 2\)"):
        random_effects(np.ones((3, 2)), (0.5,))
    with pytest.raises(ValueError, match="must be a table"):
        random_effects(1.0)
