"""Runs experiments from Python, and reads what they wrote."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from metarestore.api.images import load_model
from metarestore.config.document import project_root
from metarestore.config.keypath import format_path, split_path
from metarestore.config.overrides import Override
from metarestore.console import progress_console
from metarestore.errors import UserError
from metarestore.models.network import Network
from metarestore.project import read_experiment
from metarestore.reports.study.progress import TrainingDisplay
from metarestore.study.run import run_study
from metarestore.training.state import last_data
from metarestore.workspace.process import prepare_process

_PER_PHOTOGRAPH = ("psnr_y", "ssim_y", "psnr_rgb", "colour_error", "psnr_y_matched")
_LOGGED = ("step", "loss", "psnr", "effective_tasks")


@dataclass(frozen=True)
class Run:
    """The folder of a run or a study.

    Attributes:
        folder: The folder.
    """

    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        """The content of results.json."""
        content: dict[str, Any] = json.loads((self.folder / "results.json").read_text(encoding="utf-8"))
        return content

    @property
    def arms(self) -> list[str]:
        """The arms, without bicubic upscaling."""
        return [name for name in self.summary["arms"] if name != "bicubic"]

    def results(self) -> pd.DataFrame:
        """Returns one row per arm (bicubic upscaling included) and test photograph, with its metrics.

        Columns: arm, photograph, psnr_y (dB), ssim_y, psnr_rgb (dB), colour_error (grey levels), psnr_y_matched (dB).
        """
        frames = []
        for name, arm in self.summary["arms"].items():
            columns = {key: arm[key] for key in _PER_PHOTOGRAPH if key in arm}
            frames.append(pd.DataFrame({"arm": name, "photograph": arm["photographs"], **columns}))
        return pd.concat(frames, ignore_index=True)

    def history(self, arm: str | None = None) -> pd.DataFrame:
        """Returns one row per outer step: step, loss, psnr (dB, on the training tasks), effective_tasks.

        Args:
            arm: An arm of a study.

        Raises:
            UserError: There is no checkpoint, e.g. after a training of 0 steps.
        """
        rows = last_data(self._arm(arm))["log"]
        return pd.DataFrame([{key: row[key] for key in _LOGGED} for row in rows], columns=list(_LOGGED))

    def validation(self, arm: str | None = None) -> pd.DataFrame:
        """Returns one row per validation: step, psnr (dB)."""
        return pd.DataFrame(last_data(self._arm(arm))["validation"], columns=["step", "psnr"])

    def model(self, arm: str | None = None) -> Network:
        """Opens the adapted network, by default of the best arm."""
        return load_model(self.folder if arm is None else self._arm(arm))

    def _arm(self, arm: str | None) -> Path:
        folder = self.folder if arm is None else self.folder / "arms" / arm
        if not folder.is_dir() or (arm is None and (self.folder / "arms").is_dir()):
            raise UserError(f"{self.folder}: name one of its arms: {', '.join(self.arms)}")
        return folder


def load_run(folder: str | os.PathLike[str]) -> Run:
    """Opens the folder of a finished run or study.

    Raises:
        UserError: It has no results.
    """
    path = Path(folder)
    if not (path / "results.json").is_file():
        raise UserError(f"{path}: has no results.json; give the folder of a finished run")
    return Run(path)


def train(
    experiment: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    arms: bool = False,
    resume: bool = False,
    quiet: bool = False,
    **overrides: Any,
) -> Run:
    """Trains, adapts and evaluates an experiment, as `metarestore train` and `compare` do.

    Args:
        experiment: The experiment file.
        out: Folder for the results; by default a new one in runs/ of its project.
        arms: Whether to run the arms of the experiment, as `compare` does.
        resume: Whether to continue the run in `out`.
        quiet: Whether to show no progress.
        overrides: Values that replace those of the file; key paths are joined by two underscores, e.g.
            `training__steps=100`, `learner={"kind": "maml"}`.

    Raises:
        UserError: The experiment is invalid, or the folder contains another run.
        Interrupted: The user stopped the training; everything up to that point is saved.
    """
    path = Path(experiment)
    content = read_experiment(path, [override_of(key, value) for key, value in overrides.items()])
    root = project_root(path)
    folder = Path(out) if out is not None else root / "runs" / f"{path.stem}-{datetime.now():%Y%m%d-%H%M%S}"
    prepare_process()
    with TrainingDisplay(progress_console(quiet=quiet)) as display:
        run_study(content, root, folder, display, name=path.stem, command="", arms=arms, resume=resume)
    return Run(folder)


def override_of(key: str, value: Any) -> Override:
    """Returns the override of a keyword.

    >>> override_of("training__steps", 100).path
    ('training', 'steps')
    """
    path, _ = split_path(key.replace("__", "."))
    return Override(path, value, f"{format_path(path)}={value!r}")
