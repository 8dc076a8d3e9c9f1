"""Loss terms of teacher and student in addition to the error on internal pairs, each with its own weight."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from metarestore.learners.learner import restore
from metarestore.models.parameters import Layout, Params
from metarestore.models.refiner import Refiner
from metarestore.seeds import generator
from metarestore.zero_shot.blur import Blur
from metarestore.zero_shot.options import LossWeights
from metarestore.zero_shot.pairs import InternalPairs, cut, draw_crops


def preprocessing_term(model: Refiner, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean absolute error of the pre-processing module alone."""
    prepared: Tensor = functional_call(_Preprocessing(model), _prefixed(params), (inputs,))
    return F.l1_loss(prepared, targets)


class StudentTerms:
    """Computes the student's loss terms; the teacher restores the photograph only once.

    Args:
        model: The network.
        teacher: Weights of the teacher, (P,).
        pairs: Internal pairs, whose patch size, batch size and seed are also used for the photograph.
        lr: The photograph (1, 3, h, w).
        blur: The estimated degradation.
        confidence: Confidence of the kernel, by which the consistency is multiplied.
        weights: Weights of the terms.
        back_projections: Back-projections before the network.
    """

    def __init__(
        self,
        model: Refiner,
        teacher: Tensor,
        pairs: InternalPairs,
        lr: Tensor,
        blur: Blur,
        confidence: float,
        weights: LossWeights,
        back_projections: int,
    ) -> None:
        self._model, self._pairs, self._blur = model, pairs, blur
        self._teacher = Layout.of(model).unflatten(teacher)
        self._weights, self._consistency = weights, weights.consistency * confidence
        height, width = pairs.targets.shape[-2:]
        self._lr = lr[..., :height, :width]
        self._base = blur.sharpened(self._lr, back_projections) if self._needs_photograph else None
        self._label: Tensor | None = None
        if weights.pseudo_label and self._base is not None:
            with torch.no_grad():
                label = restore(model, self._teacher, self._base).clamp(0, 1)
                self._label = blur.back_project(label, self._lr, 2)

    @property
    def _needs_photograph(self) -> bool:
        return bool(self._consistency or self._weights.pseudo_label)

    def __call__(self, params: Params, step: int, inputs: Tensor) -> Tensor:
        """Computes the weighted sum of the terms.

        Args:
            params: Weights of the student.
            step: The step, from which the patches are drawn.
            inputs: Inputs of this step's internal pairs (B, 3, c, c).
        """
        total = inputs.new_zeros(())
        if self._weights.distillation:
            with torch.no_grad():
                target = restore(self._model, self._teacher, inputs)
            total = total + self._weights.distillation * F.l1_loss(restore(self._model, params, inputs), target)
        return total + self._on_photograph(params, step) if self._needs_photograph else total

    def _on_photograph(self, params: Params, step: int) -> Tensor:
        """Computes the terms on patches of the restored photograph, about as large as those of pairs, in HR pixels."""
        scale, patch = self._blur.scale, self._pairs.patch
        side = max(patch // scale, min(patch, 2 * self._blur.margin + 4))
        rng = generator(self._pairs.seed, "zero shot", "photograph", step)
        crops = draw_crops(rng, (self._lr.shape[-2], self._lr.shape[-1]), side, self._pairs.batch)
        if self._base is None:
            raise TypeError("terms on the photograph require the upscaled photograph")
        restored = restore(self._model, params, cut(self._base, crops, side, scale))
        total = restored.new_zeros(())
        margin = self._blur.margin
        if self._consistency and side > 2 * margin:
            inner = (..., slice(margin, -margin), slice(margin, -margin))
            gap = F.l1_loss(self._blur.degrade(restored)[inner], cut(self._lr, crops, side)[inner])
            total = total + self._consistency * gap
        if self._label is not None:
            total = total + self._weights.pseudo_label * F.l1_loss(restored, cut(self._label, crops, side, scale))
        return total


class _Preprocessing(torch.nn.Module):
    """Wraps a network so that calling it applies its pre-processing module only."""

    def __init__(self, model: Refiner) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.preprocess(images)


def _prefixed(params: Params) -> Params:
    return {f"model.{name}": value for name, value in params.items()}
