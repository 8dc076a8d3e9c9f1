"""Pre-training with losses of KDSR's degradation embeddings beside the image loss."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metarestore.config.learner import DistillSpec, FinetuneSpec, PretrainSpec
from metarestore.learners.contrast import contrastive_losses
from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.learner import Learner, Metrics, Precision, all_patches, each, squared_errors
from metarestore.learners.precision import Bfloat16
from metarestore.models.kdsr import KDSR, Embeddings, Encoder
from metarestore.models.parameters import Params
from metarestore.tasks.task import Task

ENCODER = "estimator."
"""Prefix of the names of the encoder's parameters; all others belong to the restorer."""

Terms = Mapping[str, tuple[float, Tensor]]
"""Weight and losses (T,) of each term of the embeddings, by the name that it is logged under."""


@dataclass(frozen=True)
class EmbeddingLearner(Learner):
    """Pre-training with additional losses of the embeddings: L(θ; S∪Q) + Σ weight · term.

    A contrastive loss depends on several tasks: each task's row of the parameters then has the gradient of the sum of
    all losses.

    Args:
        spec: Image loss; contrastive loss between tasks, or None; number of initial outer steps in which only the
            encoder is trained, with the losses of the embeddings. The contrastive loss acts on D′, not on D, so that
            the image loss determines which information modulates the restorer.
        model: KDSR with an encoder.
        precision: Arithmetic of the network.
    """

    spec: PretrainSpec | FinetuneSpec | DistillSpec
    model: KDSR
    precision: Precision = "float32"

    @property
    def inner_rule(self) -> InnerRule:
        """Adapts with the image loss only, because the shots are a single task without a teacher."""
        return InnerRule(self.spec.loss, self.spec.charbonnier_eps)

    def losses(self, params: Params, tasks: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the losses of support and query together."""
        lr, hr = all_patches(tasks)
        embeddings = each(self._describe, params, self.model.encoder_input(lr, hr))
        terms = self.terms(embeddings, lr, hr)
        losses = sum((weight * term for weight, term in terms.values()), start=lr.new_zeros(len(lr)))
        warmup = step < self.spec.warmup_steps
        with torch.no_grad() if warmup else nullcontext():  # during warm-up, images are only restored for the log
            restored = each(self._restore, params, lr, embeddings.modulating)
            errors = self.image_losses(restored, hr)
        losses = losses if warmup else losses + errors
        mse = squared_errors(restored[:, tasks.support_lr.shape[1] :], tasks.query_hr)
        return losses, Metrics(losses.detach(), mse, {name: term.detach() for name, (_, term) in terms.items()})

    def terms(self, embeddings: Embeddings, lr: Tensor, hr: Tensor) -> Terms:
        """Computes the losses of the embeddings of images (T, N, ...)."""
        contrast = self.spec.contrast
        if contrast is None:
            return {}
        return {"contrast": (contrast.weight, contrastive_losses(embeddings.distilled, contrast.temperature))}

    def _describe(self, params: Params, inputs: Tensor) -> Embeddings:
        own = {name.removeprefix(ENCODER): v for name, v in params.items() if name.startswith(ENCODER)}
        with self._arithmetic():
            distilled, modulating = functional_call(self._encoder, own, (inputs,))
        return Embeddings(distilled.to(inputs.dtype), modulating.to(inputs.dtype))

    def _restore(self, params: Params, lr: Tensor, embedding: Tensor) -> Tensor:
        with self._arithmetic():
            shared = self.model.shared(embedding)
            restored: Tensor = functional_call(self.model, params, (lr,), {"embedding": shared})
        return restored.to(lr.dtype)

    @property
    def _encoder(self) -> Encoder:
        if self.model.estimator is None:
            raise TypeError("losses of embeddings need a network with a degradation encoder")
        return self.model.estimator

    def _arithmetic(self) -> Bfloat16 | nullcontext[None]:
        return Bfloat16() if self.precision == "bfloat16" else nullcontext()


def require_encoder(model: nn.Module) -> KDSR:
    """Returns the network if it has a degradation encoder.

    Raises:
        TypeError: It has no encoder.
    """
    if not isinstance(model, KDSR) or model.estimator is None:
        raise TypeError("losses of embeddings need a network with a degradation encoder")
    return model
