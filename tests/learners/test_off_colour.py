"""One shot of another colour is named and nothing learns from it; ordinary shots change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarestore.config.dump import dump_yaml
from metarestore.config.experiment import Experiment
from metarestore.evaluation.few_shot import AdaptationJob
from metarestore.evaluation.folder import bicubic_lr
from metarestore.project import resolve
from metarestore.tasks.images import write_image
from metarestore.tasks.shot_colour import off_colour_shots
from metarestore.tuning.metric import metric_jobs
from metarestore.workspace.workspace import Workspace

Build = Callable[..., Experiment]
Cli = Callable[..., tuple[int, str, str]]
MAGENTA = (1.0, 0.6, 1.0)


def photograph(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:96, :96]
    waves = 120 + 60 * np.sin(rows[..., None] / 5 + rng.uniform(0, 6, 3)) * np.cos(columns[..., None] / 7)
    return np.clip(waves + rng.normal(0, 4, waves.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def opened(tmp_path: Path, small_experiment: Build) -> Callable[..., Workspace]:
    """Opens a study on six pairs, of which some HR images have other gains, by their index."""

    def build(gains: dict[int, tuple[float, ...]], count: int = 4, **adaptation: Any) -> Workspace:
        (tmp_path / "tasks").mkdir(exist_ok=True)
        for k in range(6):
            hr = photograph(k)
            for side, image in (("lr", bicubic_lr(hr, 4)), ("hr", (hr * gains.get(k, (1, 1, 1))).astype(np.uint8))):
                (tmp_path / side).mkdir(exist_ok=True)
                write_image(tmp_path / side / f"p{k}.png", image)
        text = f"kind: pairs\nscale: 4\nlr: {tmp_path}/lr\nhr: {tmp_path}/hr\nsupport_pool: 5\n"
        (tmp_path / "tasks" / "cam.yaml").write_text(text)
        experiment = small_experiment(
            graph={"target": "cam"},
            model={"kind": "fsrcnn", "d": 8, "s": 4, "m": 1, "channels": "rgb"},
            adaptation={"shots": count, "lr": 1e-2, **adaptation},
        )
        return Workspace(resolve(experiment, tmp_path))

    return build


def adapted(workspace: Workspace) -> torch.Tensor:
    return AdaptationJob(workspace.experiment.adaptation).run(workspace, workspace.initial()).flat


@pytest.mark.parametrize("odd", [0, 1, 3])
def test_one_such_shot_changes_no_bit_of_the_adaptation(opened: Callable[..., Workspace], odd: int) -> None:
    """Adapting with it is adapting without it."""
    spoilt = opened({odd: MAGENTA})
    assert spoilt.off_colour == (f"p{odd}",)
    [note] = spoilt.notes()
    assert f"p{odd}" in note
    task, kept = spoilt.target_task, [k for k in range(4) if k != odd]
    assert torch.equal(spoilt.shots.support_lr, task.support_lr[kept])
    assert torch.equal(spoilt.seen_shots[1], task.support_hr[kept])
    found = adapted(spoilt)
    clean = opened({})
    clean.target_task = clean.target_task._replace(
        support_lr=clean.target_task.support_lr[kept], support_hr=clean.target_task.support_hr[kept]
    )
    assert torch.equal(found, adapted(clean))


def test_ordinary_shots_are_left_as_they_are(opened: Callable[..., Workspace]) -> None:
    default, kept = opened({}), opened({}, off_colour_shots="keep")
    assert default.notes() == kept.notes() == ()
    assert default.shots.support_lr is default.target_task.support_lr
    assert default.shots.support_hr is default.target_task.support_hr
    assert torch.equal(adapted(default), adapted(kept))


def test_a_key_keeps_the_shot(opened: Callable[..., Workspace]) -> None:
    kept = opened({1: MAGENTA}, off_colour_shots="keep")
    assert kept.off_colour == ("p1",)
    assert "they are learned from" in kept.notes()[0]
    assert len(kept.shots.support_lr) == 4
    assert not torch.equal(adapted(kept), adapted(opened({1: MAGENTA})))


def test_held_out_shots_are_measured_without_it(opened: Callable[..., Workspace]) -> None:
    workspace = opened({2: MAGENTA})
    jobs = metric_jobs(workspace, ())
    figures = [job.run(workspace, workspace.initial()) for job in jobs]
    assert [len(one) for one in figures] == [1, 1, 1]


def test_a_synthetic_target_may_draw_any_colour(workspace: Workspace) -> None:
    task = workspace.target_task
    hr = task.support_hr.clone()
    hr[1] *= torch.tensor(MAGENTA)[:, None, None]
    workspace.target_task = task._replace(support_hr=hr)
    assert off_colour_shots(task.support_lr, hr) == (1,)
    assert workspace.off_colour == ()
    assert len(workspace.shots.support_lr) == len(task.support_lr)


def test_the_shot_is_named_before_the_training_and_in_the_report(
    opened: Callable[..., Workspace], cli: Cli, tmp_path: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    dump_yaml(opened({1: MAGENTA}).experiment, tmp_path / "experiments" / "e.yaml")
    code, out, err = cli("train", "experiments/e.yaml", "--out", "run", "--set", "training.steps=2")
    assert (code, err) == (0, "")
    note = "disagrees with that of the other shots: p1;"
    assert 0 < out.index(note) < out.index("fomaml:")
    for name in ("report.html", "results.md", "results.json"):
        assert note in (tmp_path / "run" / name).read_text()
