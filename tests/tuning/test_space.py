"""Search spaces: what is drawn is valid, what cannot be is refused at its place, no test photograph is looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarestore.config.dump import dump_yaml
from metarestore.config.experiment import Experiment
from metarestore.config.search_space import Space
from metarestore.errors import UserError
from metarestore.evaluation.importance import importance
from metarestore.evaluation.sweep import SweepResult, TrialResult
from metarestore.learners.workspace import Workspace
from metarestore.project import read_experiment
from metarestore.reports.tuning_report import publish_sweep, sweep_table
from metarestore.tuning.metric import HeldOutShotsJob, metric_jobs

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
    grid = space.grid(3)
    assert len(grid) == (3 + 1) * 3 * 3 * 2
    for draw in (*drawn, *grid):
        made = space.experiment(experiment, draw)
        assert (made.learner.kind == "maml") == ("learner.inner_lr" in draw)
        assert 1 <= made.training.support <= 4
        assert not made.search
    assert {space.experiment(experiment, draw).graph.weights.balance for draw in drawn} == {"none", "ema"}


def test_the_search_of_the_design_is_valid(small_experiment: Build) -> None:
    experiment = small_experiment(search={"learner.inner_lr": {"log_uniform": [1e-4, 1e-1]}})
    assert Space(experiment.search).grid(2) == [{"learner.inner_lr": 1e-4}, {"learner.inner_lr": 1e-1}]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"learner.iner_lr": [0.1, 1]}, r"unknown key 'iner_lr'; did you mean 'inner_lr'\?"),
        ({"learner.inner_lr": [-1, 1]}, r"must be above 0, got -1"),
        ({"learner.inner_lr": [1, 0.1]}, r"must rise"),
        ({"learner.inner_lr": {"log_uniform": [0, 0.1]}}, r"log_uniform must start above 0"),
        ({"learner.inner_lr": {"log_unifrom": [0.1, 1]}}, r"did you mean 'log_uniform'\?"),
        ({"learner.inner_lr": {"int": [1, 2], "choice": [3]}}, r"exactly one of .* got int and choice"),
        ({"training.support": [1, 6]}, r"whole number.*write \{int: \[low, high\]\}"),
        ({"learner.kind": {"choice": ["maml", "mmal"]}}, r"unknown kind 'mmal'; did you mean 'maml'"),
        ({"evaluation.crop": {"int": [32, 64]}}, r"evaluation: all trials are measured alike"),
        ({"training": {"choice": [{"steps": 4}]}}, r"training.source: all trials are measured alike"),
        ({"training.steps": {"int": [4, 8]}}, r"asha compares trials at equal steps"),
        ({"model.d": {"int": [1, 4], "when": {"learner.knd": "maml"}}}, r"not a parameter of the search"),
        (
            {"learner.kind": {"choice": ["maml", "pretrain"]}, "learner.inner_lr": [0.1, 1]},
            r"unknown key 'inner_lr'.*where learner.kind is 'pretrain'.*`when`",
        ),
        (
            {"learner.kind": {"choice": ["maml"]}, "model.d": {"int": [1, 4], "when": {"learner.kind": "reptile"}}},
            r"'reptile' is never chosen; the choices are 'maml'",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_at_its_place(
    small_experiment: Build, tmp_path: Path, search: dict[str, Any], message: str
) -> None:
    plain = small_experiment().model_dump(mode="json", by_alias=True, exclude_unset=True)
    path = tmp_path / "wrong.yaml"
    dump_yaml({**plain, "search": search}, path)
    first = path.read_text().splitlines().index("search:") + 1
    with pytest.raises(UserError, match=message) as found:
        read_experiment(path)
    for problem in found.value.problems:
        assert int(problem.split(":")[1]) > first


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


def invented(count: int) -> SweepResult:
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
    return SweepResult(
        "invented", "held_out_shots", ("learner.inner_lr", "model.d"), logarithmic, tuple(trials), False, 61
    )


def test_importance_finds_the_parameter_that_matters_where_all_trials_still_ran() -> None:
    found = importance(invented(24))
    assert found is not None
    assert found.step == 10
    assert found.explained > 0.8
    assert found.values["learner.inner_lr"] > 10 * abs(found.values["model.d"])
    assert importance(invented(4)) is None


def test_a_report_has_every_trial(tmp_path: Path) -> None:
    result = invented(8)
    assert result.best is not None
    assert result.best.metric == max(trial.metric for trial in result.trials if trial.step == 20)
    publish_sweep(result, "seed: 0\n", tmp_path, "metarestore tune x.yaml")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "a &lt;reason&gt;" in page
    assert sweep_table(result).row_count == 9
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"trials", "parallel-coordinates", "importance"}
