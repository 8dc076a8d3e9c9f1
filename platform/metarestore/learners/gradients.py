"""Task gradients of a shard, vectorised over its tasks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad, vmap

from metarestore.errors import UserError
from metarestore.learners.learner import Learner, Metrics
from metarestore.models.parameters import Layout, Params
from metarestore.tasks.task import Task


@dataclass(frozen=True)
class TaskGradients:
    """Gradients of T tasks with respect to the P parameters.

    Attributes:
        gradients: (T, P), float32.
        losses: Task losses, (T,).
        mse: Mean squared errors of the query images, (T,).
    """

    gradients: NDArray[np.float32]
    losses: NDArray[np.float32]
    mse: NDArray[np.float32]


def vectorised_gradients(learner: Learner, layout: Layout, flat: Tensor, tasks: Task) -> TaskGradients:
    """Computes `vmap(grad(loss))` over T stacked tasks.

    Args:
        learner: The task loss.
        layout: Names and shapes of the parameters.
        flat: Parameters, (P,).
        tasks: Tensors with a leading dimension T.

    Raises:
        UserError: An operation of the network has no (double) backward pass under vectorisation.
    """
    params = layout.unflatten(flat)

    def task_gradient(params: Params, task: Task) -> tuple[Params, Metrics]:
        gradient, metrics = grad(learner.loss, has_aux=True)(params, task)
        return gradient, metrics

    try:
        gradients, metrics = vmap(task_gradient, in_dims=(None, 0))(params, tasks)
    except NotImplementedError as error:
        raise UserError(
            f"the network cannot be differentiated task by task: {error}; "
            "use learner.kind: fomaml, or learner.backend: learn2learn"
        ) from error
    return TaskGradients(
        layout.flatten(gradients, batch=1).cpu().numpy(), metrics.loss.cpu().numpy(), metrics.mse.cpu().numpy()
    )


def mean_loss_gradient(learner: Learner, layout: Layout, flat: Tensor, task: Task) -> Tensor:
    """Computes the gradient (P,) of one task's loss."""
    gradient, _ = grad(learner.loss, has_aux=True)(layout.unflatten(flat), task)
    return layout.flatten({name: torch.as_tensor(value) for name, value in gradient.items()})
