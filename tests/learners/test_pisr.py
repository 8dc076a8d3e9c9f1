"""PISR: parameter counts, losses against hand computations, initialisation, and students of any kind."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from metarestore.config.experiment import Experiment
from metarestore.config.learner import FeatureLossSpec, PretrainSpec
from metarestore.config.model import ModelSpec
from metarestore.engines.local import LocalSession
from metarestore.errors import UserError
from metarestore.evaluation.few_shot import restored_crops
from metarestore.learners import feature_distillation
from metarestore.learners.build import build_learner
from metarestore.learners.feature_cache import FeatureCache
from metarestore.learners.feature_distillation import (
    ImitationLearner,
    StudentLearner,
    feature_channels,
    taught_features,
)
from metarestore.learners.feature_losses import (
    VariationalHead,
    attention_distance,
    feature_loss,
    gaussian_information,
    head_of,
    laplace_information,
)
from metarestore.learners.gradients import split_gradients, vectorised_gradients
from metarestore.learners.learner import Learner
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, save_model
from metarestore.models.network import Network, collected_features
from metarestore.models.parameters import Layout, initial_vector
from metarestore.tasks.task import Task
from metarestore.training.interrupt import Interrupted
from metarestore.training.log import LogRow, Observer
from metarestore.training.run import RunFolder, Trained, train
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

PUBLISHED = {"kind": "fsrcnn", "residual": "none", "prelu": "per_layer"}
SMALL = {"kind": "fsrcnn", "d": 8, "s": 4, "m": 1}
TEACHER = {"kind": "pisr_teacher", "decoder": SMALL, "d": 6, "s": 5}
STILL = {"shots": 4, "shot_size": 64, "steps": 0}
LOSSES = ("vid_laplace", "vid_gaussian", "l2", "attention")


def built(spec: dict[str, Any], scale: int = 2, seed: int = 0) -> Network:
    return build_model(TypeAdapter(ModelSpec).validate_python(spec), scale, seed)


def saved(path: Path, spec: dict[str, Any], scale: int = 2, seed: int = 7) -> Path:
    save_model(
        path / "model.safetensors",
        TypeAdapter(ModelSpec).validate_python(spec),
        scale,
        initial_vector(built(spec, scale, seed)),
    )
    return path


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def tasks(number: int = 2, planes: int = 1, side: int = 6, scale: int = 2) -> Task:
    rng = torch.Generator().manual_seed(0)
    lr, hr = (number, 2, planes, side, side), (number, 2, planes, scale * side, scale * side)
    return Task(*(torch.rand(shape, generator=rng, dtype=torch.float64) for shape in (lr, hr, lr, hr)))


def student_of(path: Path, model: dict[str, Any] = SMALL, **distillation: Any) -> Any:
    """A student in double precision, with its teacher and heads."""
    spec = PretrainSpec.model_validate({"kind": "pretrain", "distillation": {"teacher": path, **distillation}})
    learner = build_learner(spec, built(model))
    assert isinstance(learner, StudentLearner)
    for module in (learner.model, learner.teacher, learner.heads):
        module.double()
    return learner


def gradients(learner: Learner, given: Task) -> Any:
    flat = learner.initial(initial_vector(learner.model))
    return vectorised_gradients(learner, learner.layout(Layout.of(learner.model)), flat, given)


def every(given: Task, task: int = 0) -> tuple[Tensor, Tensor]:
    """All patches of one task."""
    return torch.cat([given.support_lr[task], given.query_lr[task]]), torch.cat(
        [given.support_hr[task], given.query_hr[task]]
    )


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_published_numbers_of_parameters(scale: int) -> None:
    teacher = built({"kind": "pisr_teacher", "decoder": PUBLISHED}, scale)
    assert (count(teacher.encoder), count(teacher.decoder), count(teacher)) == (86_084, 12_644, 98_728)
    assert count(built(PUBLISHED, scale)) == 12_644
    assert count(VariationalHead(56, 56)) == 12_770
    lr, hr = torch.rand(1, 1, 7, 5), torch.rand(1, 1, 7 * scale, 5 * scale)
    with torch.no_grad(), collected_features(teacher, ["encoding", "expanding"]) as features:
        restored = teacher(lr, hr)
        assert torch.equal(restored, teacher.decoder(features["encoding"]))
    assert (features["encoding"].shape, features["expanding"].shape) == (lr.shape, (1, 56, 7, 5))
    with pytest.raises(ValueError, match="must be given the HR images"):
        teacher(lr)


def test_densities_by_hand() -> None:
    """With b = 0.1·2 = 0.2 and |f − μ| = 0.3: log 0.4 + 1.5. With v = 0.001·2: log(2π·0.002)/2 + 0.09/0.004."""
    mean, scale = torch.tensor([[0.5, 0.5]], dtype=torch.float64), torch.full((1, 2), 2.0, dtype=torch.float64)
    wanted = torch.tensor([[0.8, 0.2]], dtype=torch.float64)
    assert float(laplace_information(mean, scale, wanted)) == pytest.approx(math.log(0.4) + 1.5, rel=1e-6)
    expected = math.log(2 * math.pi * 0.002) / 2 + 0.09 / 0.004
    assert float(gaussian_information(mean, scale, wanted)) == pytest.approx(expected, rel=1e-4)
    b, v = 0.1 * scale + 1e-8, 1e-3 * scale + 1e-8
    laplace, normal = torch.distributions.Laplace(mean, b), torch.distributions.Normal(mean, v.sqrt())
    torch.testing.assert_close(laplace_information(mean, scale, wanted), -laplace.log_prob(wanted).mean())
    torch.testing.assert_close(gaussian_information(mean, scale, wanted), -normal.log_prob(wanted).mean())


def test_densities_are_bounded() -> None:
    zero = torch.zeros(1, 1)
    assert float(laplace_information(zero, zero, zero)) == pytest.approx(math.log(2e-8))
    assert math.isfinite(float(gaussian_information(zero, zero, zero + 1)))


def test_attention_by_hand() -> None:
    """Energies (9, 16) and (1, 0), of norms √337 and 1; the number of channels does not matter."""
    student = torch.tensor([3.0, 4.0]).view(1, 1, 1, 2)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    expected = (9 / 337**0.5 - 1) ** 2 + (16 / 337**0.5) ** 2
    assert float(attention_distance(student, teacher)) == pytest.approx(expected)
    assert float(attention_distance(5 * student, student)) == pytest.approx(0, abs=1e-12)


def test_squared_differences_have_a_head_where_channels_differ() -> None:
    loss, rng = FeatureLossSpec(loss="l2"), torch.Generator().manual_seed(0)
    student, teacher = torch.rand(2, 3, 4, 4, generator=rng), torch.rand(2, 5, 4, 4, generator=rng)
    assert head_of(loss, 3, 3) is None
    assert float(feature_loss(loss, student, student + 2, None)) == pytest.approx(4)
    head = head_of(loss, 3, 5)
    assert head is not None
    expected = F.mse_loss(F.conv2d(student, head.weight, head.bias), teacher)
    torch.testing.assert_close(feature_loss(loss, student, teacher, head), expected)
    assert head_of(FeatureLossSpec(loss="attention"), 3, 5) is None
    with pytest.raises(TypeError, match="vid_laplace needs a head"):
        feature_loss(FeatureLossSpec(), student, student, None)


@pytest.mark.parametrize("weight", [0.0, 1e-4, 3.0])
def test_the_teacher_learns_images_and_imitation(weight: float) -> None:
    model, given = built(TEACHER).double(), tasks()
    learner = build_learner(PretrainSpec(kind="pretrain", imitation=weight), model)
    assert isinstance(learner, ImitationLearner)
    found = gradients(learner, given).metrics
    lr, hr = every(given)
    with torch.no_grad():
        encoded = model.encoder(hr)
        image, distance = float((model.decoder(encoded) - hr).abs().mean()), float((encoded - lr).abs().mean())
    assert found.terms["imitation"][0] == pytest.approx(distance, rel=1e-6)
    assert found.losses[0] == pytest.approx(image + weight * distance, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_student_learns_images_and_features(tmp_path: Path, loss: str) -> None:
    learner, given = student_of(saved(tmp_path, TEACHER), loss=loss, weight=0.3), tasks()
    flat = learner.initial(initial_vector(learner.model))
    found = gradients(learner, given).metrics
    layout = Layout.of(learner.model)
    learner.model.load_state_dict(layout.unflatten(flat[: layout.size]))
    lr, hr = every(given, 1)
    with torch.no_grad():
        wanted = learner.teacher.decoder.body(learner.teacher.encoder(hr))
        said, image = learner.model.body(lr), float((learner.model(lr) - hr).abs().mean())
        head = dict(learner.heads).get(f"{loss}_expanding")
        expected = float(feature_loss(FeatureLossSpec(loss=loss), said, wanted, head))  # type: ignore[arg-type]
    assert found.terms[f"{loss}_expanding"][1] == pytest.approx(expected, rel=1e-6)
    assert found.losses[1] == pytest.approx(image + 0.3 * expected, rel=1e-6)
    assert (head is not None) == loss.startswith("vid")


def test_losses_are_added_and_layers_are_averaged(tmp_path: Path) -> None:
    also = [{"loss": "l2", "layers": {"shrinking": "mapping", "features": "features"}, "weight": 2.0}]
    learner = student_of(saved(tmp_path, TEACHER), weight=0.5, also=also)
    found = gradients(learner, tasks()).metrics
    plain = gradients(student_of(tmp_path, weight=0), tasks()).metrics
    assert set(found.terms) == {"vid_laplace_expanding", "l2_shrinking", "l2_features"}
    expected = plain.losses + 0.5 * found.terms["vid_laplace_expanding"]
    expected = expected + (found.terms["l2_shrinking"] + found.terms["l2_features"])
    np.testing.assert_allclose(found.losses, expected, rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_many_tasks_at_once_learn_as_one_by_one(tmp_path: Path, loss: str) -> None:
    learner, given = student_of(saved(tmp_path, TEACHER), loss=loss, weight=0.3), tasks(3)
    together = gradients(learner, given)
    for task in range(3):
        alone = gradients(learner, Task(*(tensor[task : task + 1] for tensor in given)))
        np.testing.assert_allclose(alone.gradients[0], together.gradients[task], rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(alone.metrics.losses[0], together.metrics.losses[task], rtol=1e-6)
    layout, flat = learner.layout(Layout.of(learner.model)), learner.initial(initial_vector(learner.model))
    split = split_gradients(learner, layout, flat, given, 0, 2)
    np.testing.assert_allclose(split.gradients, together.gradients, rtol=1e-4, atol=1e-8)
    network = Layout.of(learner.model).size
    assert together.gradients.shape[1] == network + count(learner.heads)
    if loss.startswith("vid"):
        assert np.abs(together.gradients[:, network:]).max() > 0  # the heads learn too


def test_the_student_starts_as_the_decoder(tmp_path: Path) -> None:
    learner = student_of(saved(tmp_path, TEACHER))
    own = initial_vector(learner.model)
    flat, layout = learner.initial(own), Layout.of(learner.model)
    assert torch.equal(flat[: layout.size], initial_vector(learner.teacher.decoder))
    assert torch.equal(flat[layout.size :], initial_vector(learner.heads))
    fresh = student_of(tmp_path, initialise=False)
    assert torch.equal(fresh.initial(own)[: layout.size], own)
    bare = student_of(tmp_path, weight=0)
    assert torch.equal(bare.initial(own), flat[: layout.size])  # without a loss there are no heads


def test_no_gradient_reaches_the_teacher(tmp_path: Path) -> None:
    learner, given = student_of(saved(tmp_path, TEACHER)), tasks()
    assert not any(parameter.requires_grad for parameter in learner.teacher.parameters())
    learner.teacher.requires_grad_()
    lr, hr = (torch.stack(tensors) for tensors in zip(every(given, 0), every(given, 1), strict=True))
    assert not any(value.requires_grad for value in learner.taught(lr, hr).values())
    flat = learner.initial(initial_vector(learner.model)).requires_grad_()
    layout = learner.layout(Layout.of(learner.model))
    params = {name: value.expand(2, *value.shape) for name, value in layout.unflatten(flat).items()}
    loss = learner.losses(params, given)[0].sum()
    teachers = torch.autograd.grad(loss, list(learner.teacher.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in teachers)


@pytest.mark.parametrize(
    ("student", "teacher", "layers"),
    [
        ({"kind": "compact"}, {"kind": "pisr_teacher", "decoder": {"kind": "compact"}, "d": 6, "s": 5}, ["last"]),
        ({"kind": "ecbsr", "c": 4, "m": 1}, TEACHER, {"last": "expanding"}),
        (SMALL, {"kind": "fsrcnn", "d": 12, "s": 4, "m": 1}, ["expanding", "mapping"]),
        ({"kind": "kdsr", "size": "tiny"}, {"kind": "compact"}, {"join": "last"}),
    ],
    ids=["compact", "ecbsr", "a larger fsrcnn", "kdsr"],
)
@pytest.mark.parametrize("loss", LOSSES)
def test_any_network_teaches_any_other(
    tmp_path: Path, student: dict[str, Any], teacher: dict[str, Any], layers: Any, loss: str
) -> None:
    initialise = student == teacher.get("decoder")
    saved(tmp_path, teacher)
    learner = student_of(tmp_path, student, layers=layers, loss=loss, weight=0.1, initialise=initialise)
    given = tasks(planes=3 if learner.model.channels == "rgb" else 1)
    found = gradients(learner, given)
    assert np.isfinite(found.gradients).all()
    assert {f"{loss}_{layer}" for layer in layers} == set(found.metrics.terms)


def test_feature_channels() -> None:
    assert feature_channels(built(TEACHER)) == {
        "encoding": 1,
        "features": 8,
        "shrinking": 4,
        "mapping": 4,
        "expanding": 8,
    }


class Stopping(Observer):
    """An observer that asks to stop after a step, as a user does."""

    def __init__(self, step: int | None = None) -> None:
        self._stop = step

    def step(self, row: LogRow) -> None:
        if row.step == self._stop:
            os.kill(os.getpid(), signal.SIGINT)


def test_both_stages_are_trainings(small_study: Callable[..., Study], tmp_path: Path) -> None:
    """The terms are logged; a student that was stopped continues to the same bytes, which load without heads."""

    def trained(study: Study, name: str, *, resume: bool = False, stop: int | None = None) -> Trained:
        workspace = Workspace(study)
        return train(
            workspace, RunFolder(tmp_path / name, study, resume=resume), LocalSession(workspace), Stopping(stop)
        )

    teacher = small_study(model=TEACHER, learner={"kind": "pretrain", "imitation": 0.1}, adaptation=STILL)
    assert all(row.terms["imitation"] > 0 for row in trained(teacher, "teacher").state.log)
    learner = {"kind": "pretrain", "distillation": {"teacher": tmp_path / "teacher", "weight": 1e-3}}
    study = small_study(model=SMALL, learner=learner)
    found = trained(study, "whole")
    assert all("vid_laplace_expanding" in row.terms for row in found.state.log)
    with pytest.raises(Interrupted, match="after step 2"):
        trained(study, "parts", stop=2)
    trained(study, "parts", resume=True)
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()
    model, held = load_model(files[0]), load_file(files[0])
    assert set(held) == set(dict(model.named_parameters()))
    assert len(found.flat) == count(model) + count(VariationalHead(8, 8))
    assert not (tmp_path / "whole/inner_rates.safetensors").exists()


def test_cached_features_are_those_that_would_be_computed(
    small_study: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that repeat are taught once, as long as the features fit."""
    saved(tmp_path, TEACHER, 4)
    calls: list[int] = []

    def counted(*given: Any) -> dict[str, Tensor]:
        calls.append(1)
        return taught_features(*given)

    monkeypatch.setattr(feature_distillation, "taught_features", counted)
    found, taught = [], []
    for cache in (0, 64):
        calls.clear()
        distillation = {"teacher": tmp_path, "weight": 1e-3, "initialise": False, "cache": cache}
        study = small_study(
            model=SMALL,
            learner={"kind": "pretrain", "distillation": distillation},
            graph={"auxiliary": ["bicubic"]},
            training={"steps": 4, "tasks_per_step": 2, "shard_size": 2, "distinct": 4},
        )
        workspace = Workspace(study)
        run = RunFolder(tmp_path / str(cache), study, resume=False)
        found.append(train(workspace, run, LocalSession(workspace), Observer()).flat)
        taught.append(len(calls))
    assert torch.equal(*found)
    assert taught == [4, 2]


def test_a_full_cache_keeps_what_it_has() -> None:
    images = [torch.full((4,), float(k)) for k in range(3)]
    cache = FeatureCache(32)
    for _ in range(2):
        for image in images:
            assert torch.equal(cache.get((image,), lambda image=image: {"f": 2 * image})["f"], 2 * image)
    assert cache.size == 32
    computed = [k for k, image in enumerate(images) if "new" in cache.get((image,), lambda: {"new": images[0]})]
    assert computed == [2]


def test_a_luma_teacher_is_measured_with_hr(small_study: Callable[..., Study]) -> None:
    workspace = Workspace(small_study(model=TEACHER, learner={"kind": "pretrain"}, adaptation=STILL))
    assert restored_crops(workspace, workspace.initial()).shape == workspace.target_task.query_hr.shape


@pytest.mark.parametrize(
    ("distillation", "message"),
    [
        ({"layers": ["expandin"]}, r"layers: the student has no feature 'expandin'; choose from features, shrinking"),
        ({"layers": {"expanding": "last"}}, "layers: the teacher has no feature 'last'"),
        ({"also": [{"weight": 1}]}, "also: vid_laplace_expanding occurs twice"),
        ({"teacher": "other scale"}, "teacher: .* is for scale 3 and channels y, the student for 2 and y"),
        ({"teacher": "other size"}, "initialise: the weights of .* do not match the student"),
        ({"teacher": "missing"}, "teacher: .* no such file"),
    ],
)
def test_what_cannot_teach_is_refused(tmp_path: Path, distillation: dict[str, Any], message: str) -> None:
    saved(tmp_path / "teacher", TEACHER)
    saved(tmp_path / "other scale", TEACHER, scale=3)
    saved(tmp_path / "other size", {**TEACHER, "decoder": {**SMALL, "d": 9}})
    path = tmp_path / distillation.pop("teacher", "teacher")
    with pytest.raises(UserError, match=f"learner.distillation.{message}") as caught:
        student_of(path, **distillation)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": SMALL, "learner": {"imitation": 1}}, r"imitation .* requires model: \{kind: pisr_teacher\}"),
        ({"model": TEACHER, "learner": {"distillation": {"teacher": "t"}}}, "distillation is for students"),
        ({"model": TEACHER, "learner": {"kind": "fomaml"}}, "model.kind: pisr_teacher restores from the HR images"),
        (
            {"model": TEACHER, "learner": {"imitation": 1, "distillation": {"teacher": "t"}}},
            "distillation and imitation cannot be combined",
        ),
        (
            {"model": SMALL, "learner": {"distillation": {"teacher": "t"}, "backend": "learn2learn"}},
            "distillation requires backend: vectorised",
        ),
        (
            {"model": SMALL, "learner": {"distillation": {"teacher": "t"}}, "training": {"init": "a"}},
            "starts from its teacher; remove init",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(
    small_experiment: Callable[..., Experiment], changes: dict[str, Any], message: str
) -> None:
    learner = {"kind": "pretrain", **changes["learner"]}
    with pytest.raises(ValidationError, match=message):
        small_experiment(**{**changes, "learner": learner}, adaptation=STILL)
