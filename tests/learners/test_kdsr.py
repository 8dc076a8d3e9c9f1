"""KDSR is learned by every learner, and taught by a frozen teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from metarestore.config.experiment import Experiment, ExperimentFile
from metarestore.config.learner import DistillSpec, FOMAMLSpec, MAMLSpec, PretrainSpec
from metarestore.config.model import KDSRSpec
from metarestore.errors import UserError
from metarestore.evaluation.few_shot import AdaptationJob, restored_crops
from metarestore.learners.build import build_learner
from metarestore.learners.distill import DistillLearner, kl_divergence
from metarestore.learners.gradients import TaskGradients, repeated, split_gradients, vectorised_gradients
from metarestore.learners.learn2learn import reference_gradients
from metarestore.learners.learner import Learner, PretrainLearner
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, save_model
from metarestore.models.kdsr import KDSR
from metarestore.models.parameters import Layout, initial_vector
from metarestore.models.shipped import shipped
from metarestore.project import read_experiment, resolve
from metarestore.tasks.task import Task
from metarestore.training.jobs import ValidationJob
from metarestore.training.run import RunFolder
from metarestore.tuning.metric import HeldOutShotsJob
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

PRETRAIN = PretrainSpec(kind="pretrain")
StudyMaker = Callable[..., Study]

LEARNERS = {
    "pretrain": PRETRAIN,
    "maml": MAMLSpec(kind="maml", inner_steps=2, inner_lr=0.05),
    "fomaml": FOMAMLSpec(kind="fomaml", inner_steps=2, inner_lr=0.05),
}
STUDENT, TEACHER = ({"kind": "kdsr", "size": "tiny", "estimator": kind} for kind in ("student", "teacher"))
STILL = {"shots": 4, "shot_size": 64, "steps": 0}


def tiny(estimator: str = "student", seed: int = 0, scale: int = 2) -> KDSR:
    return build_model(KDSRSpec(kind="kdsr", size="tiny", estimator=estimator), scale, seed).double()


def tasks(count: int, patches: int = 2, side: int = 6, scale: int = 2) -> Task:
    rng = torch.Generator().manual_seed(0)
    lr, hr = (count, patches, 3, side, side), (count, patches, 3, scale * side, scale * side)
    return Task(*(torch.rand(shape, generator=rng, dtype=torch.float64) for shape in (lr, hr, lr, hr)))


def distilling(student: KDSR, teacher: KDSR | None = None, **options: Any) -> DistillLearner:
    """The learner of a student; the path of its teacher is not used."""
    spec = DistillSpec(kind="distill", teacher=Path("unused"), **options)
    return DistillLearner(spec, student, teacher=teacher or tiny("teacher", 1))


def row(stacked: Task, index: int) -> Task:
    return Task(*(tensor[index : index + 1] for tensor in stacked))


def gradients(learner: Learner, given: Task, step: int = 0) -> TaskGradients:
    return vectorised_gradients(learner, Layout.of(learner.model), initial_vector(learner.model), given, step)


@pytest.mark.parametrize("name", LEARNERS)
def test_vectorised_equals_learn2learn(name: str) -> None:
    model, given = tiny(), tasks(2)
    learner, layout, flat = build_learner(LEARNERS[name], model), Layout.of(model), initial_vector(model)
    ours = vectorised_gradients(learner, layout, flat, given)
    reference = reference_gradients(learner, layout, flat, given)
    np.testing.assert_allclose(ours.metrics.losses, reference.metrics.losses, rtol=1e-10)
    away = np.linalg.norm(ours.gradients - reference.gradients, axis=1)
    assert (away <= 1e-9 * np.linalg.norm(reference.gradients, axis=1)).all()


@pytest.mark.parametrize("learner", ["pretrain", "distill"])
def test_one_task_alone_equals_many_at_once(learner: str) -> None:
    model, given = tiny(), tasks(2)
    built = PretrainLearner(PRETRAIN, model) if learner == "pretrain" else distilling(model)
    together = gradients(built, given).gradients
    for k in range(2):
        np.testing.assert_allclose(gradients(built, row(given, k)).gradients[0], together[k], rtol=1e-8, atol=1e-13)


def test_a_teacher_is_given_hr() -> None:
    model, given = tiny("teacher"), tasks(2)
    lr, hr = torch.cat([given.support_lr, given.query_lr], 1), torch.cat([given.support_hr, given.query_hr], 1)
    expected = [float((model(lr[k], hr[k]) - hr[k]).detach().abs().mean()) for k in range(2)]
    np.testing.assert_allclose(gradients(PretrainLearner(PRETRAIN, model), given).metrics.losses, expected, rtol=1e-10)


def test_kl_by_hand() -> None:
    """With τ = 0.5, softmax((ln 3)/2, 0) is (3/4, 1/4) and softmax(0, 0) is (1/2, 1/2)."""
    told = torch.tensor([[[np.log(3) / 2, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    said = torch.zeros(1, 2, 2, dtype=torch.float64)
    one = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert float(kl_divergence(told, said, 0.5)) == pytest.approx(one / 2, abs=1e-12)
    expected = torch.nn.functional.kl_div(
        (said / 0.15).log_softmax(-1)[0], (told / 0.15).softmax(-1)[0], reduction="batchmean"
    )
    assert float(kl_divergence(told, said, 0.15)) == pytest.approx(float(expected), abs=1e-12)
    assert float(kl_divergence(told, told, 0.15)) == 0


def test_the_loss_is_the_image_loss_and_the_weighted_divergence() -> None:
    student, teacher, given = tiny(), tiny("teacher", 1), tasks(2)
    plain = gradients(PretrainLearner(PRETRAIN, student), given).metrics.losses
    found = gradients(distilling(student, teacher, weight=3.0, temperature=0.3), given).metrics
    lr, hr = torch.cat([given.support_lr, given.query_lr], 1), torch.cat([given.support_hr, given.query_hr], 1)
    with torch.no_grad():
        told, said = teacher.encode(lr[0], hr[0]).distilled, student.encode(lr[0]).distilled
    assert found.terms["kl"][0] == pytest.approx(float(kl_divergence(told[None], said[None], 0.3)), rel=1e-9)
    np.testing.assert_allclose(found.losses, plain + 3.0 * found.terms["kl"], rtol=1e-10)


def test_parts_of_a_shard_tell_the_divergence_of_every_task() -> None:
    learner, given = distilling(tiny()), tasks(3)
    layout, flat = Layout.of(learner.model), initial_vector(learner.model)
    whole, parts = (split_gradients(learner, layout, flat, given, 0, size).metrics for size in (None, 2))
    assert whole.terms["kl"].shape == (3,)
    np.testing.assert_allclose(parts.terms["kl"], whole.terms["kl"], rtol=1e-9)


def test_while_warming_up_the_estimator_alone_learns() -> None:
    learner = distilling(tiny(), warmup_steps=3)
    layout = Layout.of(learner.model)
    for step, warming in ((2, True), (3, False)):
        found = gradients(learner, tasks(1), step)
        slopes = layout.unflatten(torch.from_numpy(found.gradients[0]))
        still = [name for name, slope in slopes.items() if not slope.any()]
        assert all(name.startswith(("restorer.", "estimator.compress.")) for name in still)
        assert ("restorer.head.weight" in still) == warming
        assert (found.metrics.losses[0] == found.metrics.terms["kl"][0]) == warming
        assert np.isfinite(found.metrics.mse).all()


def test_the_student_starts_with_the_teacher_s_restorer_and_its_own_estimator() -> None:
    student, teacher = tiny(seed=0), tiny("teacher", 1)
    flat = distilling(student, teacher).initial(initial_vector(student))
    found = Layout.of(student).unflatten(flat)
    taught, own = dict(teacher.named_parameters()), dict(student.named_parameters())
    students = [name for name in found if name.startswith("estimator.") and "compress" not in name]
    assert all(torch.equal(value, (own if name in students else taught)[name]) for name, value in found.items())
    student.load_state_dict(found)
    lr = tasks(1).query_lr[0]
    embedding = student.describe(lr)
    assert torch.equal(student(lr, embedding=embedding), teacher(lr, embedding=embedding))


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher, given = tiny(), tiny("teacher", 1), tasks(2)
    learner = distilling(student, teacher)
    assert all(parameter.requires_grad for parameter in teacher.parameters())
    params = {n: v.requires_grad_() for n, v in repeated(dict(student.named_parameters()), 2).items()}
    told = learner.told(given.query_lr, given.query_hr)
    assert not told.requires_grad
    loss, _ = learner.losses(params, given)
    assert torch.autograd.grad(loss.sum(), list(teacher.parameters()), allow_unused=True) == (None,) * len(
        list(teacher.parameters())
    )


def saved_teacher(folder: Path, scale: int = 4, estimator: str = "teacher", seed: int = 3) -> Path:
    spec = KDSRSpec(kind="kdsr", size="tiny", estimator=estimator)
    save_model(folder / "model.safetensors", spec, scale, initial_vector(build_model(spec, scale, seed)))
    return folder


def test_the_learner_of_a_study_is_taught(small_study: StudyMaker, tmp_path: Path) -> None:
    teacher = saved_teacher(tmp_path / "teacher")
    workspace = Workspace(small_study(model=STUDENT, learner={"kind": "distill", "teacher": teacher, "weight": 2}))
    learner = workspace.learner
    assert isinstance(learner, DistillLearner)
    assert (learner.spec.weight, learner.spec.temperature) == (2, 0.15)
    assert not any(parameter.requires_grad for parameter in learner.teacher.parameters())
    start = workspace.layout.unflatten(workspace.initial())
    assert torch.equal(start["restorer.head.weight"], dict(learner.teacher.named_parameters())["restorer.head.weight"])


def test_a_teacher_is_validated_and_measured_with_hr(small_study: StudyMaker) -> None:
    workspace = Workspace(small_study(model=TEACHER, learner={"kind": "pretrain"}, adaptation=STILL))
    flat = workspace.initial()
    assert np.isfinite(ValidationJob("bicubic").run(workspace, flat)).all()
    found = AdaptationJob(workspace.experiment.adaptation).run(workspace, flat)
    assert found.curve.label == "no step, given HR"
    assert torch.equal(found.flat, flat)
    assert np.isfinite(HeldOutShotsJob(0, 2).run(workspace, flat)).all()
    query = workspace.target_task.query_hr
    assert restored_crops(workspace, flat).shape == query.shape


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"estimator": "student"}, "is not a teacher; train one with model.estimator: teacher"),
        ({"scale": 2}, "has size tiny and scale 2, the student tiny and 4"),
        (None, r"learner.teacher: there is no .*teacher; give a run's folder"),
    ],
)
def test_what_cannot_teach_is_refused(
    small_study: StudyMaker, tmp_path: Path, made: dict[str, Any] | None, message: str
) -> None:
    if made is not None:
        saved_teacher(tmp_path / "teacher", **made)
    with pytest.raises(UserError, match=message):
        Workspace(small_study(model=STUDENT, learner={"kind": "distill", "teacher": tmp_path / "teacher"})).open_all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": TEACHER, "adaptation": STILL}, r"estimator: teacher restores from .* learner: \{kind: pretrain\}"),
        ({"model": TEACHER, "learner": {"kind": "pretrain"}}, r"cannot adapt; write adaptation: \{steps: 0\}"),
        (
            {
                "model": TEACHER,
                "learner": {"kind": "pretrain"},
                "adaptation": STILL,
                "graph": {"estimator": {"kind": "transfer"}},
            },
            "choose another graph.estimator than transfer",
        ),
        (
            {
                "model": TEACHER,
                "learner": {"kind": "pretrain"},
                "adaptation": STILL,
                "evaluation": {"self_ensemble": True},
            },
            "remove evaluation.self_ensemble",
        ),
        (
            {
                "model": STUDENT,
                "learner": {"kind": "pretrain", "contrast": {}},
                "training": {"tasks_per_step": 4, "shard_size": 4, "shot_tasks": 1},
            },
            "same patches; remove shot_tasks",
        ),
        (
            {"learner": {"kind": "distill", "teacher": "runs/t"}},
            "distill requires model: {kind: kdsr, estimator: student}",
        ),
        (
            {"model": STUDENT, "learner": {"kind": "distill", "teacher": "t"}, "training": {"init": "runs/a"}},
            "starts from its teacher; remove init",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(
    small_experiment: Callable[..., Experiment], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        small_experiment(**changes)


def test_other_weights_of_the_teacher_make_another_run(small_study: StudyMaker, tmp_path: Path) -> None:
    teacher = saved_teacher(tmp_path / "teacher")
    study = small_study(model=STUDENT, learner={"kind": "distill", "teacher": teacher})
    RunFolder(tmp_path / "run", study, resume=False)
    RunFolder(tmp_path / "run", study, resume=True)
    saved_teacher(tmp_path / "teacher", seed=4)
    with pytest.raises(UserError, match=r'another configuration \(networks\["learner.teacher"\] was'):
        RunFolder(tmp_path / "run", study, resume=True)


def test_the_path_of_the_teacher_starts_at_the_project(
    small_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    (tmp_path / "tasks").mkdir()
    saved_teacher(tmp_path / "runs/teacher")
    study = resolve(small_experiment(model=STUDENT, learner={"kind": "distill", "teacher": "runs/teacher"}), tmp_path)
    assert study.experiment.learner.teacher == tmp_path / "runs/teacher"


def test_a_shipped_network_may_be_started_from(small_experiment: Callable[..., Experiment]) -> None:
    name = "kdsr_tiny_isotropic"
    path = shipped()[name]
    study = resolve(small_experiment(model=STUDENT, training={"init": name}), Path.cwd())
    assert study.experiment.training.init == path.resolve()
    workspace = Workspace(study)
    assert torch.equal(workspace.initial(), initial_vector(load_model(path)))
    with pytest.raises(UserError, match=rf"training.init: there is no .*{name}x.*; did you mean '{name}'"):
        resolve(small_experiment(model=STUDENT, training={"init": f"{name}x"}), Path.cwd())


def test_an_unknown_size_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("graph: phone_camera\nlearner: {kind: pretrain}\nmodel: {kind: kdsr, size: tinny}\n")
    with pytest.raises(UserError) as caught:
        read_experiment(file)
    assert caught.value.problems[0].endswith("model.size: 'tinny' is not one of tiny, s, m, l; did you mean 'tiny'?")
    assert len(caught.value.problems) == 1


def test_an_old_model_section_is_fsrcnn() -> None:
    base = {"graph": "phone_camera", "learner": {"kind": "pretrain"}}
    assert ExperimentFile.model_validate({**base, "model": {"d": 8}}).model.kind == "fsrcnn"
    assert ExperimentFile.model_validate(base).model.kind == "fsrcnn"
