"""The result of a tuning run as plain data: its trials with everything that they reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metarestore.decibels import FLOOR

State = Literal["running", "finished", "stopped", "failed", "lost"]
"""`stopped`: early, by the scheduler. `lost`: interrupted, and repeated by another trial."""


@dataclass(frozen=True)
class TrialResult:
    """One trial.

    Attributes:
        number: Number of the trial, from 1, in order of start.
        values: Values by key path; the last ones if the scheduler changes values.
        state: State in which it ended.
        history: Step and metric of every measurement, in dB; `FLOOR` if the network had diverged.
        error: The error, if it failed.
    """

    number: int
    values: dict[str, Any]
    state: State = "running"
    history: tuple[tuple[int, float], ...] = ()
    error: str = ""
    run: str = field(default="", compare=False)
    """Id of the MLflow run."""

    @property
    def step(self) -> int:
        """Last step that was measured."""
        return self.history[-1][0] if self.history else 0

    @property
    def metric(self) -> float:
        """Last measurement, in dB; NaN before the first."""
        return self.history[-1][1] if self.history else float("nan")

    @property
    def diverged(self) -> bool:
        """Whether the network had diverged at the last measurement."""
        return bool(self.history) and self.metric <= FLOOR

    @property
    def ranks(self) -> bool:
        """Whether it has a metric that can be compared: it neither failed nor diverged."""
        return bool(self.history) and not self.diverged and self.state != "failed"

    def at(self, step: int) -> float:
        """Returns the measurement of a step, in dB; NaN if there is none."""
        return dict(self.history).get(step, float("nan"))

    def measured(self, step: int, metric: float) -> TrialResult:
        """Returns the trial with an additional measurement."""
        return replace(self, history=(*self.history, (step, metric)))

    def to_json(self) -> dict[str, Any]:
        """Returns the trial as JSON data."""
        return dict(vars(self)) | {"history": [list(one) for one in self.history]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialResult:
        """Reads data returned by `to_json`."""
        # Earlier versions wrote null for measurements that are not finite.
        measured = ((int(step), FLOOR if value is None else float(value)) for step, value in data["history"])
        return cls(**dict(data) | {"history": tuple(measured)})


@dataclass(frozen=True)
class TuningResult:
    """A finished tuning run.

    Attributes:
        name: Name of the experiment.
        metric: The metric that was maximised.
        keys: The keys that were searched.
        logarithmic: The keys that were drawn on a logarithmic scale.
        trials: All trials except lost ones, by number.
        changing: Whether values changed during trials.
        seconds: Wall time.
        notes: What a reader has to know of the pairs and shots.
    """

    name: str
    metric: str
    keys: tuple[str, ...]
    logarithmic: frozenset[str]
    trials: tuple[TrialResult, ...]
    changing: bool
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def ranked(self) -> tuple[TrialResult, ...]:
        """Trials with a metric, best first: those that reached the last step, then those that were stopped.

        Failed and diverged trials are excluded.
        """
        measured = [trial for trial in self.trials if trial.ranks]
        furthest = max((trial.step for trial in measured), default=0)
        return tuple(sorted(measured, key=lambda trial: (trial.step < furthest, -trial.metric, trial.number)))

    @property
    def best(self) -> TrialResult | None:
        """The best trial, if any was measured."""
        return next(iter(self.ranked), None)

    @property
    def common_step(self) -> int | None:
        """The last step at which all ranked trials were measured, and can be compared."""
        steps = [{step for step, _ in trial.history} for trial in self.ranked]
        return max(set.intersection(*steps), default=None) if steps else None

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON data."""
        return {
            "name": self.name,
            "metric": self.metric,
            "best": self.best.to_json() if self.best else None,
            "trials": [trial.to_json() for trial in self.trials],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def columns(sweep: TuningResult, trials: Sequence[TrialResult]) -> dict[str, NDArray[np.float64]]:
    """Returns one column of numbers for each key: NaN where a trial lacks it; choices by their order of appearance."""
    return {key: _column([trial.values.get(key) for trial in trials], key in sweep.logarithmic) for key in sweep.keys}


def _column(values: Sequence[Any], logarithmic: bool) -> NDArray[np.float64]:
    if all(is_number(value) or value is None for value in values):
        numbers = np.asarray([np.nan if value is None else float(value) for value in values])
        return np.log10(numbers) if logarithmic else numbers
    order = list(dict.fromkeys(repr(value) for value in values if value is not None))
    return np.asarray([np.nan if value is None else float(order.index(repr(value))) for value in values])


def is_number(value: Any) -> bool:
    """Returns whether a value is a number and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)
