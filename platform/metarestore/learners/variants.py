"""Variants of MAML: learned inner rates (Meta-SGD), and outer steps along inner displacements (Reptile)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.learner import MAMLLearner, Metrics, all_patches
from metarestore.models.parameters import Layout, Params
from metarestore.tasks.task import Task

RATE = "inner_rate."
"""Prefix of the name of a learned rate, followed by the name of its parameter."""


@dataclass(frozen=True)
class MetaSGDLearner(MAMLLearner):
    """Meta-SGD: L(θ − α∘∇L(θ; S); Q), where the rates α, one for each parameter, are learned together with θ.

    The rates follow the network's parameters in the vector of all learned parameters, (2P,). As published, they are
    unconstrained and may become negative. They are initialised with `inner_lr`.

    Source: Li, Zhou, Chen, Li, Meta-SGD: Learning to Learn Quickly for Few-Shot Learning (2017), eq. 3.
    """

    def layout(self, network: Layout) -> Layout:
        """Returns the layout of parameters and rates."""
        return Layout((*network.entries, *((RATE + name, shape) for name, shape in network.entries)))

    def initial(self, network: Tensor) -> Tensor:
        """Returns the network's parameters (P,) followed by equal rates, (2P,)."""
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
    """Reptile: a task's 'gradient' is the negative displacement by k inner steps, θ − U^k(θ; S∪Q).

    Every inner step uses all patches of a task; the metrics are those of the same patches after the inner steps. Outer
    SGD with learning rate ε is the published update with step size ε, averaged over the tasks of a step.

    Source: Nichol, Achiam, Schulman, On First-Order Meta-Learning Algorithms (2018), section 3 (batched version).
    """

    def gradients(self, params: Params, tasks: Task, step: int = 0) -> tuple[Params, Metrics]:
        """Computes θ − U^k(θ; S∪Q) as the sum of the steps: a difference of parameters would lose precision."""
        lr, hr = all_patches(tasks)
        displacement = {name: torch.zeros_like(value) for name, value in params.items()}
        adapted = params
        for _ in range(self.spec.inner_steps):
            for name, value in self.inner_gradient(adapted, lr, hr).items():
                displacement[name] = displacement[name] + self.spec.inner_lr * value
            adapted = {name: value - displacement[name] for name, value in params.items()}
        with torch.no_grad():
            return displacement, self.losses(adapted, tasks, step)[1]

    def losses(self, params: Params, tasks: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the losses of all patches at the given parameters; only reported."""
        return self.pooled_losses(params, tasks)
