"""Task gradients of a shard, vectorised over its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarestore.errors import UserError
from metarestore.learners.learner import Learner, Metrics
from metarestore.learners.sketch import sketched
from metarestore.models.parameters import Layout, Params
from metarestore.tasks.task import Task


@dataclass(frozen=True)
class TaskMetrics:
    """Metrics of the gradients of T tasks: a few bytes, while the gradients take megabytes.

    Attributes:
        losses: Task losses, (T,).
        mse: Mean squared errors of the query images, (T,).
        norms: Norms of the gradients, (T,).
        sketches: Sketches of the gradients, (T, m), or None if they are not requested.
        terms: Logged terms of the losses, (T,), by name.
    """

    losses: NDArray[np.float32]
    mse: NDArray[np.float32]
    norms: NDArray[np.float32]
    sketches: NDArray[np.float32] | None = None
    terms: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskGradients:
    """Gradients of T tasks with respect to the P parameters.

    Attributes:
        gradients: (T, P), float32.
        metrics: Metrics of the tasks.
    """

    gradients: NDArray[np.float32]
    metrics: TaskMetrics

    @classmethod
    def of(cls, gradients: Tensor, metrics: Metrics) -> TaskGradients:
        """Copies gradients (T, P) and their metrics from the device."""
        rows, loss, mse = (_numpy(tensor) for tensor in (gradients, metrics.loss, metrics.mse))
        terms = {name: _numpy(term) for name, term in metrics.terms.items()}
        return cls(rows, TaskMetrics(loss, mse, np.linalg.norm(rows, axis=1), terms=terms))

    def sketch(self, size: int, length: int | None = None) -> TaskGradients:
        """Adds sketches of size `size` of the first `length` parameters (learned rates have another unit)."""
        return replace(self, metrics=replace(self.metrics, sketches=sketched(self.gradients[:, :length], size)))

    def weighted(self, factors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns Σ factorᵢ·gᵢ, (P,), summed in the order of the tasks, so that all workers give the same bytes."""
        total: NDArray[np.float32] = np.zeros(self.gradients.shape[1], np.float32)
        for factor, gradient in zip(factors, self.gradients, strict=True):
            total += factor * gradient
        return total


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().numpy()
    return array


def joined(parts: Sequence[TaskMetrics]) -> TaskMetrics:
    """Concatenates the metrics of consecutive tasks, in order."""
    sketches = [part.sketches for part in parts if part.sketches is not None]
    return TaskMetrics(
        np.concatenate([part.losses for part in parts]),
        np.concatenate([part.mse for part in parts]),
        np.concatenate([part.norms for part in parts]),
        np.concatenate(sketches) if sketches else None,
        {name: np.concatenate([part.terms[name] for part in parts]) for name in parts[0].terms},
    )


def vectorised_gradients(learner: Learner, layout: Layout, flat: Tensor, tasks: Task, step: int = 0) -> TaskGradients:
    """Computes the gradients of T stacked tasks at once.

    Args:
        learner: The learner, which defines the task loss.
        layout: Names and shapes of all learned parameters.
        flat: Parameters, (P,).
        tasks: Tensors with a leading dimension T.
        step: The outer step.

    Raises:
        UserError: An operation of the network has no (double) backward pass under vectorisation or in bfloat16, or the
            tasks do not fit into memory.
    """
    params = repeated(layout.unflatten(flat), len(tasks.query_lr))
    try:
        gradients, metrics = learner.gradients(params, tasks, step)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{len(tasks.query_lr)} tasks at a time do not fit into GPU memory; set training.microbatch to fewer tasks"
        ) from error
    except RuntimeError as error:
        if learner.precision != "float32":
            raise UserError(
                f"training.precision: {learner.precision} is not supported by this learner and network "
                f"({str(error).splitlines()[0]}); use float32, or a first-order learner such as fomaml"
            ) from error
        foreign = getattr(learner.model, "foreign", None)
        if foreign is not None:
            raise UserError(_unsupported(learner, foreign, error, len(tasks.query_lr))) from error
        if not isinstance(error, NotImplementedError):
            raise
        raise UserError(
            f"the network does not support per-task gradients: {error}; "
            "use learner.kind: fomaml, or learner.backend: learn2learn"
        ) from error
    return TaskGradients.of(layout.flatten(gradients, batch=1), metrics)


def _unsupported(learner: Learner, architecture: str, error: RuntimeError, count: int) -> str:
    """Describes why the gradients of `count` tasks of another project's network cannot be computed."""
    if count > 1:
        remedy = "set training.microbatch: 1, which computes tasks one by one without vmap"
    elif not getattr(learner.spec, "first_order", True):
        remedy = "use learner.kind: fomaml, which has no double backward pass"
    else:
        remedy = "choose another file"
    return f"model.path: {architecture} does not support per-task gradients ({str(error).splitlines()[0]}); {remedy}"


def split_gradients(
    learner: Learner, layout: Layout, flat: Tensor, tasks: Task, step: int, microbatch: int | None
) -> TaskGradients:
    """Computes `vectorised_gradients` for at most `microbatch` tasks at a time, in the order of the tasks.

    The number of tasks at a time can change the convolution kernels and thus the last bits of a gradient: measured on
    a CPU, 4 tasks at a time give the same bits as 8, single tasks differ by up to 3e-5 of the largest entry.
    """
    count = len(tasks.query_lr)
    size = microbatch or count
    pieces = [slice(first, first + size) for first in range(0, count, size)]
    results = [
        vectorised_gradients(learner.part(piece), layout, flat, Task(*(tensor[piece] for tensor in tasks)), step)
        for piece in pieces
    ]
    gradients = np.concatenate([result.gradients for result in results])
    return TaskGradients(gradients, joined([result.metrics for result in results]))


def mean_loss_gradient(learner: Learner, layout: Layout, flat: Tensor, task: Task) -> Tensor:
    """Computes the gradient (P,) of one task's loss."""
    gradient, _ = learner.gradients(repeated(layout.unflatten(flat), 1), Task(*(tensor[None] for tensor in task)))
    return layout.flatten(gradient, batch=1)[0]


def repeated(params: Params, count: int) -> Params:
    """Repeats parameters for each of T tasks, (T, ...)."""
    if count == 1:
        return {name: _channels_last(value)[None] for name, value in params.items()}
    # Copied, because convolutions are faster with contiguous weights than with an expanded view.
    return {name: value.expand(count, *value.shape).contiguous() for name, value in params.items()}


def _channels_last(value: Tensor) -> Tensor:
    """Copies a kernel (O, C, k, k) so that ordinary convolutions compute in channels-last order.

    A step of a single task is then up to 1.3 times as fast on a CPU. The grouped convolutions of several vectorised
    tasks do not profit.
    """
    return value.to(memory_format=torch.channels_last) if value.dim() == 4 else value
