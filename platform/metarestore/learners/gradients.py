"""Task gradients of a shard, vectorised over its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad, vmap

from metarestore.errors import UserError
from metarestore.learners.learner import Learner, Metrics
from metarestore.learners.sketch import sketched
from metarestore.models.parameters import Layout, Params
from metarestore.tasks.task import Task


@dataclass(frozen=True)
class TaskGradients:
    """Gradients of T tasks with respect to the P parameters.

    Attributes:
        gradients: (T, P), float32.
        losses: Task losses, (T,).
        mse: Mean squared errors of the query images, (T,).
        sketches: Sketches of the gradients, (T, m), or None where nobody asked for them.
    """

    gradients: NDArray[np.float32]
    losses: NDArray[np.float32]
    mse: NDArray[np.float32]
    sketches: NDArray[np.float32] | None = None

    def sketch(self, size: int, length: int | None = None) -> TaskGradients:
        """Adds sketches of `size` entries, of the first `length` parameters: learned rates have another unit."""
        return replace(self, sketches=sketched(self.gradients[:, :length], size))


def joined(parts: Sequence[TaskGradients]) -> TaskGradients:
    """Joins the gradients of consecutive tasks, in order."""
    sketches = [part.sketches for part in parts if part.sketches is not None]
    return TaskGradients(
        np.concatenate([part.gradients for part in parts]),
        np.concatenate([part.losses for part in parts]),
        np.concatenate([part.mse for part in parts]),
        np.concatenate(sketches) if sketches else None,
    )


def vectorised_gradients(learner: Learner, layout: Layout, flat: Tensor, tasks: Task, step: int = 0) -> TaskGradients:
    """Computes `vmap(grad(loss))` over T stacked tasks.

    Args:
        learner: The task loss.
        layout: Names and shapes of all that is learned.
        flat: Parameters, (P,).
        tasks: Tensors with a leading dimension T.
        step: The outer step.

    Raises:
        UserError: An operation of the network has no (double) backward pass under vectorisation, or none in bfloat16,
            or the tasks do not fit the memory.
    """
    params = layout.unflatten(flat)

    def task_gradient(params: Params, task: Task) -> tuple[Params, Metrics]:
        return learner.gradient(params, task, step)

    try:
        gradients, metrics = vmap(task_gradient, in_dims=(None, 0))(params, tasks)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{len(tasks.query_lr)} tasks at once do not fit the GPU's memory; set training.microbatch to fewer"
        ) from error
    except RuntimeError as error:
        if learner.precision != "float32":
            raise UserError(
                f"training.precision: {learner.precision} does not work here ({str(error).splitlines()[0]}); "
                "use float32, or a first-order learner such as fomaml"
            ) from error
        if not isinstance(error, NotImplementedError):
            raise
        raise UserError(
            f"the network cannot be differentiated task by task: {error}; "
            "use learner.kind: fomaml, or learner.backend: learn2learn"
        ) from error
    return TaskGradients(
        layout.flatten(gradients, batch=1).cpu().numpy(), metrics.loss.cpu().numpy(), metrics.mse.cpu().numpy()
    )


def split_gradients(
    learner: Learner, layout: Layout, flat: Tensor, tasks: Task, step: int, microbatch: int | None
) -> TaskGradients:
    """Computes `vectorised_gradients` of at most `microbatch` tasks at once, and joins them in the order of the tasks.

    How many tasks are computed at once decides which kernels convolve, and so the last bits of a gradient: measured on
    a CPU, 4 of 8 tasks at once give the bits of all 8, one at a time is up to 3e-5 of the largest entry away.
    """
    count = len(tasks.query_lr)
    size = microbatch or count
    pieces = (Task(*(tensor[first : first + size] for tensor in tasks)) for first in range(0, count, size))
    return joined([vectorised_gradients(learner, layout, flat, piece, step) for piece in pieces])


def mean_loss_gradient(learner: Learner, layout: Layout, flat: Tensor, task: Task) -> Tensor:
    """Computes the gradient (P,) of one task's loss."""
    gradient, _ = grad(learner.loss, has_aux=True)(layout.unflatten(flat), task)
    return layout.flatten({name: torch.as_tensor(value) for name, value in gradient.items()})
