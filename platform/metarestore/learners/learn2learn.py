"""The reference backend: task gradients by learn2learn's own `MAML.clone` and `adapt`.

This is the only module that imports learn2learn. Version 0.2.0 runs an `__init__` that imports its vision, text and
reinforcement-learning parts, which need torchvision and gym; `learn2learn.algorithms.maml` alone needs torch only.
Where the plain import works it is used; elsewhere the packages are registered without running their `__init__`.
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
from metarestore.learners.learner import LossName, MAMLLearner, PretrainLearner, image_loss
from metarestore.models.parameters import Layout
from metarestore.tasks.task import Task

INSTALL = 'pip install --no-deps "learn2learn==0.2.0" --config-settings=--build-option=build_ext'


def _register_without_init(name: str) -> None:
    """Puts a package into `sys.modules` so that its submodules can be imported, without running its `__init__`."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise UserError(f"learn2learn is not installed; install it with: {INSTALL}")
    package = ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules[name] = package


def maml_class() -> Any:
    """Returns `learn2learn.algorithms.MAML`.

    Raises:
        UserError: learn2learn is not installed.
    """
    if importlib.util.find_spec("learn2learn") is None:
        raise UserError(f"learn2learn is not installed; install it with: {INSTALL}")
    try:
        return importlib.import_module("learn2learn.algorithms.maml").MAML
    except ImportError:
        for name in [name for name in sys.modules if name.split(".")[0] == "learn2learn"]:
            del sys.modules[name]
        _register_without_init("learn2learn")
        _register_without_init("learn2learn.algorithms")
        return importlib.import_module("learn2learn.algorithms.maml").MAML


def reference_gradients(
    learner: PretrainLearner | MAMLLearner, layout: Layout, flat: Tensor, tasks: Task
) -> TaskGradients:
    """Computes what `vectorised_gradients` computes, one task after the other, with learn2learn.

    Args:
        learner: The task loss; its network is used as a module.
        layout: Names and shapes of the parameters.
        flat: Parameters, (P,).
        tasks: Tensors with a leading dimension T.
    """
    _load(learner.model, layout, flat)
    maml = maml_class()(learner.model, lr=getattr(learner, "inner_lr", 0.0))
    rows, losses, errors = [], [], []
    for index in range(len(tasks.query_lr)):
        task = Task(*(tensor[index] for tensor in tasks))
        learner.model.zero_grad(set_to_none=True)
        if isinstance(learner, MAMLLearner):
            loss, mse = _maml_loss(maml, task, learner)
        else:
            loss, mse = _pretrain_loss(maml, task, learner.loss_name)
        loss.backward()  # type: ignore[no-untyped-call]
        rows.append(layout.flatten({name: _grad(p) for name, p in learner.model.named_parameters()}))
        losses.append(loss.detach())
        errors.append(mse.detach())
    gradients, values, squares = (torch.stack(column).cpu().numpy() for column in (rows, losses, errors))
    return TaskGradients(gradients, values, squares)


def _load(model: nn.Module, layout: Layout, flat: Tensor) -> None:
    with torch.no_grad():
        for name, value in layout.unflatten(flat).items():
            model.get_parameter(name).copy_(value)


def _grad(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.detach()


def _pretrain_loss(maml: Any, task: Task, loss_name: LossName) -> tuple[Tensor, Tensor]:
    network = maml.clone()
    restored = network(torch.cat([task.support_lr, task.query_lr]))
    loss = image_loss(loss_name)(restored, torch.cat([task.support_hr, task.query_hr]))
    return loss, nn.functional.mse_loss(restored[len(task.support_lr) :], task.query_hr)


def _maml_loss(maml: Any, task: Task, learner: MAMLLearner) -> tuple[Tensor, Tensor]:
    loss_of = image_loss(learner.loss_name)
    network = maml.clone(first_order=learner.first_order)
    for _ in range(learner.inner_steps):
        network.adapt(loss_of(network(task.support_lr), task.support_hr))
    restored = network(task.query_lr)
    return loss_of(restored, task.query_hr), nn.functional.mse_loss(restored, task.query_hr)
