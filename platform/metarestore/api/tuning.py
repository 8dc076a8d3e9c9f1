"""A trainable for Ray Tune, for searches that `metarestore tune` does not offer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from metarestore.api.runs import override_of
from metarestore.config.document import project_root
from metarestore.config.experiment import Experiment
from metarestore.project import read_experiment
from metarestore.tuning.trial import TrialPlan, run_trial


@dataclass(frozen=True)
class _Given(TrialPlan):
    """The experiment of a file, with the values of a trial's configuration."""

    path: Path

    def drawn(self, draw: Mapping[str, Any]) -> Experiment:
        """Returns the experiment with the values of a configuration, by key path."""
        return read_experiment(self.path, [override_of(key, value) for key, value in draw.items()])


def trainable(path: str | os.PathLike[str]) -> Callable[[Mapping[str, Any]], None]:
    """Returns a function for `ray.tune.Tuner`: it trains an experiment, and reports `metric` (dB, to be maximised).

    The configuration of a trial has key paths of the experiment, e.g. `{"training.optimizer.lr": tune.loguniform(1e-4,
    1e-2)}`. The section `tuning` of the experiment selects the metric and how often it is measured. Trials report
    `metric`, `step` and `loss`, save checkpoints, and continue from them.

    Args:
        path: The experiment file.

    Raises:
        UserError: The experiment is invalid.
    """
    file = Path(path).absolute()
    plan = _Given(read_experiment(file), project_root(file).absolute(), file)
    return partial(run_trial, plan=plan)
