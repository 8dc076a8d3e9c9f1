"""One trial: the training of `metarestore train`, measured and saved at intervals for the scheduler to see."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from metarestore.config.experiment import Experiment, LocalEngineSpec, RayEngineSpec
from metarestore.config.search_space import Space
from metarestore.decibels import FLOOR
from metarestore.engines.build import build_engine
from metarestore.engines.engine import Session
from metarestore.errors import UserError
from metarestore.project import resolve
from metarestore.training.log import LogRow, Observer
from metarestore.training.run import RunFolder, initial_state, make_plan, train
from metarestore.training.state import load_state
from metarestore.tuning.metric import metric_jobs
from metarestore.workspace.process import prepare_process
from metarestore.workspace.workspace import Workspace

METRIC = "metric"
"""Name of the maximised figure in what trials report to Ray Tune."""
STEP = "step"
FAILED = "failed"
DRAW = "draw"


@dataclass(frozen=True)
class TrialPlan:
    """What all trials share: plain data that is sent to them.

    Attributes:
        experiment: The experiment with its search.
        root: The project's folder.
    """

    experiment: Experiment
    root: Path

    def trial(self, draw: Mapping[str, float]) -> Experiment:
        """Returns the experiment of one trial: a draw in its place, computed and saved as `tuning` says."""
        tuning = self.experiment.tuning
        drawn = Space(self.experiment.search).experiment(self.experiment, draw)
        every = tuning.interval(drawn.training.steps)
        # Ray Tune keeps what was reported, so one checkpoint is enough.
        saving = {"validate_every": every, "checkpoint_every": every, "keep": 1}
        training = drawn.training.model_copy(update=saving)
        # The settings travel with the trial, for its metric; its search does not.
        return drawn.model_copy(update={"training": training, "engine": self._engine(), "tuning": tuning})

    def _engine(self) -> LocalEngineSpec | RayEngineSpec:
        """Returns the engine inside a trial; its workers start in what Ray reserved for the trial."""
        tuning = self.experiment.tuning
        if tuning.workers_per_trial == 1 and not tuning.gpus_per_worker:
            return LocalEngineSpec(kind="local")
        return RayEngineSpec(
            kind="ray",
            workers=tuning.workers_per_trial,
            cpus_per_worker=tuning.cpus_per_worker,
            gpus_per_worker=tuning.gpus_per_worker,
        )


def run_trial(config: Mapping[str, Any], plan: TrialPlan) -> None:
    """Trains with a draw; continues from the checkpoint that Ray Tune hands out, its own or a better trial's."""
    prepare_process()
    try:
        _train(plan, config.get(DRAW, config))
    except UserError as error:
        # Doing it again would fail again: reported, it ends the trial without Ray's retries, which are for lost ones.
        tune.report({METRIC: FLOOR, STEP: 0, FAILED: str(error)})


def _train(plan: TrialPlan, draw: Mapping[str, float]) -> None:
    study = resolve(plan.trial(draw), plan.root)
    workspace = Workspace(study)
    with tempfile.TemporaryDirectory() as place, build_engine(study.experiment.engine) as engine:
        folder = RunFolder(Path(place), study, resume=False)
        checkpoint = tune.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as saved:
                shutil.copytree(saved, folder.checkpoints, dirs_exist_ok=True)
        session = engine.session(study)
        train(workspace, folder, session, _Reporter(workspace, session, folder.checkpoints))


class _Reporter(Observer):
    """Measures whenever a checkpoint is written, and reports both; Ray Tune may end the trial there."""

    def __init__(self, workspace: Workspace, session: Session, checkpoints: Path) -> None:
        self._workspace = workspace
        self._session = session
        self._checkpoints = checkpoints
        self._jobs = metric_jobs(workspace, make_plan(workspace, session).validate)
        self._last: dict[str, float] = {}

    def step(self, row: LogRow) -> None:
        """Keeps the figures of the last step."""
        self._last = {"loss": row.loss, "psnr": row.psnr}

    def validated(self, step: int, psnr: float) -> None:
        """Keeps the validation figure."""
        self._last["validation_psnr"] = psnr

    def saved(self, step: int) -> None:
        """Measures and reports."""
        state = initial_state(self._workspace)
        load_state(self._checkpoints, state)
        figures = np.concatenate(self._session.map(self._jobs, state.optimizer.averaged))
        # One part at the floor means that the network restores nothing there; the mean of the others would hide it.
        metric = FLOOR if (figures <= FLOOR).any() else float(figures.mean())
        tune.report(
            {**self._last, METRIC: metric, STEP: step},
            checkpoint=tune.Checkpoint.from_directory(str(self._checkpoints)),
        )
