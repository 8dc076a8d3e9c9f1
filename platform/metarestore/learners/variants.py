"""Relatives of MAML that learn more than the network, or step along more than a gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.learner import MAMLLearner, Metrics, all_patches
from metarestore.models.parameters import Layout, Params
from metarestore.tasks.task import Task

RATE = "inner_rate."
"""Prefix of the name of a learned rate; the rest is the name of its parameter."""


@dataclass(frozen=True)
class MetaSGDLearner(MAMLLearner):
    """Meta-SGD: L(θ − α∘∇L(θ; S); Q), where the rates α, one for each parameter, are learned beside θ.

    The rates follow the network in the vector of all that is learned, (2P,). As published they are free: one that turns
    negative climbs. They start at `inner_lr`.

    Source: Li, Zhou, Chen, Li, Meta-SGD: Learning to Learn Quickly for Few-Shot Learning (2017), eq. 3.
    """

    def layout(self, network: Layout) -> Layout:
        """Returns the layout of parameters and rates."""
        return Layout((*network.entries, *((RATE + name, shape) for name, shape in network.entries)))

    def initial(self, network: Tensor) -> Tensor:
        """Returns the network's parameters (P,) with equal rates behind them, (2P,)."""
        return torch.cat([network, torch.full_like(network, self.spec.inner_lr)])

    def adapting(self, network: Layout, flat: Tensor) -> InnerRule:
        """Adapts to shots with the learned rates."""
        return replace(self.inner_rule, rates=flat[network.size :])

    def inner_rates(self, network: Layout, flat: Tensor) -> Params:
        """Returns the learned rates, by the names of the network's parameters."""
        return network.unflatten(flat[network.size :])

    def _network(self, params: Params) -> Params:
        return {name: value for name, value in params.items() if not name.startswith(RATE)}

    def _rate(self, params: Params, name: str) -> float | Tensor:
        return params[RATE + name]


@dataclass(frozen=True)
class ReptileLearner(MAMLLearner):
    """Reptile: a task's 'gradient' is the way back from where training on it leads, θ − U^k(θ; S∪Q).

    All patches of a task are learned from in every inner step; the figures are those of the same patches afterwards. An
    outer SGD of rate ε is the published update with step size ε, averaged over the tasks of a step.

    Source: Nichol, Achiam, Schulman, On First-Order Meta-Learning Algorithms (2018), section 3 (batched version).
    """

    def gradients(self, params: Params, tasks: Task, step: int = 0) -> tuple[Params, Metrics]:
        """Computes θ − U^k(θ; S∪Q) as the sum of its steps: a difference of parameters would lose their last digits."""
        lr, hr = all_patches(tasks)
        way = {name: torch.zeros_like(value) for name, value in params.items()}
        adapted = params
        for _ in range(self.spec.inner_steps):
            for name, value in self.inner_gradient(adapted, lr, hr).items():
                way[name] = way[name] + self.spec.inner_lr * value
            adapted = {name: value - way[name] for name, value in params.items()}
        with torch.no_grad():
            return way, self.losses(adapted, tasks, step)[1]

    def losses(self, params: Params, tasks: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the losses of all patches as the parameters are; only reported."""
        return self.pooled_losses(params, tasks)
