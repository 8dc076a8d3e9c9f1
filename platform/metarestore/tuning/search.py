"""Builds Ray Tune's searchers and schedulers from the settings of a tuning run."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import Searcher

from metarestore.config.experiment import Experiment
from metarestore.config.search import ParameterSpec
from metarestore.config.search_space import Draw, Space, draws, random_value
from metarestore.tuning.trial import DRAW, METRIC, STEP


def parameter_space(experiment: Experiment) -> dict[str, Any]:
    """Returns Ray Tune's space: all draws as one grid, so that a resumed trial keeps its draw."""
    listed = draws(experiment)
    return {} if listed is None else {DRAW: tune.grid_search(listed)}


def build_searcher(experiment: Experiment) -> Searcher | None:
    """Builds Optuna's searcher, if it is selected."""
    if experiment.tuning.searcher != "optuna":
        return None
    # Importing Optuna takes a second.
    import optuna  # noqa: PLC0415
    from ray.tune.search.optuna import OptunaSearch  # noqa: PLC0415

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return OptunaSearch(
        space=OptunaSpace(Space(experiment.search)), metric=METRIC, mode="max", seed=experiment.tuning.seed
    )


class OptunaSpace:
    """Defines a search space for Optuna: suggests each parameter that is active.

    Args:
        space: The space.
    """

    def __init__(self, space: Space) -> None:
        self._space = space

    def __call__(self, trial: Any) -> Draw:
        """Suggests a draw."""
        return self._space.walk(lambda key, parameter: _suggested(trial, key, parameter))


def _suggested(trial: Any, key: str, parameter: ParameterSpec) -> float:
    if parameter.choice is not None:
        return int(trial.suggest_categorical(key, list(range(len(parameter.choice)))))
    low, high = parameter.ends
    if parameter.whole is not None:
        return int(trial.suggest_int(key, int(low), int(high)))
    return float(trial.suggest_float(key, low, high, log=parameter.log_uniform is not None))


def build_scheduler(experiment: Experiment) -> TrialScheduler:
    """Builds the scheduler."""
    tuning, steps = experiment.tuning, experiment.training.steps
    every = tuning.interval(steps)
    if tuning.scheduler == "none":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    if tuning.scheduler == "asha":
        grace = min(tuning.grace or every, steps)
        return ASHAScheduler(
            time_attr=STEP,
            metric=METRIC,
            mode="max",
            max_t=steps,
            grace_period=grace,
            reduction_factor=tuning.reduction,
        )
    # Ray Tune draws PBT's changes from these global generators.
    random.seed(tuning.seed)
    np.random.seed(tuning.seed)  # noqa: NPY002
    space = Space(experiment.search)
    return PopulationBasedTraining(
        time_attr=STEP,
        metric=METRIC,
        mode="max",
        perturbation_interval=tuning.perturb_every or 2 * every,
        hyperparam_mutations={DRAW: {key: _mutation(p) for key, p in space.parameters.items()}},
        custom_explore_fn=Clipped(space),
    )


def _mutation(parameter: ParameterSpec) -> Any:
    """Returns what PBT resamples a value from; it also multiplies values of ranges by 0.8 or 1.2."""
    if parameter.choice is not None:
        return list(range(len(parameter.choice)))
    return Redrawn(parameter)


class Redrawn:
    """Draws a parameter from Ray Tune's global generator.

    Args:
        parameter: The parameter.
    """

    def __init__(self, parameter: ParameterSpec) -> None:
        self._parameter = parameter

    def __call__(self) -> float:
        """Returns a number."""
        return random_value(self._parameter, np.random.default_rng(random.getrandbits(64)))


class Clipped:
    """Clips values that PBT has multiplied to their ranges, in which every value is known to be valid.

    Args:
        space: The space.
    """

    def __init__(self, space: Space) -> None:
        self._space = space

    def __call__(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the configuration of a trial with its draw clipped."""
        return {**config, DRAW: {key: self._clipped(key, value) for key, value in config[DRAW].items()}}

    def _clipped(self, key: str, value: float) -> float:
        parameter = self._space.parameters[key]
        if parameter.choice is not None:
            return value
        low, high = parameter.ends
        return type(value)(min(max(value, low), high))
