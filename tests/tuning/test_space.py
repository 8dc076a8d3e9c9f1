"""Search spaces: what is drawn is valid, what cannot be is refused at its place, no test photograph is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarestore.config.experiment import Experiment
from metarestore.config.search_space import Space
from metarestore.decibels import FLOOR
from metarestore.evaluation.importance import importance
from metarestore.evaluation.tuning import TrialResult, TuningResult
from metarestore.learners.adaptation import adapt
from metarestore.reports.tuning.report import publish_tuning, trial_table
from metarestore.tuning import metric
from metarestore.tuning.metric import HeldOutShotsJob, metric_jobs
from metarestore.workspace.workspace import Workspace

SEARCH: dict[str, Any] = {
    "learner.inner_lr": {"log_uniform": [1e-4, 1e-1], "when": {"learner.kind": ["maml", "fomaml"]}},
    "learner.kind": {"choice": ["maml", "pretrain"]},
    "training.support": {"int": [1, 4]},
    "adaptation.lr": [1e-4, 1e-3],
    "graph.weights": {"choice": [{"temperature": 0.5}, {"temperature": 1.0, "balance": "ema"}]},
}
Build = Callable[..., Experiment]


def test_every_draw_and_every_point_of_a_grid_is_a_valid_experiment(small_experiment: Build) -> None:
    experiment = small_experiment(search=SEARCH)
    space = Space(experiment.search)
    rng = np.random.default_rng(0)
    drawn = [space.random(rng) for _ in range(50)]
    grid = list(space.grid(3))
    assert len(grid) == (3 + 1) * 3 * 3 * 2
    for draw in (*drawn, *grid):
        made = space.experiment(experiment, draw)
        assert (made.learner.kind == "maml") == ("learner.inner_lr" in draw)
        assert 1 <= made.training.support <= 4
        assert not made.search
    assert {space.experiment(experiment, draw).graph.weights.balance for draw in drawn} == {"none", "ema"}


def test_the_search_of_the_design_is_valid(small_experiment: Build) -> None:
    experiment = small_experiment(search={"learner.inner_lr": {"log_uniform": [1e-4, 1e-1]}})
    assert list(Space(experiment.search).grid(2)) == [{"learner.inner_lr": 1e-4}, {"learner.inner_lr": 1e-1}]


def test_the_metric_sees_neither_test_photographs_nor_the_shot_that_it_measures(workspace: Workspace) -> None:
    """Ruined test crops change nothing; a ruined shot changes every fold: learned from, or measured against."""
    jobs = metric_jobs(workspace, ())
    assert jobs == [HeldOutShotsJob(fold, 4) for fold in range(4)]
    before = [job.run(workspace, workspace.initial()) for job in jobs]
    workspace.target_task.query_lr.fill_(0.3)
    workspace.target_task.query_hr.fill_(0.7)
    assert np.array_equal(before, [job.run(workspace, workspace.initial()) for job in jobs])
    shot = workspace.target_task.support_hr[0]
    shot.copy_(torch.rand(shot.shape, generator=torch.Generator().manual_seed(0)))
    after = [job.run(workspace, workspace.initial()) for job in jobs]
    assert after[0] < before[0] - 5, "the ruined shot is measured against"
    assert all(other != same for other, same in zip(after[1:], before[1:], strict=True)), "it is learned from"


def test_a_fold_adapts_to_the_other_shots_alone(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    learned_from: list[torch.Tensor] = []

    def noted(
        model: Any, flat: Any, support_lr: torch.Tensor, support_hr: torch.Tensor, how: Any, **options: Any
    ) -> Any:
        assert len(support_lr) == len(support_hr)
        learned_from.append(support_hr)
        return adapt(model, flat, support_lr, support_hr, how, **options)

    monkeypatch.setattr(metric, "adapt", noted)
    shots = workspace.for_model(workspace.shots).support_hr
    for fold, job in enumerate(metric_jobs(workspace, ())):
        job.run(workspace, workspace.initial())
        assert torch.equal(learned_from[-1], torch.cat([shots[:fold], shots[fold + 1 :]]))
    assert len(learned_from) == 4


def invented(count: int) -> TuningResult:
    """Trials whose metric depends on one parameter alone; the worse half was stopped early."""
    rng = np.random.default_rng(1)
    trials = []
    for number in range(1, count + 1):
        values = {"learner.inner_lr": float(10 ** rng.uniform(-4, -1)), "model.d": int(rng.integers(4, 16))}
        good = 25 + np.log10(values["learner.inner_lr"])
        history = ((10, good),) if good < 22.5 else ((10, good), (20, good + 1))
        trials.append(TrialResult(number, values, "stopped" if good < 22.5 else "finished", history))
    trials.append(TrialResult(count + 1, {"learner.inner_lr": 1.0, "model.d": 4}, "failed", (), "a <reason>"))
    logarithmic = frozenset({"learner.inner_lr"})
    return TuningResult(
        "invented", "held_out_shots", ("learner.inner_lr", "model.d"), logarithmic, tuple(trials), False, 61
    )


def test_importance_finds_the_parameter_that_matters_where_all_trials_still_ran() -> None:
    found = importance(invented(24))
    assert found is not None
    assert found.step == 10
    assert found.explained > 0.8
    assert found.values["learner.inner_lr"] > 10 * abs(found.values["model.d"])
    assert importance(invented(4)) is None


def test_what_diverged_is_listed_and_spoils_nothing(tmp_path: Path) -> None:
    result = invented(24)
    furthest = max(trial.number for trial in result.trials)
    values = {"learner.inner_lr": 0.5, "model.d": 4}
    diverged = TrialResult(furthest + 1, values, "finished", ((10, 20.0), (20, FLOOR)))
    late = TrialResult(furthest + 2, values, "finished", ((10, FLOOR), (20, 21.0)))
    spoilt = replace(result, trials=(*result.trials, diverged, late))
    assert diverged not in spoilt.ranked
    assert spoilt.best == result.best
    found = importance(spoilt)
    assert found is not None
    assert found.trials == 24
    assert found.explained > 0.8
    publish_tuning(spoilt, "seed: 0\n", tmp_path, "metarestore tune x.yaml")
    assert trial_table(spoilt).row_count == 27
    only = replace(result, trials=(diverged,))
    assert only.best is None
    assert only.common_step is None
    publish_tuning(only, "seed: 0\n", tmp_path, "metarestore tune x.yaml")


def test_a_report_has_every_trial(tmp_path: Path) -> None:
    result = invented(8)
    assert result.best is not None
    assert result.best.metric == max(trial.metric for trial in result.trials if trial.step == 20)
    publish_tuning(result, "seed: 0\n", tmp_path, "metarestore tune x.yaml")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "a &lt;reason&gt;" in page
    assert trial_table(result).row_count == 9
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"trials", "parallel-coordinates", "importance"}
