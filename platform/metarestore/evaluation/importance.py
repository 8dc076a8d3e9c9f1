"""Importance of each parameter of a tuning run, estimated from its trials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from metarestore.decibels import FLOOR
from metarestore.evaluation.tuning import TuningResult, columns

_LEAST_TRIALS = 6
"""Minimum number of trials for a meaningful forest."""
_TREES = 200
_REPEATS = 20


@dataclass(frozen=True)
class Importance:
    """Permutation importance of a random forest that predicts the metric from the parameters (Breiman, 2001).

    Attributes:
        values: Decrease of R² when the values of a parameter are shuffled, by key; mean over shuffles.
        errors: Standard deviation over shuffles.
        explained: Out-of-bag R²; near 0 or below, the values are meaningless.
        step: Outer step at which the trials were compared.
        trials: Number of trials.
    """

    values: dict[str, float]
    errors: dict[str, float]
    explained: float
    step: int
    trials: int


def importance(result: TuningResult) -> Importance | None:
    """Estimates importances at the last step that all trials reached; None where too little is known to say.

    Trials that were stopped early are compared at a common step, because their last metrics depend on the stopping
    step.
    """
    step = result.common_step
    if step is None or result.changing:
        return None
    # A trial may have diverged at that step and recovered.
    trials = [trial for trial in result.ranked if trial.at(step) > FLOOR]
    if len(trials) < _LEAST_TRIALS:
        return None
    metric = np.asarray([trial.at(step) for trial in trials])
    table = {key: column for key, column in columns(result, trials).items() if len(np.unique(column)) > 1}
    if not table or np.ptp(metric) == 0:
        return None
    # A parameter that a trial does not have gets a separate value, below all others.
    features = np.column_stack([np.where(np.isnan(c), np.nanmin(c) - 1, c) for c in table.values()])
    forest = RandomForestRegressor(_TREES, min_samples_leaf=2, oob_score=True, random_state=0).fit(features, metric)
    permuted = permutation_importance(forest, features, metric, n_repeats=_REPEATS, random_state=0)
    return Importance(
        values=dict(zip(table, permuted.importances_mean.tolist(), strict=True)),
        errors=dict(zip(table, permuted.importances_std.tolist(), strict=True)),
        explained=float(forest.oob_score_),
        step=step,
        trials=len(trials),
    )
