"""Distillation: a student that sees LR learns to describe degradations as a teacher does that sees HR too.

Source: Xia et al., Knowledge Distillation based Degradation Estimation for Blind Super-Resolution (ICLR 2023), section
3.3; temperature, weight and means as in the published training.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from metarestore.config.learner import DistillSpec
from metarestore.errors import UserError
from metarestore.learners.embedding import EmbeddingLearner, Terms, require_encoder
from metarestore.learners.learner import Precision
from metarestore.learners.teacher import open_teacher, started_as_taught
from metarestore.models.kdsr import KDSR, Embeddings
from metarestore.models.parameters import Layout


@dataclass(frozen=True)
class DistillLearner(EmbeddingLearner):
    """Student stage of KDSR: L(θ; S∪Q) + weight · KL(softmax(D′_T/τ) ‖ softmax(D′_S/τ)), the mean over all patches.

    The restorer starts as the teacher's. The teacher is frozen; of it, only the estimator is ever computed. To the
    shots, the student adapts with the image loss: there is no other HR image to distil from.

    Args:
        spec: Temperature τ and weight of the divergence, beside the options of pre-training.
        model: The student.
        teacher: The trained teacher, of the student's size and scale.
    """

    spec: DistillSpec
    teacher: KDSR = field(kw_only=True)

    @classmethod
    def build(cls, spec: DistillSpec, model: nn.Module, precision: Precision) -> DistillLearner:
        """Builds the learner of a student, with its teacher on the student's device.

        Raises:
            UserError: `learner.teacher` is no teacher of the network.
        """
        student, teacher = require_encoder(model), open_teacher(spec.teacher, model)
        if not isinstance(teacher, KDSR) or not teacher.privileged:
            raise UserError(
                f"learner.teacher: {spec.teacher} holds no teacher; train one with model.estimator: teacher"
            )
        if (teacher.size, teacher.scale) != (student.size, student.scale):
            raise UserError(
                f"learner.teacher: {spec.teacher} has size {teacher.size} and scale {teacher.scale}, the student "
                f"{student.size} and {student.scale}; make them those of the teacher"
            )
        return cls(spec, student, precision, teacher=teacher)

    def initial(self, network: Tensor) -> Tensor:
        """Returns the student's parameters (P,) with the teacher's restorer, and its layer from D′ to D."""
        return started_as_taught(self.teacher, Layout.of(self.model), network)

    def terms(self, said: Embeddings, lr: Tensor, hr: Tensor) -> Terms:
        """Computes the divergence, and the contrast if there is one."""
        divergence = kl_divergence(self.told(lr, hr), said.distilled, self.spec.temperature)
        return {"kl": (self.spec.weight, divergence), **super().terms(said, lr, hr)}

    def told(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Computes the teacher's D′ of images of T tasks, (T, N, 4C); it is a constant."""
        with torch.no_grad():
            told = self.teacher.encode(lr.flatten(0, 1), hr.flatten(0, 1)).distilled
        return told.unflatten(0, lr.shape[:2])  # type: ignore[no-untyped-call, no-any-return]


def kl_divergence(told: Tensor, said: Tensor, temperature: float) -> Tensor:
    """Computes KL(softmax(told/τ) ‖ softmax(said/τ)), the mean over each task's images.

    Args:
        told: (T, N, 4C), of the teacher.
        said: (T, N, 4C), of the student.
        temperature: τ.

    Returns:
        (T,).
    """
    target, guess = (told / temperature).log_softmax(dim=-1), (said / temperature).log_softmax(dim=-1)
    return (target.exp() * (target - guess)).sum(dim=-1).mean(dim=-1)
