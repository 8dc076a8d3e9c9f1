"""Learners: each defines the scalar loss of a task as a function of the parameters.

A learner computes T stacked tasks at once: every tensor, including the parameters, has T as its first dimension, so
each task has its own parameters. The gradient of the sum of the losses then consists of the task gradients. Forward
passes are vectorised with `vmap`; derivatives are computed by autograd outside of it: measured on FSRCNN, this is 1.1
to 1.25 times as fast as `vmap(grad)`, whose nested levels add overhead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils import _pytree as pytree

from metarestore.config.learner import (
    ANILSpec,
    BaseLearnerSpec,
    FinetuneSpec,
    FOMAMLSpec,
    MAMLSpec,
    MetaSGDSpec,
    MultiStepSpec,
    PretrainSpec,
    ReptileSpec,
)
from metarestore.decibels import decibels
from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.losses import image_losses, norm_factors
from metarestore.learners.multi_step import step_weights
from metarestore.learners.precision import Bfloat16
from metarestore.models.network import Network, collected_features
from metarestore.models.parameters import Layout, Params
from metarestore.tasks.task import Task

_Result = TypeVar("_Result")
Precision = Literal["float32", "bfloat16"]


class Metrics(NamedTuple):
    """Metrics that a learner computes beside its losses; (T,), detached.

    Attributes:
        loss: The task losses.
        mse: Mean squared error of the query images, after the inner steps if there are any.
        terms: Logged terms of the losses, by name.
    """

    loss: Tensor
    mse: Tensor
    terms: Mapping[str, Tensor] = MappingProxyType({})


def restore(
    model: nn.Module, params: Params, lr: Tensor, precision: Precision = "float32", *, hr: Tensor | None = None
) -> Tensor:
    """Restores LR (N, C, h, w) to (N, C, s·h, s·w) of the same dtype, with the given parameters.

    Args:
        model: The network.
        params: Its parameters.
        lr: LR images.
        precision: Arithmetic of the network.
        hr: The HR images, passed only to a network that needs them (a teacher).
    """
    inputs = (lr, hr) if getattr(model, "privileged", False) else (lr,)
    with Bfloat16() if precision == "bfloat16" else nullcontext():
        output: Tensor = functional_call(model, params, inputs)
    return output.to(lr.dtype)


def restore_with_features(
    model: Network,
    params: Params,
    lr: Tensor,
    names: Sequence[str],
    precision: Precision = "float32",
    *,
    hr: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Restores LR as `restore` does, and also returns named features of the network, (N, channels, ...).

    Args:
        model: The network.
        params: Its parameters.
        lr: LR images (N, C, h, w).
        names: Names of the features, a subset of the network's `feature_layers`.
        precision: Arithmetic of the network.
        hr: The HR images, for a teacher.
    """
    with collected_features(model, names) as features:
        restored = restore(model, params, lr, precision, hr=hr)
    return restored, {name: features[name].to(lr.dtype) for name in names}


def each(function: Callable[..., _Result], *inputs: Any) -> _Result:
    """Applies a function to each of T tasks; all inputs and results have T as their first dimension.

    A single task is computed without `vmap`, whose grouped convolutions are slower than ordinary ones.
    """
    count = len(pytree.tree_leaves(inputs)[0])
    if count > 1:
        results: _Result = vmap(function)(*inputs)
        return results
    single = function(*pytree.tree_map(lambda tensor: tensor[0], inputs))
    stacked: _Result = pytree.tree_map(lambda tensor: tensor[None], single)
    return stacked


class Learner(ABC):
    """A task loss.

    Attributes:
        spec: Its specification in the experiment.
        model: The network.
        precision: Arithmetic of the network.
    """

    spec: BaseLearnerSpec
    model: nn.Module
    precision: Precision

    @abstractmethod
    def losses(self, params: Params, tasks: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the losses (T,) of tasks, each differentiable with respect to its own row of `params`.

        Args:
            params: Parameters of the network and other learned parameters, by name, with a leading dimension T.
            tasks: T stacked tasks.
            step: The outer step, which a loss may depend on.
        """

    @property
    @abstractmethod
    def inner_rule(self) -> InnerRule:
        """The settings of a step on a support set."""

    def gradients(self, params: Params, tasks: Task, step: int = 0) -> tuple[Params, Metrics]:
        """Computes the outer gradient of each task: by default the gradient of its loss."""
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        with torch.enable_grad():
            losses, metrics = self.losses(leaves, tasks, step)
        return per_task_gradients(losses, leaves), metrics

    def part(self, chosen: slice) -> Self:
        """Returns the learner for a slice of the tasks, if it has per-task settings."""
        return self

    def layout(self, network: Layout) -> Layout:
        """Returns names and shapes of all learned parameters: the network's parameters first, in their order."""
        return network

    def initial(self, network: Tensor) -> Tensor:
        """Returns the initial vector of all learned parameters, given that of the network (P,)."""
        return network

    def adapting(self, network: Layout, flat: Tensor) -> InnerRule:
        """Returns the settings for adaptation to shots, given all learned parameters."""
        return self.inner_rule

    def inner_rates(self, network: Layout, flat: Tensor) -> Params:
        """Returns the learned rates of the network's parameters by name; empty if none are learned."""
        return {}

    def image_losses(self, restored: Tensor, hr: Tensor) -> Tensor:
        """Computes the losses of restored images (T, ...), (T,)."""
        return image_losses(self.spec.loss, self.spec.charbonnier_eps)(restored, hr)

    def pooled_losses(self, params: Params, tasks: Task) -> tuple[Tensor, Metrics]:
        """Computes the losses of support and query together, without inner steps."""
        lr, hr = all_patches(tasks)
        restored = self.restore(params, lr, hr)
        losses = self.image_losses(restored, hr)
        mse = squared_errors(restored[:, tasks.support_lr.shape[1] :], tasks.query_hr)
        return losses, Metrics(losses.detach(), mse)

    def restore(self, params: Params, lr: Tensor, hr: Tensor | None = None) -> Tensor:
        """Restores LR images of T tasks, (T, N, C, h, w), with the learner's network; a teacher also needs HR."""
        given = (params, lr) if hr is None else (params, lr, hr)

        def restore_one(params: Params, lr: Tensor, hr: Tensor | None = None) -> Tensor:
            return restore(self.model, params, lr, self.precision, hr=hr)

        return each(restore_one, *given)

    def restore_with_features(
        self, params: Params, lr: Tensor, names: Sequence[str], hr: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Restores as `restore` does, and also returns named features of the network, (T, N, channels, ...).

        Raises:
            TypeError: The network is a module without named features.
        """
        model, given = self.model, (params, lr) if hr is None else (params, lr, hr)
        if not isinstance(model, Network):
            raise TypeError("only a Network has named features")

        def restore_one(params: Params, lr: Tensor, hr: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
            return restore_with_features(model, params, lr, names, self.precision, hr=hr)

        return each(restore_one, *given)


@dataclass(frozen=True)
class PretrainLearner(Learner):
    """Pre-training: L(θ; S∪Q), the mean loss over all patches of a task."""

    spec: PretrainSpec | FinetuneSpec
    model: nn.Module
    precision: Precision = "float32"

    @property
    def inner_rule(self) -> InnerRule:
        """Adapts with the training loss."""
        return InnerRule(self.spec.loss, self.spec.charbonnier_eps)

    def losses(self, params: Params, tasks: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the losses of support and query together."""
        return self.pooled_losses(params, tasks)


@dataclass(frozen=True)
class MAMLLearner(Learner):
    """Model-agnostic meta-learning: L(U^k(θ; S); Q), where U is one step of gradient descent.

    Args:
        spec: Number k, learning rate, loss and clipping of the inner steps; whether inner gradients are treated as
            constants (FOMAML), which saves the double backward pass; weights of the query losses after each inner step.
        model: The network.
        precision: Arithmetic of the network.
        adapts: Names of the parameters that are adapted (ANIL); None for all.
        rate_factors: Factor on the inner learning rate of each of the T tasks, (T,); None means 1.

    Source: Finn, Abbeel, Levine, Model-Agnostic Meta-Learning (ICML 2017), eq. 1 and section 5.2; with `adapts`, Raghu
    et al., Rapid Learning or Feature Reuse? (ICLR 2020), section 4; with `multi_step`, Antoniou et al., How to train
    your MAML (ICLR 2019), eq. 4.
    """

    spec: MAMLSpec | FOMAMLSpec | ANILSpec | MetaSGDSpec | ReptileSpec
    model: nn.Module
    precision: Precision = "float32"
    adapts: frozenset[str] | None = None
    rate_factors: Tensor | None = None

    @property
    def inner_rule(self) -> InnerRule:
        """The settings of the inner loop."""
        spec = self.spec
        return InnerRule(spec.inner_loss or spec.loss, spec.charbonnier_eps, spec.inner_clip)

    def adapting(self, network: Layout, flat: Tensor) -> InnerRule:
        """Restricts adaptation to the parameters that the inner loop adapts."""
        if self.adapts is None:
            return self.inner_rule
        ones = {name: torch.full(shape, float(name in self.adapts)) for name, shape in network.entries}
        return replace(self.inner_rule, mask=network.flatten(ones).to(flat))

    @property
    def multi_step(self) -> MultiStepSpec | None:
        """Weights of the query losses after each inner step; None uses only the last."""
        return None if isinstance(self.spec, ReptileSpec) else self.spec.multi_step

    def losses(self, params: Params, tasks: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the query losses at the adapted parameters, or their weighted sum over the inner steps."""
        adapted, losses = self._network(params), []
        weights = step_weights(self.multi_step, self.spec.inner_steps, step)
        for number, weight in enumerate(weights, start=1):
            adapted = self.inner_step(adapted, params, tasks.support_lr, tasks.support_hr)
            if weight or number == len(weights):
                restored = self.restore(adapted, tasks.query_lr)
                losses.append(weight * self.image_losses(restored, tasks.query_hr))
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum(dim=0)
        return loss, Metrics(loss.detach(), squared_errors(restored, tasks.query_hr))

    def inner_step(self, adapted: Params, params: Params, lr: Tensor, hr: Tensor) -> Params:
        """Takes one step on images from the network's parameters `adapted`; `params` are all learned parameters."""
        gradient = self.inner_gradient(adapted, lr, hr)
        moved = {name: adapted[name] - self._rate(params, name) * value for name, value in gradient.items()}
        return moved if self.adapts is None else {**adapted, **moved}

    def inner_gradient(self, network: Params, lr: Tensor, hr: Tensor) -> Params:
        """Computes the clipped gradient of the inner loss with respect to the adapted parameters."""
        moving = {name: value for name, value in network.items() if self.adapts is None or name in self.adapts}
        first_order, rule = self.spec.first_order, self.inner_rule
        if first_order or not all(value.requires_grad for value in moving.values()):
            moving = {name: value.detach().requires_grad_() for name, value in moving.items()}
        with torch.enable_grad():
            restored = self.restore({**network, **moving}, lr)
            losses = image_losses(rule.loss_name, rule.eps)(restored, hr)
        gradient = per_task_gradients(losses, moving, differentiable=not first_order)
        if rule.clip is not None and gradient:
            gradient = _scaled(gradient, norm_factors(gradient.values(), rule.clip))
        return gradient if self.rate_factors is None else _scaled(gradient, self.rate_factors)

    def part(self, chosen: slice) -> Self:
        """Returns the learner for a slice of the tasks."""
        return self if self.rate_factors is None else replace(self, rate_factors=self.rate_factors[chosen])

    def _network(self, params: Params) -> Params:
        """Returns the network's parameters among all learned parameters."""
        return params

    def _rate(self, params: Params, name: str) -> float | Tensor:
        """Returns the inner learning rate of a parameter."""
        return self.spec.inner_lr


def _scaled(params: Params, factors: Tensor) -> Params:
    """Scales the parameters of each of T tasks by its factor, (T,)."""
    return {name: per_task(factors, value) * value for name, value in params.items()}


def all_patches(tasks: Task) -> tuple[Tensor, Tensor]:
    """Returns LR and HR of support and query of each task, (T, K + Q, ...)."""
    lr, hr = (tasks.support_lr, tasks.query_lr), (tasks.support_hr, tasks.query_hr)
    return torch.cat(lr, dim=1), torch.cat(hr, dim=1)


def per_task_gradients(losses: Tensor, params: Params, *, differentiable: bool = False) -> Params:
    """Computes the gradient of each of the losses (T,) with respect to its own row of parameters (T, ...)."""
    if not params:
        return {}
    # Parameters that a loss does not depend on have the gradient 0.
    gradients = torch.autograd.grad(
        losses.sum(), list(params.values()), create_graph=differentiable, materialize_grads=True
    )
    return dict(zip(params, gradients, strict=True))


def squared_errors(restored: Tensor, hr: Tensor) -> Tensor:
    """Returns the mean squared error of each task's images, (T,), detached."""
    return (restored.detach() - hr).square().flatten(1).mean(dim=1)


def per_task(factors: Tensor, like: Tensor) -> Tensor:
    """Views factors (T,) so that they broadcast to tensors (T, ...)."""
    return factors.view(-1, *(1,) * (like.dim() - 1))


def psnr_of_mse(mse: ArrayLike) -> NDArray[np.float64]:
    """Converts mean squared errors of images in [0, 1] to PSNR in dB, see `decibels`."""
    return decibels(mse)
