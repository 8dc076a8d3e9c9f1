"""Learning curves: gains and intervals from analytic numbers, and when more pairs are worth taking."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from metarestore.evaluation.ablation import AblationResult, CellResult, Metrics
from metarestore.evaluation.learning_curve import LearningCurve, complete, learning_curve, shared_pairs, verdict
from metarestore.evaluation.statistics import Difference, paired_difference
from metarestore.reports.ablation.learning_curve import (
    curve_cells,
    curve_figure,
    curve_json,
    curve_markdown,
    curve_notes,
    curve_statement,
)

BICUBIC = np.asarray([25.0, 27.0, 29.0, 33.0])
PHOTOGRAPHS = ["sea", "hill", "town", "wood"]
EFFECTS = np.asarray([-0.3, -0.1, 0.1, 0.3])
"""Of the photographs, on the gain."""


def cell(shots: int, first: int, seed: int, gain: float, trained: str = "one") -> CellResult:
    def metrics(psnr: np.ndarray) -> Metrics:
        return Metrics(psnr.tolist(), [0.8] * 4, psnr.tolist(), [1.0] * 4, psnr.tolist())

    bicubic = BICUBIC + 5 * seed
    return CellResult(
        name=f"{shots},{first},{seed}",
        arm="fomaml",
        labels={"adaptation.shots": str(shots), "adaptation.first_shot": str(first), "seed": str(seed)},
        study="",
        trained=trained,
        photographs=PHOTOGRAPHS,
        bicubic=metrics(bicubic),
        before=metrics(bicubic + 0.1 + EFFECTS),
        after=metrics(bicubic + gain + EFFECTS),
        alternatives={},
        relations={},
        standard_errors={},
        reliability=None,
        weights={},
        effective_tasks=None,
        training_seconds=1.0,
        relating_seconds=0.0,
    )


GAINS = {1: 0.2, 2: 0.4, 4: 0.5}


def cells(gain: Callable[[int, int, int], float], firsts: int = 2, seeds: int = 2) -> list[CellResult]:
    return [
        cell(shots, 4 * first, seed, GAINS[shots] + gain(shots, first, seed))
        for shots in GAINS
        for seed in range(seeds)
        for first in range(firsts)
    ]


def difference(low: float, high: float) -> Difference:
    return Difference((low + high) / 2, 1.0, low, high, 4, beyond_noise=low > 0 or high < 0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.01, 0.07, "not worth"),
        (0.02, 0.07, "not worth"),
        (-0.5, -0.2, "not worth"),
        (0.02, 0.15, "worth"),
        (0.3, 0.5, "worth"),
        (-0.01, 0.15, "unknown"),
        (-math.inf, math.inf, "unknown"),
        (math.nan, math.nan, "unknown"),
    ],
)
def test_more_pairs_are_worth_taking_if_the_interval_says_so(low: float, high: float, expected: str) -> None:
    assert verdict(difference(low, high), 0.1) == expected


def test_gains_are_means_over_folds_seeds_and_photographs() -> None:
    curve = learning_curve(cells(lambda shots, first, seed: 0.0), None, 0.1)
    assert [point.shots for point in curve.points] == [1, 2, 4]
    assert [point.adapted.mean for point in curve.points] == pytest.approx([0.2, 0.4, 0.5])
    assert [point.unadapted.mean for point in curve.points] == pytest.approx([0.1] * 3)
    assert {(point.folds, point.seeds, point.shared) for point in curve.points} == {(2, 2, 0.0)}
    photographs = paired_difference(0.2 + EFFECTS, np.zeros(4))
    assert (curve.points[0].adapted.low, curve.points[0].adapted.high) == pytest.approx(
        (photographs.low, photographs.high)
    )


def test_the_interval_includes_the_choice_of_the_pairs() -> None:
    plain = learning_curve(cells(lambda *_: 0.0), None, 0.1).points[0].adapted
    varied = learning_curve(cells(lambda shots, first, seed: (-0.2, 0.2)[first]), None, 0.1).points[0].adapted
    assert varied.mean == pytest.approx(plain.mean)
    assert varied.standard_error == pytest.approx(math.hypot(plain.standard_error, 0.2))


def test_the_last_two_sizes_are_compared_within_folds_seeds_and_photographs() -> None:
    """What a fold, a seed or a photograph adds to both sizes cancels."""
    curve = learning_curve(cells(lambda shots, first, seed: 0.3 * first + 0.2 * seed), None, 0.05)
    assert curve.last is not None
    assert (curve.last.fewer, curve.last.more) == (2, 4)
    assert (curve.last.difference.low, curve.last.difference.high) == pytest.approx((0.1, 0.1), abs=1e-9)
    assert curve_statement(curve) == "From 2 to 4 pairs: +0.10 dB [+0.10, +0.10], so more pairs are worth taking."


def statement(wobble: Mapping[int, float], worth: float = 0.1) -> str:
    """The statement if more pairs gain by 0.1 dB, and by another amount in each fold."""
    found = cells(lambda shots, first, seed: wobble[first] if shots == 4 else 0.0, firsts=len(wobble))
    return curve_statement(learning_curve(found, None, worth))


def test_the_statement_follows_the_interval() -> None:
    assert statement({0: -0.07, 1: -0.05, 2: -0.09}).endswith(
        "+0.03 dB [−0.02, +0.08], so more pairs are not worth taking (less than 0.1 dB)."
    )
    assert "so more pairs are worth taking" in statement({0: 0.01, 1: -0.01, 2: 0.0})
    assert "cannot be told" in statement({0: 0.3, 1: -0.3})


def test_folds_that_share_pairs_widen_the_interval_and_the_whole_pool_has_no_choice() -> None:
    varied = cells(lambda shots, first, seed: (-0.2, 0.2)[first])
    alone, some, whole = (learning_curve(varied, pool, 0.1) for pool in (None, 6, 4))
    assert [point.shared for point in some.points] == [0.0, 0.0, 0.5]
    assert [point.shared for point in whole.points] == [1.0, 1.0, 1.0]
    errors = [curve.points[2].adapted.standard_error for curve in (whole, alone, some)]
    assert errors == sorted(errors)
    assert "With 4 pairs, two folds share 50% of them; the interval is wider for that." in curve_notes(some)
    assert "4 pairs are the whole support pool, so the interval does not cover their choice." in curve_notes(whole)


def test_shared_pairs_are_counted_around_the_pool() -> None:
    assert shared_pairs(2, [0, 9], 10) == 0.5
    assert shared_pairs(2, [0, 1, 2], 10) == pytest.approx(1 / 3)
    assert shared_pairs(8, [3], 10) == shared_pairs(8, [0, 8], None) == 0.0


def test_only_folds_of_all_seeds_count() -> None:
    assert complete({("0", "0"), ("0", "4"), ("1", "4")})[1] == ["4"]
    assert complete([]) == ([], [])
    lost = [one for one in cells(lambda *_: 0.0) if one.name not in ("4,0,0", "2,4,1")]
    curve = learning_curve(lost, None, 0.1)
    assert [point.folds for point in curve.points] == [2, 1, 1]
    assert curve.last is None
    assert "cannot be told" in curve_statement(curve)


def test_repeated_trainings_are_noted() -> None:
    shared = learning_curve([cell(s, 0, 0, 0.1) for s in (1, 2)], None, 0.1)
    repeated = learning_curve([cell(s, 0, 0, 0.1, trained=str(s)) for s in (1, 2)], None, 0.1)
    assert not any("depends on the shots" in note for note in curve_notes(shared))
    assert any("2 trainings" in note for note in curve_notes(repeated))


def result(found: list[CellResult]) -> AblationResult:
    names = {key: key for key in ("adaptation.shots", "adaptation.first_shot", "seed")}
    return AblationResult("one", ("fomaml",), names, "fomaml", {}, tuple(found), {"lost|cell": "it diverged"})


def test_the_report_states_what_was_measured() -> None:
    found = cells(lambda shots, first, seed: 0.1 * first)
    curve = learning_curve(found, 8, 0.1)
    text = curve_markdown(curve, result(found), "metarestore shots e.yaml")
    assert "| 4 | +0.55 |" in text
    assert curve_statement(curve) in text
    assert "lost\\|cell failed: it diverged" in text
    assert [row[0] for row in curve_cells(curve).rows] == ["1", "2", "4"]
    assert curve_json(curve)["statement"] == curve_statement(curve)


@pytest.mark.parametrize("photographs", [1, 4])
def test_the_figure_shows_every_size(photographs: int) -> None:
    found = cells(lambda *_: 0.0)
    if photographs == 1:  # no interval is known
        found = [cut(one) for one in found]
    curve = learning_curve(found, None, 0.1)
    axes = curve_figure(curve).axes[0]
    assert axes.get_xticks().tolist() == [1, 2, 4]
    assert math.isfinite(curve.points[0].adapted.low) == (photographs == 4)
    assert np.isfinite(axes.get_ylim()).all()


def cut(one: CellResult) -> CellResult:
    data = one.to_json()
    for stage in ("bicubic", "before", "after"):
        data[stage] = {key: values[:1] for key, values in data[stage].items()}
    return CellResult.from_json({**data, "photographs": one.photographs[:1]})


def test_nothing_measured_is_said() -> None:
    curve: LearningCurve = learning_curve([], None, 0.1)
    assert curve.points == ()
    assert "cannot be told" in curve_statement(curve)
    assert curve_notes(curve) == []
