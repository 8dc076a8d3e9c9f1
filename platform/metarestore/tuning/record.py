"""The record of a sweep, `sweep.json`: which trials there are, what they reported, which MLflow runs are theirs."""

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
from metarestore.evaluation.sweep import TrialResult
from metarestore.tracking_records import flattened
from metarestore.training.identity import portable, without_contents

FILE = "sweep.json"


@dataclass
class Record:
    """Everything about a sweep that outlives its process; written after every change.

    Attributes:
        folder: The sweep's folder.
        described: The experiment with its search, flattened.
        parent: Id of the parent MLflow run.
        trials: Ray Tune's id to trial.
        seconds: Wall time of the sessions before this one.
        git: The commit that the sweep was started from, if it is known.
        contents: Hashes of the photographs, networks and task files that trials open, by key; None before they are
            known, and in sweeps of earlier versions.
    """

    folder: Path
    described: dict[str, str]
    parent: str | None = None
    trials: dict[str, TrialResult] = field(default_factory=dict)
    seconds: float = 0.0
    git: dict[str, Any] | None = None
    contents: dict[str, str] | None = None

    def require_contents(self, now: Mapping[str, str]) -> None:
        """Makes sure that trials open what those before opened.

        Raises:
            UserError: Photographs, a network or a task file were changed.
        """
        before = now if self.contents is None else self.contents
        if before != now:
            key = next(key for key in [*before, *now] if before.get(key) != now.get(key))
            raise UserError(f"{self.folder}: {key}: the files are not those that the sweep began with; start a new one")
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
        """Reads the record of a folder.

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
            raise UserError(f"--resume: there is no sweep in {folder}; leave --resume out to start one") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: cannot be read ({error}); choose another --out") from error

    def place(self, key: str) -> Path:
        """Returns the folder where the MLflow run of a trial keeps what it has to tell."""
        return self.places / key

    @property
    def ended(self) -> int:
        """How many trials are over, well or not."""
        return sum(trial.state not in {"running", "lost"} for trial in self.trials.values())

    @property
    def places(self) -> Path:
        """The folder of all trials' folders."""
        return self.folder / "trials"

    def number(self, key: str) -> int:
        """Returns the number of a trial, the next free one if it is new."""
        return self.trials[key].number if key in self.trials else len(self.trials) + 1

    def change(self, key: str, **changes: Any) -> TrialResult:
        """Changes a trial and writes the record."""
        self.trials[key] = replace(self.trials[key], **changes)
        self.save()
        return self.trials[key]


def described(experiment: Experiment, root: Path | None = None) -> dict[str, str]:
    """Flattens what a sweep's result depends on; paths inside the project `root` are written relative to it."""
    data = experiment.model_dump(mode="json", by_alias=True, exclude=unaffecting(Experiment, MEASURED | Affects.TUNE))
    return flattened(data if root is None else portable(data, root))


def open_record(folder: Path, experiment: Experiment, *, resume: bool, root: Path | None = None) -> Record:
    """Makes the record of a sweep, or reads the one in the folder; what was running then is marked as lost.

    Nothing is written.

    Raises:
        UserError: The folder holds a sweep and `resume` is off, or that of another experiment; or it holds none.
    """
    now = described(experiment, root)
    if not resume:
        if (folder / FILE).exists() or (folder / "run.json").exists():
            raise UserError(f"{folder}: holds a run already; continue it with --resume, or choose another --out")
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
    return f"{key} was {before.get(key, 'not there')}, is {now.get(key, 'not there')}"
