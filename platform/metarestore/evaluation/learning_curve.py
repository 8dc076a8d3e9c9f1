"""The gain of adaptation over the number of pairs, and whether more pairs are worth taking."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metarestore.config.grid import FIRST_SHOT, SEED
from metarestore.evaluation.ablation import CellResult, Metrics
from metarestore.evaluation.statistics import Difference, random_effects

Floats = NDArray[np.float64]
Repetition = tuple[str, str]
"""Labels of the seed and of the first shot."""
Verdict = Literal["worth", "not worth", "unknown"]
SHOTS = "adaptation.shots"


@dataclass(frozen=True)
class CurvePoint:
    """The gains with one number of pairs.

    Attributes:
        shots: Number of pairs.
        adapted: Gain of the adapted network over bicubic upscaling in dB PSNR-Y.
        unadapted: Gain of the same network before adaptation.
        folds: Number of choices of the pairs.
        seeds: Number of seeds.
        shared: Fraction of the pairs that two folds share, on average; 0 for a single fold.
    """

    shots: int
    adapted: Difference
    unadapted: Difference
    folds: int
    seeds: int
    shared: float


@dataclass(frozen=True)
class CurveStep:
    """The comparison of two numbers of pairs.

    Attributes:
        fewer: The smaller number of pairs.
        more: The larger number.
        difference: Gain with more pairs minus gain with fewer, paired by photograph, fold and seed.
        verdict: Whether more pairs are worth taking.
    """

    fewer: int
    more: int
    difference: Difference
    verdict: Verdict


@dataclass(frozen=True)
class LearningCurve:
    """The gain over the number of pairs.

    Attributes:
        points: The numbers of pairs that were measured, ascending.
        last: Comparison of the two largest; None if there are not two, or they have no fold in common.
        worth: The smallest gain in dB that is worth taking pairs for.
        photographs: Number of test photographs.
        trainings: Number of trainings.
    """

    points: tuple[CurvePoint, ...]
    last: CurveStep | None
    worth: float
    photographs: int
    trainings: int

    def to_json(self) -> dict[str, Any]:
        """Returns JSON data."""
        return asdict(self)


def learning_curve(cells: Sequence[CellResult], pool: int | None, worth: float) -> LearningCurve:
    """Collects the curve from the cells of an ablation over the number of shots.

    Args:
        cells: Cells of one arm; axes are the number of shots and, optionally, the first shot and the seed.
        pool: Number of pairs in the support pool, around which the shots go; None if folds share no pairs.
        worth: The smallest gain in dB that is worth taking pairs for.
    """
    by_shots: dict[int, dict[Repetition, CellResult]] = {}
    for cell in cells:
        repetition = cell.labels.get(SEED, ""), cell.labels.get(FIRST_SHOT, "0")
        by_shots.setdefault(int(cell.labels[SHOTS]), {})[repetition] = cell
    measured = {shots: found for shots, found in sorted(by_shots.items()) if all(complete(found))}
    return LearningCurve(
        points=tuple(_point(shots, found, pool) for shots, found in measured.items()),
        last=_last_step(measured, pool, worth),
        worth=worth,
        photographs=len(cells[0].photographs) if cells else 0,
        trainings=len({cell.trained for cell in cells}),
    )


def verdict(difference: Difference, worth: float) -> Verdict:
    """Judges whether more pairs are worth taking.

    They are not if the whole interval lies below `worth`, even if it excludes 0; they are if it lies above 0 and
    reaches `worth`. All other intervals are too wide to tell.
    """
    if difference.high < worth:
        return "not worth"
    return "worth" if difference.low > 0 else "unknown"


def shared_pairs(shots: int, firsts: Sequence[int], pool: int | None) -> float:
    """Returns the fraction of the pairs that two folds share, on average.

    >>> shared_pairs(4, [0, 5], 10), shared_pairs(6, [0, 5], 10), shared_pairs(10, [0, 5], 10)
    (0.0, 0.3333333333333333, 1.0)
    """
    if pool is None or len(firsts) < 2:
        return 0.0
    folds = [{(first + k) % pool for k in range(shots)} for first in firsts]
    return float(np.mean([len(one & other) / shots for one, other in combinations(folds, 2)]))


def complete(repetitions: Collection[Repetition]) -> tuple[list[str], list[str]]:
    """Returns the seeds, and the first shots that were measured with all of them."""
    seeds, firsts = (
        (list(dict.fromkeys(labels)) for labels in zip(*repetitions, strict=True)) if repetitions else ([], [])
    )
    return seeds, [first for first in firsts if all((seed, first) in repetitions for seed in seeds)]


def _point(shots: int, cells: Mapping[Repetition, CellResult], pool: int | None) -> CurvePoint:
    seeds, firsts = complete(cells)
    shared = shared_pairs(shots, [int(first) for first in firsts], pool)
    adapted, unadapted = (
        random_effects(_table(seeds, firsts, {key: _gain(cell, stage) for key, cell in cells.items()}), (0, shared, 0))
        for stage in ("after", "before")
    )
    return CurvePoint(shots, adapted, unadapted, len(firsts), len(seeds), shared)


def _last_step(
    measured: Mapping[int, Mapping[Repetition, CellResult]], pool: int | None, worth: float
) -> CurveStep | None:
    if len(measured) < 2:
        return None
    fewer, more = list(measured)[-2:]
    gains = {
        key: _gain(cell, "after") - _gain(measured[fewer][key], "after")
        for key, cell in measured[more].items()
        if key in measured[fewer]
    }
    seeds, firsts = complete(gains)
    if not firsts:
        return None
    # The pairs of a fold with fewer shots are among those with more, so the larger sets determine what folds share.
    shared = shared_pairs(more, [int(first) for first in firsts], pool)
    difference = random_effects(_table(seeds, firsts, gains), (0, shared, 0))
    return CurveStep(fewer, more, difference, verdict(difference, worth))


def _gain(cell: CellResult, stage: Literal["before", "after"]) -> Floats:
    metrics: Metrics = getattr(cell, stage)
    return np.subtract(metrics.psnr_y, cell.bicubic.psnr_y)


def _table(seeds: Sequence[str], firsts: Sequence[str], values: Mapping[Repetition, Floats]) -> Floats:
    """Returns values (seeds, folds, photographs)."""
    return np.asarray([[values[seed, first] for first in firsts] for seed in seeds])
