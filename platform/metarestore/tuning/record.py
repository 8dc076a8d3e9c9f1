"""The record of a tuning run, `sweep.json`: its trials, what they reported, and their MLflow runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metarestore import __version__
from metarestore.config.affects import MEASURED, Affects, unaffecting
from metarestore.config.experiment import Experiment
from metarestore.errors import UserError
from metarestore.evaluation.results import write_json
from metarestore.evaluation.tuning import TrialResult
from metarestore.files import holds_run, occupied
from metarestore.tracking_records import flattened
from metarestore.training.identity import portable, without_contents

FILE = "sweep.json"


@dataclass
class Record:
    """The persistent state of a tuning run; written after every change.

    Attributes:
        folder: The tuning run's folder.
        described: The experiment with its search space, flattened.
        parent: Id of the parent MLflow run.
        trials: The trials, by Ray Tune's id.
        seconds: Wall time of the sessions before this one.
        git: The commit that the tuning run was started from, if known.
        contents: Hashes of the photographs, networks and task files that trials open, by key; None before they are
            known, and in records of earlier versions.
    """

    folder: Path
    described: dict[str, str]
    parent: str | None = None
    trials: dict[str, TrialResult] = field(default_factory=dict)
    seconds: float = 0.0
    git: dict[str, Any] | None = None
    contents: dict[str, str] | None = None

    def require_contents(self, now: Mapping[str, str]) -> None:
        """Checks that trials open the same files as those of earlier sessions.

        Raises:
            UserError: Photographs, a network or a task file have changed.
        """
        before = now if self.contents is None else self.contents
        if before != now:
            key = next(key for key in [*before, *now] if before.get(key) != now.get(key))
            raise UserError(
                f"{self.folder}: {key}: the files have changed since the tuning run started; start a new one"
            )
        self.contents = dict(now)

    def save(self) -> None:
        """Writes the record."""
        data = {
            "metarestore": __version__,
            "git": self.git,
            "experiment": self.described,
            "contents": self.contents,
            "mlflow_run": self.parent,
            "seconds": self.seconds,
            "trials": {key: trial.to_json() for key, trial in self.trials.items()},
        }
        write_json(self.folder / FILE, data)

    @classmethod
    def load(cls, folder: Path) -> Record:
        """Reads the record in a folder.

        Raises:
            UserError: There is none, or it cannot be read.
        """
        path = folder / FILE
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            trials = {key: TrialResult.from_json(trial) for key, trial in data["trials"].items()}
            git, contents = data.get("git"), data.get("contents")
            return cls(folder, data["experiment"], data["mlflow_run"], trials, data["seconds"], git, contents)
        except FileNotFoundError:
            raise UserError(
                f"--resume: {folder} contains no tuning run to continue; remove --resume to start one"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: cannot be read ({error}); choose another --out") from error

    def trial_folder(self, key: str) -> Path:
        """Returns the folder with the MLflow journal of a trial."""
        return self.trials_folder / key

    @property
    def ended(self) -> int:
        """Number of trials that ended, whether they succeeded or not."""
        return sum(trial.state not in {"running", "lost"} for trial in self.trials.values())

    @property
    def trials_folder(self) -> Path:
        """The folder that contains the trials' folders."""
        return self.folder / "trials"

    def number(self, key: str) -> int:
        """Returns the number of a trial; for a new trial, the next free number."""
        return self.trials[key].number if key in self.trials else len(self.trials) + 1

    def change(self, key: str, **changes: Any) -> TrialResult:
        """Changes a trial and writes the record."""
        self.trials[key] = replace(self.trials[key], **changes)
        self.save()
        return self.trials[key]


def described(experiment: Experiment, root: Path | None = None) -> dict[str, str]:
    """Flattens everything that a tuning run's result depends on; paths inside the project are relative to `root`."""
    data = experiment.model_dump(mode="json", by_alias=True, exclude=unaffecting(Experiment, MEASURED | Affects.TUNE))
    return flattened(data if root is None else portable(data, root))


def open_record(folder: Path, experiment: Experiment, *, resume: bool, root: Path | None = None) -> Record:
    """Creates the record of a tuning run, or reads the existing one and marks trials that were running as lost.

    Nothing is written.

    Raises:
        UserError: The folder contains a run and `resume` is off, or the tuning run of another experiment, or none.
    """
    now = described(experiment, root)
    if not resume:
        if holds_run(folder):
            raise occupied(folder)
        return Record(folder, now)
    record = Record.load(folder)
    before, now = without_contents(record.described), without_contents(now)
    if before != now:
        raise UserError(f"{folder}: was started with another experiment ({_difference(before, now)})")
    for key, trial in record.trials.items():
        if trial.state == "running":
            record.trials[key] = replace(trial, state="lost")
    return record


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    key = next(key for key in [*before, *now] if before.get(key) != now.get(key))
    return f"{key} was {before.get(key, 'not set')}, is {now.get(key, 'not set')}"
