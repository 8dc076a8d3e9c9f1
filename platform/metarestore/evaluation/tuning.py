"""What a parameter study found, as plain data: its trials with all that they reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metarestore.decibels import FLOOR

State = Literal["running", "finished", "stopped", "failed", "lost"]
"""`stopped`: early, by the scheduler. `lost`: cut off, and done again by another trial."""


@dataclass(frozen=True)
class TrialResult:
    """One trial.

    Attributes:
        number: From 1, in the order of their start.
        values: Key path to value; the last ones, where the scheduler changes values.
        state: How it ended.
        history: Step and metric of every measurement, in dB; `FLOOR` where the network had diverged.
        error: Why it failed.
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
        """Whether the last measurement is that of a network that restores nothing."""
        return bool(self.history) and self.metric <= FLOOR

    @property
    def ranks(self) -> bool:
        """Whether it has a metric that can be compared: it neither failed nor diverged."""
        return bool(self.history) and not self.diverged and self.state != "failed"

    def at(self, step: int) -> float:
        """Returns the measurement of a step, in dB; NaN where there is none."""
        return dict(self.history).get(step, float("nan"))

    def measured(self, step: int, metric: float) -> TrialResult:
        """Returns the trial with another measurement."""
        return replace(self, history=(*self.history, (step, metric)))

    def to_json(self) -> dict[str, Any]:
        """Returns the trial as JSON-able data."""
        return dict(vars(self)) | {"history": [list(one) for one in self.history]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialResult:
        """Reads what `to_json` returned."""
        # Earlier versions wrote null where a measurement was not finite.
        measured = ((int(step), FLOOR if value is None else float(value)) for step, value in data["history"])
        return cls(**dict(data) | {"history": tuple(measured)})


@dataclass(frozen=True)
class TuningResult:
    """A finished parameter study.

    Attributes:
        name: Name of the experiment.
        metric: What was maximised.
        keys: What was searched.
        logarithmic: Those of `keys` that were drawn in the logarithm.
        trials: All trials but the lost ones, by number.
        changing: Whether values changed in the middle of trials.
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
        """Trials with a figure: first those that came furthest, then those that were stopped; each best first.

        Neither those that failed nor those that diverged are among them.
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
        """The last step that every ranked trial was measured at: there, all can be compared."""
        steps = [{step for step, _ in trial.history} for trial in self.ranked]
        return max(set.intersection(*steps), default=None) if steps else None

    def to_json(self) -> dict[str, Any]:
        """Returns everything as JSON-able data."""
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
    """Tells whether a value is a number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)
