"""What the driver does when a trial starts, reports or ends: the record, the nested MLflow run, a line of progress.

Trials themselves never talk to MLflow: one that Ray Tune stops early ends by `SystemExit`, which would mark its run as
failed, and one that is killed would leave its run open.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

from ray import tune
from ray.tune.experiment import Trial

from metarestore.config.experiment import Experiment
from metarestore.config.search_space import Space, draws
from metarestore.console import say
from metarestore.decibels import FLOOR
from metarestore.evaluation.results import strict_json
from metarestore.evaluation.sweep import State, TrialResult
from metarestore.reports.progress import duration
from metarestore.tracking import Run, Store
from metarestore.tuning.record import Record
from metarestore.tuning.runs import LONGEST_TAG, STATUS, finite
from metarestore.tuning.trial import DRAW, FAILED, METRIC, STEP

_FIGURES = ("loss", "psnr", "validation_psnr")


class SweepCallback(tune.Callback):
    """Keeps record and MLflow up to date.

    It travels into Ray Tune's own snapshot and back out of it on `--resume`, so it is plain data until it is used. The
    snapshot holds no folders: a project may have moved since.

    Args:
        folder: The sweep's folder.
        root: The project's folder.
        name: Name of the MLflow experiment.
        experiment: The experiment with its search.
        command: What started the sweep.

    Attributes:
        here: Folder of the sweep, folder of the project, and command, for a callback that comes out of a snapshot.
    """

    here: ClassVar[tuple[Path, Path, str]] = (Path(), Path(), "")

    def __init__(self, folder: Path, root: Path, name: str, experiment: Experiment, command: str = "") -> None:
        self._folder, self._root, self._name, self._experiment = folder, root, name, experiment
        self._command = command
        self._begun = time.monotonic()
        self._forget()

    def _forget(self) -> None:
        self._record: Record | None = None
        self._store: Store | None = None
        self._runs: dict[str, Run] = {}
        self._ended = 0
        self._steps: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        live = dict.fromkeys(("_record", "_store", "_runs", "_steps", "_folder", "_root", "_command", "_begun"))
        return {key: value for key, value in vars(self).items() if key not in live}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._folder, self._root, self._command = self.here
        self._begun = time.monotonic()
        self._forget()

    @property
    def record(self) -> Record:
        """The sweep's record."""
        if self._record is None:
            self._record = Record.load(self._folder)
        return self._record

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Starts a trial, or takes it up again after a failure, a pause or a resume."""
        known = self.record.trials.get(trial.trial_id)
        result = known or TrialResult(self.record.number(trial.trial_id), self._values(trial))
        self.record.trials[trial.trial_id] = result
        run = self._run(trial.trial_id, result)
        if known is None:
            # Once: PBT changes values on the way, and MLflow refuses to change a parameter.
            run.params(strict_json(result.values))
            run.tag("trial", trial.trial_id)
            run.flush()
        self.record.change(trial.trial_id, state="running", values=self._values(trial), run=run.id or "")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Notes a measurement."""
        key = trial.trial_id
        if FAILED in result:
            self.record.change(key, error=result[FAILED])
            return
        step, metric = int(result[STEP]), float(result[METRIC])
        # A trial that goes on from its last checkpoint may measure a step again: the same figure, once is enough.
        if step <= self._steps.get(key, self.record.trials[key].step):
            return
        self._steps[key] = step
        measured = self.record.trials[key].measured(step, metric)
        self.record.change(key, history=measured.history, values=self._values(trial))
        run = self._run(key, measured)
        figures = {name: result[name] for name in _FIGURES if result.get(name) is not None}
        run.metrics(finite({self._experiment.tuning.metric: metric, **figures}), step)
        run.flush()

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Ends a trial: at its last step, stopped early, or by a mistake that it reported."""
        result = self.record.trials[trial.trial_id]
        metric = self._experiment.tuning.metric
        diverged = f"{metric} is {FLOOR:g} dB at step {result.step}: the network diverged" if result.diverged else ""
        if error := result.error or diverged:
            self._end(trial.trial_id, "failed", error)
            return
        last = Space(self._experiment.search).experiment(self._experiment, self._draw(trial)).training.steps
        self._end(trial.trial_id, "finished" if result.step >= last else "stopped")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Ends a trial whose process died more often than it may."""
        lines = [line for line in str(trial.get_error() or "").splitlines() if line.strip()]
        self._end(trial.trial_id, "failed", lines[-1].strip() if lines else "its process died")

    def _end(self, key: str, state: State, error: str = "") -> None:
        result = self.record.change(key, state=state, error=error)
        run = self._run(key, result)
        run.tag("state", state)
        if error:
            run.tag("error", error[:LONGEST_TAG])
        run.end(STATUS[state])
        self._ended += 1
        say(f"{progress_line(result, trial_count(self._experiment))}{self._time_left()}")

    def _time_left(self) -> str:
        """Says how long the trials that are left take, if they take as long as those that ended in this session."""
        left = max(trial_count(self._experiment) - self.record.ended, 0)
        seconds = (time.monotonic() - self._begun) / self._ended * left
        return f"; about {duration(seconds)} left in all" if left else ""

    def _run(self, key: str, result: TrialResult) -> Run:
        """Returns the MLflow run of a trial, which is made or taken up where its folder stands."""
        if key not in self._runs:
            self._store = self._store or Store(self._root, self._name, required=False, command=self._command)
            name, place = f"trial {result.number}", self.record.place(key)
            self._runs[key] = self._store.run(name, folder=place, parent=self.record.parent)
        return self._runs[key]

    def _values(self, trial: Trial) -> dict[str, Any]:
        return Space(self._experiment.search).values(self._draw(trial))

    def _draw(self, trial: Trial) -> dict[str, float]:
        draw: dict[str, float] = trial.config.get(DRAW, trial.config)
        return draw


def trial_count(experiment: Experiment) -> int:
    """Returns how many trials a search has."""
    listed = draws(experiment)
    return experiment.tuning.trials if listed is None else len(listed)


def progress_line(trial: TrialResult, total: int | None = None) -> str:
    """Says in one line how a trial ended, of so many in `total`."""
    number = f"{trial.number} of {total}" if total is not None and trial.number <= total else str(trial.number)
    values = ", ".join(f"{key} {shown(value)}" for key, value in trial.values.items())
    if trial.state == "failed":
        return f"trial {number} failed: {trial.error} ({values})"
    early = " (stopped early)" if trial.state == "stopped" else ""
    return f"trial {number}: {trial.metric:.2f} dB at step {trial.step}{early}; {values}"


def shown(value: object) -> str:
    """Writes a value for people."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
