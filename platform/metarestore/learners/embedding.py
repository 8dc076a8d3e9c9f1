"""Learning with more than the restored images: losses of what the estimator of KDSR says."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metarestore.config.learner import Distill, Finetune, Pretrain
from metarestore.learners.contrast import contrastive_losses
from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.learner import Learner, Metrics, Precision, all_patches, each, squared_errors
from metarestore.learners.precision import Bfloat16
from metarestore.models.kdsr import KDSR, Embeddings
from metarestore.models.parameters import Params
from metarestore.tasks.task import Task

ESTIMATOR = "estimator."
"""Prefix of the names of the estimator's parameters; all others are the restorer's."""

Terms = Mapping[str, tuple[float, Tensor]]
"""Losses (T,) of the embeddings with their weights, by the name they are logged under."""


@dataclass(frozen=True)
class EmbeddingLearner(Learner):
    """Pre-training with losses of the embeddings beside that of the images: L(θ; S∪Q) + Σ weight · term.

    A contrast is between tasks: a task's loss then depends on the descriptors of the others, and the row of its
    parameters has the slope of the sum of all losses.

    Args:
        spec: Image loss; contrast between tasks, or None; outer steps at first in which the estimator alone learns,
            from the losses of the embeddings. The contrast is of D′, not of D: how much of what the estimator knows
            modulates the restorer is left to the images.
        model: KDSR with an estimator.
        precision: Arithmetic of the network.
    """

    spec: Pretrain | Finetune | Distill
    model: KDSR
    precision: Precision = "float32"

    @property
    def inner_rule(self) -> InnerRule:
        """Adapts with the image loss: the shots are one task, and nothing else is known of them."""
        return InnerRule(self.spec.loss, self.spec.charbonnier_eps)

    def losses(self, params: Params, tasks: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the losses of support and query together."""
        lr, hr = all_patches(tasks)
        said = each(self._describe, params, self.model.encoder_input(lr, hr))
        terms = self.terms(said, lr, hr)
        losses = sum((weight * term for weight, term in terms.values()), start=lr.new_zeros(len(lr)))
        alone = step < self.spec.warmup_steps
        with torch.no_grad() if alone else nullcontext():  # then images are restored for the log alone
            restored = each(self._restore, params, lr, said.modulating)
            errors = self.image_losses(restored, hr)
        losses = losses if alone else losses + errors
        mse = squared_errors(restored[:, tasks.support_lr.shape[1] :], tasks.query_hr)
        return losses, Metrics(losses.detach(), mse, {name: term.detach() for name, (_, term) in terms.items()})

    def terms(self, said: Embeddings, lr: Tensor, hr: Tensor) -> Terms:
        """Computes the losses of the embeddings of images (T, N, ...)."""
        contrast = self.spec.contrast
        if contrast is None:
            return {}
        return {"contrast": (contrast.weight, contrastive_losses(said.distilled, contrast.temperature))}

    def _describe(self, params: Params, seen: Tensor) -> Embeddings:
        own = {name.removeprefix(ESTIMATOR): v for name, v in params.items() if name.startswith(ESTIMATOR)}
        with self._arithmetic():
            distilled, modulating = functional_call(self._estimator, own, (seen,))
        return Embeddings(distilled.to(seen.dtype), modulating.to(seen.dtype))

    def _restore(self, params: Params, lr: Tensor, embedding: Tensor) -> Tensor:
        with self._arithmetic():
            shared = self.model.shared(embedding)
            restored: Tensor = functional_call(self.model, params, (lr,), {"embedding": shared})
        return restored.to(lr.dtype)

    @property
    def _estimator(self) -> Estimator:
        if self.model.estimator is None:
            raise TypeError("without an estimator there are no embeddings to learn from")
        return self.model.estimator

    def _arithmetic(self) -> Bfloat16 | nullcontext[None]:
        return Bfloat16() if self.precision == "bfloat16" else nullcontext()


def require_encoder(model: nn.Module) -> KDSR:
    """Returns the network if it has an estimator of the degradation.

    Raises:
        TypeError: It has none.
    """
    if not isinstance(model, KDSR) or model.estimator is None:
        raise TypeError("losses of embeddings need a network with an estimator")
    return model
