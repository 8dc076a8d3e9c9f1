"""From the learner section of an experiment to a learner."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from metarestore.config.learner import (
    ANIL,
    FOMAML,
    AnyLearnerSpec,
    Distill,
    Finetune,
    MetaSGD,
    Pretrain,
    Reptile,
)
from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError
from metarestore.learners.distill import DistillLearner
from metarestore.learners.embedding import EmbeddingLearner
from metarestore.learners.learner import MAMLLearner, Precision, PretrainLearner
from metarestore.learners.variants import MetaSGDLearner, ReptileLearner
from metarestore.models.checkpoint import load_model
from metarestore.models.kdsr import KDSR

AnyLearner = PretrainLearner | EmbeddingLearner | MAMLLearner


def build_learner(spec: AnyLearnerSpec, model: nn.Module, precision: Precision = "float32") -> AnyLearner:
    """Builds the learner of an experiment.

    Raises:
        UserError: A pattern of `learner.adapts` matches no parameter of the network, or `learner.teacher` is no teacher
            of the network.
    """
    if isinstance(spec, Pretrain | Finetune | Distill):
        return _pooled(spec, model, precision)
    options: dict[str, Any] = {
        "inner_steps": spec.inner_steps,
        "inner_lr": spec.inner_lr,
        "loss_name": spec.loss,
        "inner_loss": spec.inner_loss,
        "eps": spec.charbonnier_eps,
        "clip": spec.inner_clip,
        "precision": precision,
    }
    if isinstance(spec, Reptile):
        return ReptileLearner(model, first_order=True, **options)
    options["multi_step"] = spec.multi_step
    if isinstance(spec, MetaSGD):
        return MetaSGDLearner(model, first_order=spec.first_order, **options)
    if isinstance(spec, ANIL):
        adapts = matching_parameters(spec.adapts, [name for name, _ in model.named_parameters()])
        return MAMLLearner(model, first_order=spec.first_order, adapts=adapts, **options)
    return MAMLLearner(model, first_order=isinstance(spec, FOMAML), **options)


def _pooled(
    spec: Pretrain | Finetune | Distill, model: nn.Module, precision: Precision
) -> PretrainLearner | EmbeddingLearner:
    """Builds a learner that takes support and query together."""
    if isinstance(spec, Distill):
        return _student(spec, model, precision)
    if spec.contrast is None:
        return PretrainLearner(model, spec.loss, spec.charbonnier_eps, precision)
    describing = _describing(model)
    return EmbeddingLearner(describing, spec.loss, spec.charbonnier_eps, spec.contrast, spec.warmup_steps, precision)


def _describing(model: nn.Module) -> KDSR:
    if not isinstance(model, KDSR) or model.estimator is None:
        raise TypeError("losses of embeddings need a network with an estimator")
    return model


def _student(spec: Distill, model: nn.Module, precision: Precision) -> DistillLearner:
    """Builds the student stage, with its teacher where the student is."""
    student = _describing(model)
    try:
        teacher = load_model(spec.teacher)
    except UserError as error:
        raise UserError(f"learner.teacher: {error}") from error
    if not isinstance(teacher, KDSR) or not teacher.privileged:
        raise UserError(f"learner.teacher: {spec.teacher} holds no teacher; train one with model.estimator: teacher")
    if (teacher.size, teacher.scale) != (student.size, student.scale):
        raise UserError(
            f"learner.teacher: {spec.teacher} has size {teacher.size} and scale {teacher.scale}, the student "
            f"{student.size} and {student.scale}; make them those of the teacher"
        )
    teacher.requires_grad_(False).to(next(student.parameters()).device)
    return DistillLearner(
        student,
        spec.loss,
        spec.charbonnier_eps,
        spec.contrast,
        spec.warmup_steps,
        precision,
        teacher=teacher,
        temperature=spec.temperature,
        weight=spec.weight,
    )


def matching_parameters(patterns: Sequence[str], names: Sequence[str]) -> frozenset[str]:
    """Returns the names of parameters that any of the patterns stands for.

    Raises:
        UserError: A pattern matches none.
    """
    found: set[str] = set()
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            known = [*dict.fromkeys(f"{part}.*" for part in _parts(names)), *names]
            hint = did_you_mean(pattern, known) or f"; patterns that match: {', '.join(known[:4])}"
            raise UserError(f"learner.adapts: '{pattern}' matches no parameter of the network{hint}")
        found.update(matches)
    return frozenset(found)


def _parts(names: Sequence[str]) -> list[str]:
    """Returns the modules that parameters belong to, outer ones first."""
    modules = {name.rsplit(".", count)[0] for name in names for count in range(1, name.count(".") + 1)}
    return sorted(modules, key=lambda module: (module.count("."), module))
