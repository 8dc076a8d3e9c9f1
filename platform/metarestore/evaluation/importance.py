"""How much each parameter of a study matters, as far as its trials can tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from metarestore.decibels import FLOOR
from metarestore.evaluation.tuning import TuningResult, columns

_LEAST_TRIALS = 6
"""With fewer trials a forest tells nothing."""
_TREES = 200
_REPEATS = 20


@dataclass(frozen=True)
class Importance:
    """Permutation importance of a random forest that predicts the metric from the parameters (Breiman, 2001).

    Attributes:
        values: Key to the loss of R² when this parameter's values are shuffled; mean over shuffles.
        errors: Standard deviation over shuffles.
        explained: R² on trials that a tree has not seen; near 0 or below, the values mean nothing.
        step: Outer step at which the trials were compared.
        trials: Number of trials.
    """

    values: dict[str, float]
    errors: dict[str, float]
    explained: float
    step: int
    trials: int


def importance(sweep: TuningResult) -> Importance | None:
    """Estimates importances at the last step that all trials reached; None where too little is known to say.

    Trials that were stopped early are compared where they still ran: their last figures would measure the stop.
    """
    step = sweep.common_step
    if step is None or sweep.changing:
        return None
    # A trial may have diverged at that step and recovered.
    trials = [trial for trial in sweep.ranked if trial.at(step) > FLOOR]
    if len(trials) < _LEAST_TRIALS:
        return None
    metric = np.asarray([trial.at(step) for trial in trials])
    table = {key: column for key, column in columns(sweep, trials).items() if len(np.unique(column)) > 1}
    if not table or np.ptp(metric) == 0:
        return None
    # A parameter that a trial lacks gets a value of its own, below all others.
    features = np.column_stack([np.where(np.isnan(c), np.nanmin(c) - 1, c) for c in table.values()])
    forest = RandomForestRegressor(_TREES, min_samples_leaf=2, oob_score=True, random_state=0).fit(features, metric)
    found = permutation_importance(forest, features, metric, n_repeats=_REPEATS, random_state=0)
    return Importance(
        values=dict(zip(table, found.importances_mean.tolist(), strict=True)),
        errors=dict(zip(table, found.importances_std.tolist(), strict=True)),
        explained=float(forest.oob_score_),
        step=step,
        trials=len(trials),
    )
