"""Updates the record, the nested MLflow run and the progress output when a trial starts, reports or ends.

Trials themselves do not use MLflow: a trial that Ray Tune stops early ends by `SystemExit`, which would mark its run
as failed, and a trial that is killed would leave its run open.
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
from metarestore.evaluation.tuning import State, TrialResult
from metarestore.reports.study.progress import duration
from metarestore.tracking import Run, Store
from metarestore.tuning.record import Record
from metarestore.tuning.runs import STATUS, finite
from metarestore.tuning.trial import DRAW, FAILED, METRIC, STEP

_METRICS = ("loss", "psnr", "validation_psnr")


class TuningCallback(tune.Callback):
    """Keeps the record and MLflow up to date.

    Ray Tune pickles it into its own snapshot and restores it on `--resume`, so connections are opened on first use.
    The snapshot contains no folders, because the project may have moved since.

    Args:
        folder: The tuning run's folder.
        root: The project's folder.
        name: Name of the MLflow experiment.
        experiment: The experiment with its search space.
        command: Command that started the tuning run.

    Attributes:
        here: Folder of the tuning run, folder of the project, and command, for a callback restored from a snapshot.
    """

    here: ClassVar[tuple[Path, Path, str]] = (Path(), Path(), "")

    def __init__(self, folder: Path, root: Path, name: str, experiment: Experiment, command: str = "") -> None:
        self._folder, self._root, self._name, self._experiment = folder, root, name, experiment
        self._command = command
        self._started = time.monotonic()
        self._reset()

    def _reset(self) -> None:
        self._record: Record | None = None
        self._store: Store | None = None
        self._runs: dict[str, Run] = {}
        self._ended = 0
        self._steps: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        live = dict.fromkeys(("_record", "_store", "_runs", "_steps", "_folder", "_root", "_command", "_started"))
        return {key: value for key, value in vars(self).items() if key not in live}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._folder, self._root, self._command = self.here
        self._started = time.monotonic()
        self._reset()

    @property
    def record(self) -> Record:
        """The tuning run's record."""
        if self._record is None:
            self._record = Record.load(self._folder)
        return self._record

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Starts a trial, or continues it after a failure, a pause or a resume."""
        known = self.record.trials.get(trial.trial_id)
        result = known or TrialResult(self.record.number(trial.trial_id), self._values(trial))
        self.record.trials[trial.trial_id] = result
        run = self._run(trial.trial_id, result)
        if known is None:
            # Only once: PBT changes values during a trial, and MLflow parameters are immutable.
            run.params(strict_json(result.values))
            run.tag("trial", trial.trial_id)
            run.flush()
        self.record.change(trial.trial_id, state="running", values=self._values(trial), run=run.id or "")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Records a measurement."""
        key = trial.trial_id
        if FAILED in result:
            self.record.change(key, error=result[FAILED])
            return
        step, metric = int(result[STEP]), float(result[METRIC])
        # A trial that resumes from its last checkpoint may measure a step again, with the same value: keep the first.
        if step <= self._steps.get(key, self.record.trials[key].step):
            return
        self._steps[key] = step
        measured = self.record.trials[key].measured(step, metric)
        self.record.change(key, history=measured.history, values=self._values(trial))
        run = self._run(key, measured)
        metrics = {name: result[name] for name in _METRICS if result.get(name) is not None}
        run.metrics(finite({self._experiment.tuning.metric: metric, **metrics}), step)
        run.flush()

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Ends a trial that reached its last step, was stopped early, or reported an error."""
        result = self.record.trials[trial.trial_id]
        metric = self._experiment.tuning.metric
        diverged = f"{metric} is {FLOOR:g} dB at step {result.step}: the network diverged" if result.diverged else ""
        if error := result.error or diverged:
            self._end(trial.trial_id, "failed", error)
            return
        last = Space(self._experiment.search).experiment(self._experiment, self._draw(trial)).training.steps
        self._end(trial.trial_id, "finished" if result.step >= last else "stopped")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Ends a trial whose process died more often than allowed."""
        lines = [line for line in str(trial.get_error() or "").splitlines() if line.strip()]
        self._end(trial.trial_id, "failed", lines[-1].strip() if lines else "its process died")

    def _end(self, key: str, state: State, error: str = "") -> None:
        result = self.record.change(key, state=state, error=error)
        run = self._run(key, result)
        run.tag("state", state)
        if error:
            run.tag("error", error)
        run.end(STATUS[state])
        self._ended += 1
        say(f"{progress_line(result, trial_count(self._experiment))}{self._time_left()}")

    def _time_left(self) -> str:
        """Estimates the time left from the mean duration of the trials that ended in this session."""
        left = max(trial_count(self._experiment) - self.record.ended, 0)
        seconds = (time.monotonic() - self._started) / self._ended * left
        return f"; about {duration(seconds)} left in total" if left else ""

    def _run(self, key: str, result: TrialResult) -> Run:
        """Returns the MLflow run of a trial, created or continued according to the journal in its folder."""
        if key not in self._runs:
            self._store = self._store or Store(self._root, self._name, required=False, command=self._command)
            name, folder = f"trial {result.number}", self.record.trial_folder(key)
            self._runs[key] = self._store.run(name, folder=folder, parent=self.record.parent)
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
    """Returns one line on how a trial ended; `total` is the number of trials."""
    number = f"{trial.number} of {total}" if total is not None and trial.number <= total else str(trial.number)
    values = ", ".join(f"{key} {shown(value)}" for key, value in trial.values.items())
    if trial.state == "failed":
        return f"trial {number} failed: {trial.error} ({values})"
    early = " (stopped early)" if trial.state == "stopped" else ""
    return f"trial {number}: {trial.metric:.2f} dB at step {trial.step}{early}; {values}"


def shown(value: object) -> str:
    """Formats a value for display."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
