"""Losses of the embeddings: contrast between tasks on the same clean patches, and one embedding for a whole task."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from metarestore.config.experiment import Experiment
from metarestore.config.learner import AnyLearnerSpec, ContrastSpec, DistillSpec, MAMLSpec, PretrainSpec
from metarestore.config.model import KDSRSpec
from metarestore.engines.local import LocalEngine
from metarestore.errors import UserError
from metarestore.learners.build import build_learner
from metarestore.learners.contrast import contrastive_losses
from metarestore.learners.distill import DistillLearner
from metarestore.learners.embedding import EmbeddingLearner
from metarestore.learners.gradients import TaskGradients, vectorised_gradients
from metarestore.learners.learner import Learner, PretrainLearner
from metarestore.models.build import build_model
from metarestore.models.checkpoint import save_model
from metarestore.models.kdsr import KDSR
from metarestore.models.parameters import Layout, initial_vector
from metarestore.project import resolve
from metarestore.tasks.task import Task
from metarestore.training.run import make_plan
from metarestore.training.sampler import TaskSampler
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

STUDENT = {"kind": "kdsr", "size": "tiny"}
CONTRAST = ContrastSpec(weight=0.3, temperature=0.5)


def tiny(estimator: str = "student", seed: int = 0, embedding: str = "image") -> KDSR:
    spec = KDSRSpec(kind="kdsr", size="tiny", estimator=estimator, embedding=embedding)
    return build_model(spec, 2, seed).double()


def tasks(count: int, patches: int = 2, side: int = 6) -> Task:
    rng = torch.Generator().manual_seed(0)
    lr, hr = (count, patches, 3, side, side), (count, patches, 3, 2 * side, 2 * side)
    return Task(*(torch.rand(shape, generator=rng, dtype=torch.float64) for shape in (lr, hr, lr, hr)))


def contrasting(network: KDSR, **options: Any) -> EmbeddingLearner:
    """Pre-training with a contrast."""
    return EmbeddingLearner(PretrainSpec(kind="pretrain", **{"contrast": CONTRAST, **options}), network)


def distilling(network: KDSR, teacher: KDSR, **options: Any) -> DistillLearner:
    """The learner of a student, with a contrast; the path of its teacher is not used."""
    spec = DistillSpec(kind="distill", teacher=Path("unused"), contrast=CONTRAST, **options)
    return DistillLearner(spec, network, teacher=teacher)


def gradients(learner: Learner, given: Task) -> TaskGradients:
    return vectorised_gradients(learner, Layout.of(learner.model), initial_vector(learner.model), given)


@pytest.mark.parametrize("embedding", ["image", "task"])
@pytest.mark.parametrize("estimator", ["student", "teacher"])
def test_the_contrast_is_added_to_the_image_loss(estimator: str, embedding: str) -> None:
    network, given = tiny(estimator, embedding=embedding), tasks(3)
    found = gradients(contrasting(network, loss="charbonnier", charbonnier_eps=0.1), given).metrics
    plain = gradients(
        PretrainLearner(PretrainSpec(kind="pretrain", loss="charbonnier", charbonnier_eps=0.1), network), given
    ).metrics
    lr, hr = torch.cat([given.support_lr, given.query_lr], 1), torch.cat([given.support_hr, given.query_hr], 1)
    with torch.no_grad():
        said = network.encode(lr.flatten(0, 1), hr.flatten(0, 1)).distilled.unflatten(0, lr.shape[:2])
    expected = contrastive_losses(said, CONTRAST.temperature).numpy()
    np.testing.assert_allclose(found.terms["contrast"], expected, rtol=1e-6)
    np.testing.assert_allclose(found.losses, plain.losses + CONTRAST.weight * expected, rtol=1e-6)
    np.testing.assert_allclose(found.mse, plain.mse, rtol=1e-9)


@pytest.mark.parametrize("distils", [False, True])
def test_the_gradients_of_tasks_add_up_to_that_of_the_sum_of_losses(distils: bool) -> None:
    """A task's contrast depends on the other tasks: rows are shares of one gradient, not gradients of the losses."""
    network, given = tiny(), tasks(3)
    learner = distilling(network, tiny("teacher", 1)) if distils else contrasting(network)
    layout = Layout.of(network)
    flat = initial_vector(network).requires_grad_()
    shared = {name: value.expand(3, *value.shape) for name, value in layout.unflatten(flat).items()}
    (expected,) = torch.autograd.grad(learner.losses(shared, given)[0].sum(), flat)
    total = gradients(learner, given).gradients.sum(axis=0)
    np.testing.assert_allclose(total, expected.numpy(), rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_a_student_learns_both_from_its_teacher_and_from_the_contrast() -> None:
    network, teacher, given = tiny(), tiny("teacher", 1), tasks(2)
    both = gradients(distilling(network, teacher, weight=2.0), given).metrics
    plain = gradients(PretrainLearner(PretrainSpec(kind="pretrain"), network), given).metrics
    expected = plain.losses + 2.0 * both.terms["kl"] + CONTRAST.weight * both.terms["contrast"]
    np.testing.assert_allclose(both.losses, expected, rtol=1e-6)


@pytest.mark.parametrize("distils", [False, True])
def test_losses_of_embeddings_in_bfloat16(distils: bool) -> None:
    network, given = tiny().float(), Task(*(tensor.float() for tensor in tasks(2)))
    learner = distilling(network, tiny("teacher", 1).float()) if distils else contrasting(network)
    exact, rounded = (
        gradients(replace(learner, precision=precision), given).metrics for precision in ("float32", "bfloat16")
    )
    for name, values in (*exact.terms.items(), ("mse", exact.mse), ("losses", exact.losses)):
        away = np.abs((rounded.terms.get(name, getattr(rounded, name, None)) - values) / values).max()
        assert 0 < away < 0.05, name


def test_a_section_says_all_of_a_learner(small_study: Callable[..., Study], tmp_path: Path) -> None:
    spec = KDSRSpec(kind="kdsr", size="tiny", estimator="teacher")
    save_model(tmp_path / "t/model.safetensors", spec, 4, initial_vector(build_model(spec, 4, 0)))
    given = {"contrast": {"weight": 0.5, "temperature": 0.4}, "warmup_steps": 3}
    image = {"loss": "charbonnier", "charbonnier_eps": 0.1}
    for kind, own in (
        ("pretrain", {}),
        ("finetune", {}),
        ("distill", {"teacher": tmp_path / "t", "weight": 2.0, "temperature": 0.3}),
    ):
        init = {"init": tmp_path / "t"} if kind == "finetune" else {}
        training = {"precision": "bfloat16", **init}
        study = small_study(model=STUDENT, learner={"kind": kind, **given, **image, **own}, training=training)
        learner = Workspace(study).learner
        assert isinstance(learner, EmbeddingLearner)
        assert learner.spec.contrast == ContrastSpec(weight=0.5, temperature=0.4)
        assert (learner.spec.loss, learner.spec.charbonnier_eps, learner.spec.warmup_steps) == ("charbonnier", 0.1, 3)
        assert learner.precision == "bfloat16"
        if isinstance(learner, DistillLearner):
            assert (learner.spec.weight, learner.spec.temperature) == (2.0, 0.3)


def test_an_estimator_may_warm_up_by_contrast_alone() -> None:
    network, given = tiny(), tasks(2)
    learner = contrasting(network, contrast=ContrastSpec(weight=0.5), warmup_steps=3)
    layout, flat = Layout.of(network), initial_vector(network)
    for step, warming in ((2, True), (3, False)):
        found = vectorised_gradients(learner, layout, flat, given, step)
        slopes = layout.unflatten(torch.from_numpy(found.gradients[0]))
        moving = {name for name, slope in slopes.items() if slope.any()}
        assert all(name.startswith("estimator.") for name in moving) == warming
        assert "estimator.mix.0.weight" in moving
        assert np.allclose(found.metrics.losses, 0.5 * found.metrics.terms["contrast"]) == warming


@pytest.mark.parametrize("learner", [{"kind": "pretrain"}, {"kind": "distill", "teacher": "t", "weight": 0}])
def test_a_warm_up_needs_a_loss(small_experiment: Callable[..., Experiment], learner: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"in the warmup_steps .* add contrast: \{\}"):
        small_experiment(model=STUDENT, learner={**learner, "warmup_steps": 5})


@pytest.mark.parametrize(("contrast", "expected"), [(None, 0), ({}, 5)])
def test_tasks_share_their_patches_in_the_warm_up_of_a_contrast(
    small_experiment: Callable[..., Experiment], contrast: dict[str, Any] | None, expected: int
) -> None:
    learner = {"kind": "distill", "teacher": "t", "contrast": contrast, "warmup_steps": 5}
    assert small_experiment(model=STUDENT, learner=learner).shared_until == expected


def test_the_tasks_of_a_step_share_their_patches() -> None:
    sampler = TaskSampler(("a", "b"), 3, 5, 2, shared_until=5)
    apart = replace(sampler, shared_until=0)
    for step in (0, 4):
        refs, others = ([ref for shard in s.shards(step) for ref in shard] for s in (sampler, apart))
        assert {ref.patches for ref in refs} == {5 * step}
        assert [replace(ref, patches=None) for ref in refs] == others
    assert sampler.shards(5) == apart.shards(5)


def test_a_contrast_degrades_the_same_clean_patches(small_study: Callable[..., Study]) -> None:
    auxiliary = ["blur_iso_wide", "noise_gaussian"]
    workspace = Workspace(small_study(model=STUDENT, graph={"auxiliary": auxiliary}))
    sampler = TaskSampler(tuple(auxiliary), 0, 4, 4, shared_until=5)
    built, apart = (workspace.tasks(s.shards(1)[0]) for s in (sampler, replace(sampler, shared_until=0)))
    assert all(torch.equal(built.support_hr[k], built.support_hr[0]) for k in range(4))
    assert all(not torch.equal(built.support_lr[k], built.support_lr[0]) for k in range(1, 4))
    assert torch.equal(built.support_hr[0], apart.support_hr[0])
    assert not torch.equal(apart.support_hr[1], apart.support_hr[0])


@pytest.mark.parametrize(("contrast", "warmup", "until"), [({}, 2, 2), ({}, 0, 0), (None, 0, 0)])
def test_a_run_shares_patches_as_long_as_it_warms_up(
    small_study: Callable[..., Study], contrast: dict[str, Any] | None, warmup: int, until: int
) -> None:
    study = small_study(model=STUDENT, learner={"kind": "pretrain", "contrast": contrast, "warmup_steps": warmup})
    with LocalEngine() as engine:
        plan = make_plan(Workspace(study), engine.session(study))
    for step in (0, 1, 2, 3):
        shared = {ref.patches for shard in plan.sampler.shards(step) for ref in shard}
        assert shared == ({4 * step} if step < until else {None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"learner.contrast requires model: \{kind: kdsr\}"),
        ({"model": {**STUDENT, "estimator": "none"}}, "with an estimator"),
        ({"model": STUDENT, "training": {"source": "target"}}, "compares distributions"),
        ({"model": STUDENT, "training": {"shard_size": 1}}, "must be at least 2"),
        ({"model": STUDENT, "training": {"microbatch": 1}}, "must be at least 2"),
        ({"model": STUDENT, "training": {"tasks_per_step": 5, "shard_size": 4}}, "a group of a single task"),
        (
            {"model": STUDENT, "training": {"shard_size": 3, "tasks_per_step": 6, "microbatch": 2}},
            "a group of a single task",
        ),
        ({"model": STUDENT, "learner": {"backend": "learn2learn"}}, "requires backend: vectorised"),
    ],
)
def test_a_contrast_without_two_sides_is_refused(
    small_experiment: Callable[..., Experiment], changes: dict[str, Any], message: str
) -> None:
    learner = {"kind": "pretrain", "contrast": {}, **changes.get("learner", {})}
    with pytest.raises(ValidationError, match=message):
        small_experiment(**{**changes, "learner": learner})


def test_a_contrast_does_not_warm_up_with_real_pairs(
    small_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    (tmp_path / "tasks").mkdir()
    for side in ("lr", "hr"):
        (tmp_path / side).mkdir()
    (tmp_path / "tasks/camera.yaml").write_text("kind: pairs\nscale: 4\nlr: lr\nhr: hr\n")
    for warmup, refused in ((2, True), (0, False)):
        learner = {"kind": "pretrain", "contrast": {}, "warmup_steps": warmup}
        study = small_experiment(model=STUDENT, learner=learner, graph={"auxiliary": ["bicubic", "camera"]})
        with pytest.raises(UserError, match="but 'camera' has images of its own") if refused else nullcontext():
            resolve(study, tmp_path)


def test_images_of_a_task_are_restored_by_their_mean_descriptor() -> None:
    network, lr = tiny(embedding="task"), tasks(1, patches=3).support_lr[0]
    expected = network(lr, embedding=network.describe(lr).mean(dim=0, keepdim=True))
    torch.testing.assert_close(network(lr), expected)
    own = tiny()
    assert not torch.allclose(own(lr), expected)
    torch.testing.assert_close(network(lr[:1]), own(lr[:1]))


@pytest.mark.parametrize(
    "learner",
    [PretrainSpec(kind="pretrain"), PretrainSpec(kind="pretrain", contrast=CONTRAST), MAMLSpec(kind="maml")],
    ids=["pretrain", "contrast", "maml"],
)
def test_every_task_has_a_mean_of_its_own(learner: AnyLearnerSpec) -> None:
    built, given = build_learner(learner, tiny(embedding="task")), tasks(2)
    lr = torch.cat([given.support_lr, given.query_lr], 1)
    params = {name: value.expand(2, *value.shape) for name, value in built.model.named_parameters()}
    expected = torch.stack([built.model(images) for images in lr])
    torch.testing.assert_close(built.restore(params, lr), expected)
    other = Task(*(torch.cat([tensor[:1], tensor.flip(0)[:1] * 0.5]) for tensor in given))
    mse = [gradients(built, case).metrics.mse[0] for case in (given, other)]
    np.testing.assert_allclose(mse[0], mse[1], rtol=1e-6)  # whatever the other task is
