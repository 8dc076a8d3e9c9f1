"""Learners: each turns a task into a scalar loss of the parameters; nothing else tells them apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad

from metarestore.config.learner import LossName, MultiStep
from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.losses import EPS, image_loss, norm_factor
from metarestore.learners.multi_step import step_weights
from metarestore.models.parameters import Layout, Params
from metarestore.tasks.task import Task

Precision = Literal["float32", "bfloat16"]


class Metrics(NamedTuple):
    """What a learner tells beside its loss; scalars, or (T,) for stacked tasks.

    Attributes:
        loss: The task loss.
        mse: Mean squared error of the query images, after the inner steps if there are any.
    """

    loss: Tensor
    mse: Tensor


def restore(model: nn.Module, params: Params, lr: Tensor, precision: Precision = "float32") -> Tensor:
    """Restores LR (N, C, h, w) to (N, C, s·h, s·w), float32, with the given parameters; bfloat16 is autocast."""
    if precision == "float32":
        output: Tensor = functional_call(model, params, (lr,))
        return output
    # The cache of autocast keeps casts of leaf parameters, which must not outlive a level of differentiation.
    with torch.autocast(lr.device.type, dtype=torch.bfloat16, cache_enabled=False):
        output = functional_call(model, params, (lr,))
    return output.float()


class Learner(ABC):
    """A task loss.

    Attributes:
        model: The network.
        precision: Arithmetic of the network.
    """

    model: nn.Module
    precision: Precision

    @abstractmethod
    def loss(self, params: Params, task: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the loss of one task, differentiable with respect to `params`.

        Args:
            params: Parameters of the network, and what else is learned, by name.
            task: One task.
            step: The outer step, which a loss may change with.
        """

    @property
    @abstractmethod
    def inner_rule(self) -> InnerRule:
        """How a step on a support set is taken."""

    def gradient(self, params: Params, task: Task, step: int = 0) -> tuple[Params, Metrics]:
        """Computes what the outer optimizer steps against: the gradient of the loss."""

        def loss(params: Params) -> tuple[Tensor, Metrics]:
            return self.loss(params, task, step)

        gradient, metrics = grad(loss, has_aux=True)(params)
        return gradient, metrics

    def layout(self, network: Layout) -> Layout:
        """Returns names and shapes of all that is learned: the network's parameters first, in their order."""
        return network

    def initial(self, network: Tensor) -> Tensor:
        """Returns the initial vector of all that is learned, given that of the network (P,)."""
        return network

    def adapting(self, network: Layout, flat: Tensor) -> InnerRule:
        """Returns how to adapt to shots from all that was learned."""
        return self.inner_rule

    def restore(self, params: Params, lr: Tensor) -> Tensor:
        """Restores LR images with the learner's network."""
        return restore(self.model, params, lr, self.precision)


@dataclass(frozen=True)
class PretrainLearner(Learner):
    """Pre-training: L(θ; S∪Q), the mean over all patches of a task."""

    model: nn.Module
    loss_name: LossName = "l1"
    eps: float = EPS
    precision: Precision = "float32"

    @property
    def inner_rule(self) -> InnerRule:
        """Adapts with the loss of training."""
        return InnerRule(self.loss_name, self.eps)

    def loss(self, params: Params, task: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the loss of support and query together."""
        lr = torch.cat([task.support_lr, task.query_lr])
        hr = torch.cat([task.support_hr, task.query_hr])
        restored = self.restore(params, lr)
        loss = image_loss(self.loss_name, self.eps)(restored, hr)
        mse = nn.functional.mse_loss(restored[len(task.support_lr) :], task.query_hr)
        return loss, Metrics(loss.detach(), mse.detach())


@dataclass(frozen=True)
class MAMLLearner(Learner):
    """Model-agnostic meta-learning: L(U^k(θ; S); Q), where U is one step of gradient descent.

    Args:
        model: The network.
        inner_steps: k, steps on the support set.
        inner_lr: Rate of an inner step.
        first_order: Whether inner gradients count as constants (FOMAML), which saves the double backward pass.
        loss_name: Image loss of the outer level.
        inner_loss: Image loss of the inner level, if it is another one.
        eps: ε of Charbonnier losses.
        clip: Largest norm of an inner gradient.
        multi_step: Weights of the query losses after each inner step; None counts the last alone.
        adapts: Names of the parameters that adapt (ANIL); None for all.
        precision: Arithmetic of the network.

    Source: Finn, Abbeel, Levine, Model-Agnostic Meta-Learning (ICML 2017), eq. 1 and section 5.2; with `adapts`, Raghu
    et al., Rapid Learning or Feature Reuse? (ICLR 2020), section 4; with `multi_step`, Antoniou et al., How to train
    your MAML (ICLR 2019), eq. 4.
    """

    model: nn.Module
    inner_steps: int = 1
    inner_lr: float = 1e-2
    first_order: bool = False
    loss_name: LossName = "l1"
    inner_loss: LossName | None = None
    eps: float = EPS
    clip: float | None = None
    multi_step: MultiStep | None = None
    adapts: frozenset[str] | None = None
    precision: Precision = "float32"

    @property
    def inner_rule(self) -> InnerRule:
        """Adapts as the inner loop does."""
        return InnerRule(self.inner_loss or self.loss_name, self.eps, self.clip)

    def adapting(self, network: Layout, flat: Tensor) -> InnerRule:
        """Adapts to shots what adapts in the inner loop."""
        if self.adapts is None:
            return self.inner_rule
        ones = {name: torch.full(shape, float(name in self.adapts)) for name, shape in network.entries}
        return InnerRule(self.inner_rule.loss_name, self.eps, self.clip, network.flatten(ones).to(flat))

    def loss(self, params: Params, task: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the query loss at the adapted parameters, or its weighted sum over the inner steps."""
        loss_of = image_loss(self.loss_name, self.eps)
        adapted, losses = self._network(params), []
        weights = step_weights(self.multi_step, self.inner_steps, step)
        for number, weight in enumerate(weights, start=1):
            adapted = self.inner_step(adapted, params, task.support_lr, task.support_hr)
            if weight or number == len(weights):
                restored = self.restore(adapted, task.query_lr)
                losses.append(weight * loss_of(restored, task.query_hr))
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        mse = nn.functional.mse_loss(restored.detach(), task.query_hr)
        return loss, Metrics(loss.detach(), mse)

    def inner_step(self, adapted: Params, params: Params, lr: Tensor, hr: Tensor) -> Params:
        """Takes one step on images from the network's parameters `adapted`; `params` is all that is learned."""
        gradient = self.inner_gradient(adapted, lr, hr)
        moved = {name: adapted[name] - self._rate(params, name) * value for name, value in gradient.items()}
        return moved if self.adapts is None else {**adapted, **moved}

    def inner_gradient(self, network: Params, lr: Tensor, hr: Tensor) -> Params:
        """Computes the clipped gradient of the inner loss with respect to the parameters that adapt."""
        moving = {name: value for name, value in network.items() if self.adapts is None or name in self.adapts}

        def inner_loss(moving: Params) -> Tensor:
            restored = self.restore({**network, **moving}, lr)
            return image_loss(self.inner_loss or self.loss_name, self.eps)(restored, hr)

        gradient: Params = grad(inner_loss)(moving)
        if self.clip is not None:
            factor = norm_factor(gradient.values(), self.clip)
            gradient = {name: factor * value for name, value in gradient.items()}
        return {name: value.detach() for name, value in gradient.items()} if self.first_order else gradient

    def _network(self, params: Params) -> Params:
        """Returns the network's share of what is learned."""
        return params

    def _rate(self, params: Params, name: str) -> float | Tensor:
        """Returns the inner rate of a parameter."""
        return self.inner_lr


def psnr_of_mse(mse: ArrayLike) -> NDArray[np.float64]:
    """Converts mean squared errors of images in [0, 1] to PSNR in dB."""
    return np.asarray(-10.0 * np.log10(np.asarray(mse, np.float64)))
