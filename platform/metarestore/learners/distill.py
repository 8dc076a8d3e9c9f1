"""Distillation: a student that sees only LR learns the degradation embeddings of a teacher that sees LR and HR.

Source: Xia et al., Knowledge Distillation based Degradation Estimation for Blind Super-Resolution (ICLR 2023), section
3.3; temperature, weight and reductions as in the published training.
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

    The restorer is initialised with the teacher's. The teacher is frozen, and only its encoder is evaluated. The
    student adapts to the shots with the image loss alone, because there is no other HR image to distil from.

    Args:
        spec: Temperature τ and weight of the divergence, and the options of pre-training.
        model: The student.
        teacher: The trained teacher, which has the student's size and scale.
    """

    spec: DistillSpec
    teacher: KDSR = field(kw_only=True)

    @classmethod
    def build(cls, spec: DistillSpec, model: nn.Module, precision: Precision) -> DistillLearner:
        """Builds the learner of a student, and opens its teacher on the student's device.

        Raises:
            UserError: `learner.teacher` is not a teacher, or does not match the student.
        """
        student, teacher = require_encoder(model), open_teacher(spec.teacher, model)
        if not isinstance(teacher, KDSR) or not teacher.privileged:
            raise UserError(
                f"learner.teacher: {spec.teacher} is not a teacher; train one with model.estimator: teacher"
            )
        if (teacher.size, teacher.scale) != (student.size, student.scale):
            raise UserError(
                f"learner.teacher: {spec.teacher} has size {teacher.size} and scale {teacher.scale}, the student "
                f"{student.size} and {student.scale}; use the teacher's size and scale"
            )
        return cls(spec, student, precision, teacher=teacher)

    def initial(self, network: Tensor) -> Tensor:
        """Returns the student's parameters (P,) with the teacher's restorer and its layer from D′ to D."""
        return started_as_taught(self.teacher, Layout.of(self.model), network)

    def terms(self, embeddings: Embeddings, lr: Tensor, hr: Tensor) -> Terms:
        """Computes the divergence, and the contrastive loss if it is configured."""
        divergence = kl_divergence(self.told(lr, hr), embeddings.distilled, self.spec.temperature)
        return {"kl": (self.spec.weight, divergence), **super().terms(embeddings, lr, hr)}

    def told(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Computes the teacher's D′ for the images of T tasks, (T, N, 4C), without autograd."""
        with torch.no_grad():
            embedding = self.teacher.encode(lr.flatten(0, 1), hr.flatten(0, 1)).distilled
        return embedding.unflatten(0, lr.shape[:2])  # type: ignore[no-untyped-call, no-any-return]


def kl_divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Computes KL(softmax(teacher/τ) ‖ softmax(student/τ)), averaged over the images of each task.

    Args:
        teacher: Embeddings of the teacher, (T, N, 4C).
        student: Embeddings of the student, (T, N, 4C).
        temperature: τ.

    Returns:
        (T,).
    """
    target, predicted = (teacher / temperature).log_softmax(dim=-1), (student / temperature).log_softmax(dim=-1)
    return (target.exp() * (target - predicted)).sum(dim=-1).mean(dim=-1)
