"""Distillation: a student that sees LR learns to describe degradations as a teacher does that sees HR too.

Source: Xia et al., Knowledge Distillation based Degradation Estimation for Blind Super-Resolution (ICLR 2023), section
3.3; temperature, weight and means as in the published training.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from metarestore.config.learner import LossName
from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.learner import Learner, Metrics, Precision, all_patches, each, squared_errors
from metarestore.learners.losses import EPS, image_losses
from metarestore.learners.precision import Bfloat16
from metarestore.models.kdsr import KDSR, Embeddings, Estimator
from metarestore.models.parameters import Layout, Params, initial_vector
from metarestore.tasks.task import Task

_ESTIMATOR = "estimator."
"""Prefix of the names of the estimator's parameters; all others are the restorer's."""


@dataclass(frozen=True)
class DistillLearner(Learner):
    """Student stage of KDSR: L(θ; S∪Q) + weight · KL(softmax(D′_T/τ) ‖ softmax(D′_S/τ)), the mean over all patches.

    The restorer starts as the teacher's. The teacher is frozen; of it, only the estimator is ever computed.

    Args:
        model: The student.
        teacher: The trained teacher, of the student's size and scale.
        loss_name: Image loss.
        eps: ε of the Charbonnier loss.
        temperature: τ.
        weight: Weight of the divergence.
        warmup_steps: Outer steps at first in which the divergence alone is learned from.
        precision: Arithmetic of the student.
    """

    model: KDSR
    teacher: KDSR
    loss_name: LossName = "l1"
    eps: float = EPS
    temperature: float = 0.15
    weight: float = 1.0
    warmup_steps: int = 0
    precision: Precision = "float32"

    @property
    def inner_rule(self) -> InnerRule:
        """Adapts with the image loss: there is no HR image to distil from but the shots'."""
        return InnerRule(self.loss_name, self.eps)

    def initial(self, network: Tensor) -> Tensor:
        """Returns the student's parameters (P,) with the restorer's replaced by the teacher's."""
        layout = Layout.of(self.model)
        taught = Layout.of(self.teacher).unflatten(initial_vector(self.teacher).to(network))
        params = layout.unflatten(network)
        restorer = {name: taught[name] for name in params if not name.startswith(_ESTIMATOR)}
        return layout.flatten({**params, **restorer})

    def losses(self, params: Params, tasks: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the losses of support and query together."""
        lr, hr = all_patches(tasks)
        warming = step < self.warmup_steps
        said = each(self._describe, params, lr)
        divergence = kl_divergence(self.told(lr, hr), said.distilled, self.temperature)
        # While warming up, the images are restored for the log alone.
        with torch.no_grad() if warming else nullcontext():
            restored = each(self._restore, params, lr, said.modulating)
            errors = image_losses(self.loss_name, self.eps)(restored, hr)
        losses = self.weight * divergence if warming else errors + self.weight * divergence
        mse = squared_errors(restored[:, tasks.support_lr.shape[1] :], tasks.query_hr)
        return losses, Metrics(losses.detach(), mse, {"kl": divergence.detach()})

    def told(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Computes the teacher's D′ of images of T tasks, (T, N, 4C); it is a constant."""
        with torch.no_grad():
            told = self.teacher.encode(lr.flatten(0, 1), hr.flatten(0, 1)).distilled
        return told.unflatten(0, lr.shape[:2])  # type: ignore[no-untyped-call, no-any-return]

    def _describe(self, params: Params, lr: Tensor) -> Embeddings:
        own = {name.removeprefix(_ESTIMATOR): v for name, v in params.items() if name.startswith(_ESTIMATOR)}
        with self._arithmetic():
            distilled, modulating = functional_call(self._estimator, own, (lr,))
        return Embeddings(distilled.to(lr.dtype), modulating.to(lr.dtype))

    def _restore(self, params: Params, lr: Tensor, embedding: Tensor) -> Tensor:
        with self._arithmetic():
            restored: Tensor = functional_call(self.model, params, (lr,), {"embedding": embedding})
        return restored.to(lr.dtype)

    @property
    def _estimator(self) -> Estimator:
        if self.model.estimator is None:
            raise TypeError("a student without an estimator learns nothing from a teacher")
        return self.model.estimator

    def _arithmetic(self) -> Bfloat16 | nullcontext[None]:
        return Bfloat16() if self.precision == "bfloat16" else nullcontext()


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
