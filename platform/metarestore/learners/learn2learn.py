"""The reference backend: task gradients computed with learn2learn's `clone` and `adapt`.

This is the only module that imports learn2learn. The `__init__` of version 0.2.0 imports its vision, text and
reinforcement-learning parts, which need torchvision and gym, while `learn2learn.algorithms.maml` and `.meta_sgd` only
need torch. If the normal import fails, the packages are registered without running their `__init__`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from metarestore.errors import UserError
from metarestore.learners.gradients import TaskGradients
from metarestore.learners.learner import MAMLLearner, Metrics, PretrainLearner
from metarestore.learners.losses import image_loss
from metarestore.learners.multi_step import step_weights
from metarestore.learners.variants import RATE, MetaSGDLearner, ReptileLearner
from metarestore.models.parameters import Layout
from metarestore.tasks.task import Task

INSTALL = 'pip install --no-deps "learn2learn==0.2.0" --config-settings=--build-option=build_ext'


def _register_without_init(name: str) -> None:
    """Adds a package to `sys.modules` without running its `__init__`, so that its submodules can be imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise UserError(f"learn2learn is not installed; install it with: {INSTALL}")
    package = ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules[name] = package


def _module(name: str) -> Any:
    """Imports a module of `learn2learn.algorithms`.

    Raises:
        UserError: learn2learn is not installed.
    """
    if importlib.util.find_spec("learn2learn") is None:
        raise UserError(f"learn2learn is not installed; install it with: {INSTALL}")
    try:
        return importlib.import_module(f"learn2learn.algorithms.{name}")
    except ImportError:
        for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == "learn2learn"]:
            del sys.modules[loaded]
        _register_without_init("learn2learn")
        _register_without_init("learn2learn.algorithms")
        return importlib.import_module(f"learn2learn.algorithms.{name}")


def maml_class() -> Any:
    """Returns `learn2learn.algorithms.MAML`.

    Raises:
        UserError: learn2learn is not installed.
    """
    return _module("maml").MAML


def reference_gradients(
    learner: PretrainLearner | MAMLLearner, layout: Layout, flat: Tensor, tasks: Task, step: int = 0
) -> TaskGradients:
    """Computes the same gradients as `vectorised_gradients`, one task at a time, with learn2learn.

    Args:
        learner: The learner, which defines the task loss; its network is used as a module.
        layout: Names and shapes of all learned parameters.
        flat: Parameters, (P,).
        tasks: Tensors with a leading dimension T.
        step: The outer step.
    """
    rates = _load(learner.model, layout, flat)
    wrapped = _wrapped(learner, rates)
    leaves = {**dict(learner.model.named_parameters()), **rates}
    rows, losses, errors = [], [], []
    all_tasks = learner
    for index in range(len(tasks.query_lr)):
        task, learner = Task(*(tensor[index] for tensor in tasks)), all_tasks.part(slice(index, index + 1))
        for leaf in leaves.values():
            leaf.grad = None
        if isinstance(learner, ReptileLearner):
            displacement, loss, mse = _reptile_displacement(wrapped, task, learner)
            rows.append(layout.flatten(displacement))
        else:
            if isinstance(learner, MAMLLearner):
                loss, mse = _maml_loss(wrapped, task, learner, step)
            else:
                loss, mse = _pooled_loss(wrapped.clone(), task, learner)
            loss.backward()  # type: ignore[no-untyped-call]
            rows.append(layout.flatten({name: _grad(leaf) for name, leaf in leaves.items()}))
        losses.append(loss.detach())
        errors.append(mse.detach())
    return TaskGradients.of(torch.stack(rows), Metrics(torch.stack(losses), torch.stack(errors)))


def _wrapped(learner: PretrainLearner | MAMLLearner, rates: dict[str, nn.Parameter]) -> Any:
    """Wraps the network in the learn2learn algorithm."""
    if isinstance(learner, MetaSGDLearner):
        lrs = nn.ParameterList(list(rates.values()))
        return _module("meta_sgd").MetaSGD(learner.model, first_order=learner.spec.first_order, lrs=lrs)
    if isinstance(learner, MAMLLearner):
        # A network of another project may have parameters that its output does not depend on.
        options = {"first_order": learner.spec.first_order, "allow_unused": True}
        return maml_class()(learner.model, lr=learner.spec.inner_lr, **options)
    return maml_class()(learner.model, lr=0.0)


def _load(model: nn.Module, layout: Layout, flat: Tensor) -> dict[str, nn.Parameter]:
    """Loads parameters into the network and returns learned rates, in the order of the network's parameters."""
    rates = {}
    with torch.no_grad():
        for name, value in layout.unflatten(flat).items():
            if name.startswith(RATE):
                rates[name] = nn.Parameter(value.clone())
            else:
                model.get_parameter(name).copy_(value)
    return rates


def _grad(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.detach()


def _pooled_loss(network: Any, task: Task, learner: PretrainLearner | MAMLLearner) -> tuple[Tensor, Tensor]:
    restored = network(torch.cat([task.support_lr, task.query_lr]))
    hr = torch.cat([task.support_hr, task.query_hr])
    loss = image_loss(learner.spec.loss, learner.spec.charbonnier_eps)(restored, hr)
    return loss, nn.functional.mse_loss(restored[len(task.support_lr) :], task.query_hr)


def _maml_loss(wrapped: Any, task: Task, learner: MAMLLearner, step: int) -> tuple[Tensor, Tensor]:
    loss_of = image_loss(learner.spec.loss, learner.spec.charbonnier_eps)
    network = wrapped.clone()
    losses = []
    for weight in step_weights(learner.multi_step, learner.spec.inner_steps, step):
        _adapt(network, learner, task.support_lr, task.support_hr)
        restored = network(task.query_lr)
        losses.append(weight * loss_of(restored, task.query_hr))
    return torch.stack(losses).sum(), nn.functional.mse_loss(restored, task.query_hr)


def _reptile_displacement(
    wrapped: Any, task: Task, learner: ReptileLearner
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    network = wrapped.clone()
    lr, hr = torch.cat([task.support_lr, task.query_lr]), torch.cat([task.support_hr, task.query_hr])
    for _ in range(learner.spec.inner_steps):
        _adapt(network, learner, lr, hr)
    after = dict(network.module.named_parameters())
    displacement = {name: (before - after[name]).detach() for name, before in learner.model.named_parameters()}
    return displacement, *_pooled_loss(network, task, learner)


def _adapt(network: Any, learner: MAMLLearner, lr: Tensor, hr: Tensor) -> None:
    """Takes an inner step with `adapt`, or for options that it lacks, with the update function that it calls."""
    rule = learner.inner_rule
    factor = 1.0 if learner.rate_factors is None else float(learner.rate_factors)
    loss = image_loss(rule.loss_name, rule.eps)(network(lr), hr)
    if rule.clip is None and learner.adapts is None:
        network.adapt(factor * loss)
        return
    names, values = zip(*network.module.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, values, create_graph=not learner.spec.first_order, materialize_grads=True)
    kept = [
        gradient if learner.adapts is None or name in learner.adapts else None
        for name, gradient in zip(names, gradients, strict=True)
    ]
    if rule.clip is not None:
        norm = torch.cat([gradient.flatten() for gradient in kept if gradient is not None]).norm()
        if float(norm.detach()) > rule.clip:
            factor *= rule.clip / norm
    kept = [None if gradient is None else factor * gradient for gradient in kept]
    if isinstance(learner, MetaSGDLearner):
        _module("meta_sgd").meta_sgd_update(network.module, network.lrs, kept)
    else:
        network.module = _module("maml").maml_update(network.module, learner.spec.inner_lr, kept)
