"""Zero-shot adaptation in a study: each test crop is learned from alone, and measured as those of any other arm."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from metarestore.config.adaptation import AdaptationOptimizerSpec, AdaptationSpec
from metarestore.config.experiment import Experiment
from metarestore.errors import UserError
from metarestore.evaluation.examples import make_examples
from metarestore.evaluation.few_shot import AdaptationJob, TestSet, require_measurable
from metarestore.evaluation.zero_shot import ZeroShotJob, adaptation_job
from metarestore.graphs.estimate import estimate
from metarestore.models.colour import rgb_to_y
from metarestore.project import Project, catalogue, resolve
from metarestore.seeds import derived_seed
from metarestore.tasks.images import ImageSource, ImageStore, write_image
from metarestore.tasks.task import Task
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace
from metarestore.zero_shot.blur import Blur
from metarestore.zero_shot.network import internal_pair
from metarestore.zero_shot.options import ZeroShotOptions
from metarestore.zero_shot.restore import restore_zero_shot
from metarestore.zero_shot.shapes import bicubic_kernel

BICUBIC = Blur(bicubic_kernel(4), 4)
HOW = AdaptationOptimizerSpec(optimizer="adam", steps=3, lr=1e-3)


@pytest.fixture
def workspace(small_study: Callable[..., Study]) -> Workspace:
    adaptation = {"method": "zero_shot"}
    evaluation = {"crop": 192}
    return Workspace(
        small_study(adaptation=adaptation, evaluation=evaluation, model={"kind": "fsrcnn", "d": 8, "s": 4, "m": 1})
    )


def test_an_experiment_chooses_the_job(small_experiment: Callable[..., Experiment]) -> None:
    shots, zero = (small_experiment(adaptation={"method": name}).adaptation for name in ("shots", "zero_shot"))
    assert adaptation_job(HOW, shots) == AdaptationJob(HOW)
    assert adaptation_job(HOW, zero) == ZeroShotJob(HOW)


def test_each_crop_is_the_loop_that_one_would_write_by_hand(workspace: Workspace) -> None:
    start = workspace.initial()
    found = ZeroShotJob(HOW, "bicubic").run(workspace, start)
    test = TestSet.of(workspace)
    restored = []
    for number in range(len(test.lr)):
        workspace.model.load_state_dict(workspace.layout.unflatten(start.clone()))
        lr, hr = (rgb_to_y(side) for side in internal_pair(test.lr[number : number + 1], BICUBIC))
        optimizer = torch.optim.Adam(workspace.model.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            (workspace.model(lr) - hr).abs().mean().backward()
            optimizer.step()
        with torch.no_grad():
            restored.append(workspace.model(rgb_to_y(test.lr[number : number + 1])))
    y = torch.cat(restored)
    np.testing.assert_array_equal(found.curve.psnr_y[-1], test.psnr(y))
    np.testing.assert_array_equal(found.curve.ssim_y, test.ssim(y))
    assert found.curve.label == "zero-shot, adam 0.001, bicubic kernel"


def test_it_starts_where_other_ways_start_and_ends_elsewhere(workspace: Workspace) -> None:
    start = workspace.initial()
    zero, shots = ZeroShotJob(HOW).run(workspace, start), AdaptationJob(HOW).run(workspace, start)
    assert zero.curve.steps == shots.curve.steps == (0, 1, 2, 3)
    np.testing.assert_allclose(zero.curve.psnr_y[0], shots.curve.psnr_y[0], atol=1e-4)
    assert not np.allclose(zero.curve.psnr_y[-1], shots.curve.psnr_y[-1])
    assert torch.equal(zero.flat, start)
    none = ZeroShotJob(AdaptationOptimizerSpec(steps=0)).run(workspace, start)
    np.testing.assert_allclose(none.curve.psnr_y[-1], shots.curve.psnr_y[0], atol=1e-4)


def test_shots_and_ground_truth_teach_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ZeroShotJob(HOW).run(workspace, workspace.initial())
    task = workspace.target_task
    blind = Workspace(workspace.study)
    nothing = torch.full_like(task.support_lr, 0.5), torch.full_like(task.support_hr, 0.5)
    blind.__dict__["target_task"] = Task(*nothing, task.query_lr, torch.zeros_like(task.query_hr))
    again = ZeroShotJob(HOW).run(blind, blind.initial())
    assert found.restored is not None
    assert again.restored is not None
    assert torch.equal(found.restored, again.restored)


def test_teacher_and_student_are_those_of_zero_shot_restoration(small_study: Callable[..., Study]) -> None:
    adaptation = {"method": "teacher_student", "schedule": "cosine"}
    arm = {"model": {"kind": "zero_shot"}, "training": {"steps": 0}, "adaptation": adaptation}
    workspace = Workspace(small_study(**arm, evaluation={"crop": 192}))
    job = adaptation_job(HOW.model_copy(update={"steps": 4}), workspace.experiment.adaptation)
    found = job.run(workspace, workspace.initial())
    assert found.curve.steps == (0, 4)
    assert found.curve.label == "teacher and student, adam 0.001"
    test = TestSet.of(workspace)
    defaults = ZeroShotOptions(seed=derived_seed(workspace.experiment.seed, "zero-shot", 1), preprocessing=32)
    teacher, student = replace(defaults.teacher, steps=3, lr=1e-3), replace(defaults.student, steps=1, lr=1e-3 / 3)
    expected = restore_zero_shot(test.lr[1], 4, replace(defaults, teacher=teacher, student=student)).image
    assert found.restored is not None
    assert torch.equal(found.restored[1], expected.clamp(0, 1))
    with pytest.raises(ValueError, match="teacher_student learns all of a new network; remove adapts"):
        AdaptationSpec(**adaptation, adapts="tail")
    with pytest.raises(ValueError, match="teacher_student learns new weights for each crop"):
        small_study(adaptation=adaptation)
    for key, other in (("schedule", "constant"), ("optimizer", "sgd")):
        with pytest.raises(ValueError, match=f"teacher_student .*; write {key}: "):
            small_study(**{**arm, "adaptation": {**adaptation, key: other}})


def test_pictures_show_what_was_measured(workspace: Workspace) -> None:
    found = ZeroShotJob(HOW).run(workspace, workspace.initial())
    assert found.restored is not None
    examples = make_examples(workspace, {"zero": found.restored})
    for example, figure in zip(examples, found.curve.psnr_y[-1], strict=False):
        assert example.psnr_y["zero"] == pytest.approx(figure, abs=0.1)  # the luma of RGB in 8 bits


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adaptation": {"method": "zero_shot", "patch": 32}}, "adaptation.patch: .* at most 16 pixels .* got 32"),
        (
            {"adaptation": {"method": "zero_shot", "alternatives": [{"patch": 64}]}},
            r"adaptation.alternatives\[0\].patch: .* got 64",
        ),
    ],
)
def test_patches_fit_the_lr_side_of_a_crop(
    small_experiment: Callable[..., Experiment], tmp_path: Any, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        resolve(small_experiment(**changes), tmp_path, Project(tmp_path))


def test_a_kernel_needs_the_method(small_experiment: Callable[..., Experiment]) -> None:
    with pytest.raises(ValueError, match="kernel is for method: zero_shot"):
        small_experiment(adaptation={"kernel": "bicubic"})


def test_nothing_is_measured_on_a_single_photograph(
    small_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    (tmp_path / "tasks").mkdir()
    store = ImageStore.open(ImageSource.embedded("test"))
    write_image(tmp_path / "a.png", store.patch("chelsea", 0, 0, 160, 160))
    (tmp_path / "tasks/one.yaml").write_text("kind: single_image\nscale: 4\nimage: a.png\n")
    experiment = small_experiment(graph={"target": "one"})
    workspace = Workspace(resolve(experiment, tmp_path))
    with pytest.raises(UserError, match=r"graph\.target: 'one' is a single photograph without HR"):
        require_measurable(workspace)
    # Relations to it can be estimated, from its patches and their degraded versions.
    lr, hr = workspace.seen_shots
    assert (len(lr), hr.shape[-1]) == (4, 4 * lr.shape[-1])
    relations = estimate(workspace, lambda jobs, flat: [job.run(workspace, flat) for job in jobs], workspace.initial())
    assert np.isfinite(relations.values).all()


TINY = [
    "training.steps=2",
    "training.tasks_per_step=2",
    "training.patch=32",
    "adaptation.steps=2",
    "adaptation.shot_size=64",
    "evaluation.crop=64",
    "evaluation.every=2",
    "engine.kind=local",
]


@pytest.mark.parametrize(
    ("name", "arms"),
    [("zero_shot", {"zero", "zero_teacher_student", "one", "five"}), ("mzsr", {"maml"})],
)
def test_the_example_experiments_run(
    cli: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    mlflow_store: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    arms: set[str],
) -> None:
    """Two steps of each arm, which stand in one table."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "experiments").mkdir()
    yaml = YAML()
    written = yaml.load((catalogue() / f"experiments/{name}.yaml").read_text())
    written["arms"] = {arm: patch for arm, patch in written["arms"].items() if arm in arms}
    yaml.dump(written, tmp_path / "experiments/one.yaml")
    code, _, err = cli("compare", tmp_path / "experiments/one.yaml", *TINY, "--out", tmp_path / "run")
    assert code == 0, err
    found = json.loads((tmp_path / "run/results.json").read_text())["arms"]
    assert set(found) == arms | {"bicubic"}
    table = (tmp_path / "run/results.md").read_text()
    assert all(f"| {arm} |" in table for arm in arms)
