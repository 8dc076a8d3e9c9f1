"""One trial: a training as in `metarestore train`, evaluated and saved at intervals for the scheduler."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from metarestore.config.engine import LocalEngineSpec, RayEngineSpec
from metarestore.config.experiment import Experiment
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
"""Name of the maximised metric in the reports to Ray Tune."""
STEP = "step"
FAILED = "failed"
DRAW = "draw"


@dataclass(frozen=True)
class TrialPlan:
    """The data that all trials share and that is sent to them.

    Attributes:
        experiment: The experiment with its search space.
        root: The project's folder.
    """

    experiment: Experiment
    root: Path

    def drawn(self, draw: Mapping[str, Any]) -> Experiment:
        """Returns the experiment with the values of a draw."""
        return Space(self.experiment.search).experiment(self.experiment, draw)

    def trial(self, draw: Mapping[str, Any]) -> Experiment:
        """Returns the experiment of one trial: the values of a draw, with engine and intervals set by `tuning`."""
        tuning, drawn = self.experiment.tuning, self.drawn(draw)
        every = tuning.interval(drawn.training.steps)
        # Ray Tune keeps reported checkpoints, so one is enough here.
        saving = {"validate_every": every, "checkpoint_every": every, "keep": 1}
        training = drawn.training.model_copy(update=saving)
        # The trial's metric needs the `tuning` settings; the search space is not needed.
        return drawn.model_copy(update={"training": training, "engine": self._engine(), "tuning": tuning})

    def _engine(self) -> LocalEngineSpec | RayEngineSpec:
        """Returns the engine inside a trial; its workers use the resources that Ray reserved for the trial."""
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
    """Trains with a draw; continues from the checkpoint that Ray Tune provides, its own or that of a better trial."""
    prepare_process()
    try:
        _train(plan, config.get(DRAW, config))
    except UserError as error:
        # A retry would fail again. Reporting the error ends the trial without Ray's retries, meant for lost processes.
        tune.report({METRIC: FLOOR, STEP: 0, FAILED: str(error)})


def _train(plan: TrialPlan, draw: Mapping[str, float]) -> None:
    study = resolve(plan.trial(draw), plan.root)
    workspace = Workspace(study)
    with tempfile.TemporaryDirectory() as path, build_engine(study.experiment.engine) as engine:
        folder = RunFolder(Path(path), study, resume=False)
        checkpoint = tune.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as saved:
                shutil.copytree(saved, folder.checkpoints, dirs_exist_ok=True)
        session = engine.session(study)
        train(workspace, folder, session, _Reporter(workspace, session, folder.checkpoints))


class _Reporter(Observer):
    """Evaluates at every checkpoint and reports metric and checkpoint; Ray Tune may then end the trial."""

    def __init__(self, workspace: Workspace, session: Session, checkpoints: Path) -> None:
        self._workspace = workspace
        self._session = session
        self._checkpoints = checkpoints
        self._jobs = metric_jobs(workspace, make_plan(workspace, session).validate)
        self._last: dict[str, float] = {}

    def step(self, row: LogRow) -> None:
        """Keeps the metrics of the last step."""
        self._last = {"loss": row.loss, "psnr": row.psnr}

    def validated(self, step: int, psnr: float) -> None:
        """Keeps the validation PSNR."""
        self._last["validation_psnr"] = psnr

    def saved(self, step: int) -> None:
        """Evaluates and reports."""
        state = initial_state(self._workspace)
        load_state(self._checkpoints, state)
        values = np.concatenate(self._session.map(self._jobs, state.optimizer.averaged))
        # A value at the floor means that the network fails on this fold; the mean would hide it.
        metric = FLOOR if (values <= FLOOR).any() else float(values.mean())
        tune.report(
            {**self._last, METRIC: metric, STEP: step},
            checkpoint=tune.Checkpoint.from_directory(str(self._checkpoints)),
        )
