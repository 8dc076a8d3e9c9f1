"""Learners: each turns a task into a scalar loss of the parameters; nothing else tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad

from metarestore.config.experiment import FOMAML, MAML, Pretrain
from metarestore.models.parameters import Params
from metarestore.tasks.task import Task

LossName = Literal["l1", "mse"]


class Metrics(NamedTuple):
    """What a learner tells beside its loss; scalars, or (T,) for stacked tasks.

    Attributes:
        loss: The task loss.
        mse: Mean squared error of the query images, after the inner steps if there are any.
    """

    loss: Tensor
    mse: Tensor


def image_loss(name: LossName) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns the mean absolute or squared error between images of one shape."""
    return nn.functional.l1_loss if name == "l1" else nn.functional.mse_loss


def restore(model: nn.Module, params: Params, lr: Tensor) -> Tensor:
    """Restores LR (N, C, h, w) to (N, C, s·h, s·w) with the given parameters."""
    output: Tensor = functional_call(model, params, (lr,))
    return output


class Learner(Protocol):
    """A task loss."""

    def loss(self, params: Params, task: Task) -> tuple[Tensor, Metrics]:
        """Computes the loss of one task, differentiable with respect to `params`."""
        ...


@dataclass(frozen=True)
class PretrainLearner:
    """Pre-training: L(θ; S∪Q), the mean over all patches of a task."""

    model: nn.Module
    loss_name: LossName = "l1"

    def loss(self, params: Params, task: Task) -> tuple[Tensor, Metrics]:
        """Computes the loss of support and query together."""
        lr = torch.cat([task.support_lr, task.query_lr])
        hr = torch.cat([task.support_hr, task.query_hr])
        restored = restore(self.model, params, lr)
        loss = image_loss(self.loss_name)(restored, hr)
        mse = nn.functional.mse_loss(restored[len(task.support_lr) :], task.query_hr)
        return loss, Metrics(loss.detach(), mse.detach())


@dataclass(frozen=True)
class MAMLLearner:
    """Model-agnostic meta-learning: L(U^k(θ; S); Q), where U is one step of gradient descent.

    Args:
        model: The network.
        inner_steps: k, steps on the support set.
        inner_lr: Rate of an inner step.
        first_order: Whether inner gradients count as constants (FOMAML), which saves the double backward pass.
        loss_name: Image loss of both levels.

    Source: Finn, Abbeel, Levine, Model-Agnostic Meta-Learning (ICML 2017), eq. 1 and section 5.2.
    """

    model: nn.Module
    inner_steps: int = 1
    inner_lr: float = 1e-2
    first_order: bool = False
    loss_name: LossName = "l1"

    def loss(self, params: Params, task: Task) -> tuple[Tensor, Metrics]:
        """Computes the query loss at the adapted parameters."""
        adapted = params
        for _ in range(self.inner_steps):
            adapted = self._inner_step(adapted, task)
        restored = restore(self.model, adapted, task.query_lr)
        loss = image_loss(self.loss_name)(restored, task.query_hr)
        mse = nn.functional.mse_loss(restored.detach(), task.query_hr)
        return loss, Metrics(loss.detach(), mse)

    def _inner_step(self, params: Params, task: Task) -> Params:
        def support_loss(params: Params) -> Tensor:
            return image_loss(self.loss_name)(restore(self.model, params, task.support_lr), task.support_hr)

        gradient = grad(support_loss)(params)
        if self.first_order:
            gradient = {name: value.detach() for name, value in gradient.items()}
        return {name: value - self.inner_lr * gradient[name] for name, value in params.items()}


def build_learner(spec: Pretrain | MAML | FOMAML, model: nn.Module) -> PretrainLearner | MAMLLearner:
    """Builds the learner of an experiment."""
    if isinstance(spec, Pretrain):
        return PretrainLearner(model, spec.loss)
    return MAMLLearner(model, spec.inner_steps, spec.inner_lr, isinstance(spec, FOMAML), spec.loss)


def psnr_of_mse(mse: ArrayLike) -> NDArray[np.float64]:
    """Converts mean squared errors of images in [0, 1] to PSNR in dB."""
    return np.asarray(-10.0 * np.log10(np.asarray(mse, np.float64)))
