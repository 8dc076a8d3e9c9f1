"""Tasks: as drawn data (`TaskDraw`) and as tensors (`Task`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from metarestore.degradations import DegradationDraw

if TYPE_CHECKING:
    from torch import Tensor

Split = Literal["train", "validation", "test", "pairs", "shots"]


@dataclass(frozen=True)
class Episode:
    """The geometry of a task.

    Attributes:
        support: Support patches K.
        query: Query patches Q.
        patch: Side of an HR patch, in pixels.
        internal: Whether the support set consists of internal pairs of the Q query images, each LR image and the same
            image degraded once more; K is then not used.
    """

    support: int
    query: int
    patch: int
    internal: bool = False


@dataclass(frozen=True)
class PatchRef:
    """A patch: a box in HR pixels of a named image, and its orientation.

    Attributes:
        split: Split of the image.
        image: Name of the image.
        box: Top, left, height, width, in HR pixels.
        turn: Number of the dihedral transform: quarter turns, plus 4 if mirrored first.
        seed: Seed of the patch's noise fields.
    """

    split: Split
    image: str
    box: tuple[int, int, int, int]
    turn: int
    seed: int


@dataclass(frozen=True)
class TaskDraw:
    """One task as plain data: it can be logged, hashed, replayed and sent to another machine.

    Attributes:
        distribution: Name of the task distribution.
        content: Hash of the distribution's content.
        scale: Upscaling factor.
        degradations: The fixed degradation of this task; empty for real pairs.
        support: Support patches.
        query: Query patches.
    """

    distribution: str
    content: str
    scale: int
    degradations: tuple[DegradationDraw, ...]
    support: tuple[PatchRef, ...]
    query: tuple[PatchRef, ...]

    def parameters(self) -> dict[str, Any]:
        """Returns the drawn parameters as `operation.parameter`, for captions and logs."""
        return drawn_parameters(self.degradations)


def drawn_parameters(draws: Sequence[DegradationDraw]) -> dict[str, Any]:
    """Returns drawn parameters as `operation.parameter`, for captions and logs.

    Repeated operations are numbered: `jpeg_2.quality`. Lists, such as kernels, are omitted.
    """
    parameters: dict[str, Any] = {}
    counts: Counter[str] = Counter()
    for drawn in draws:
        counts[drawn.op] += 1
        name = drawn.op if counts[drawn.op] == 1 else f"{drawn.op}_{counts[drawn.op]}"
        parameters |= {f"{name}.{key}": value for key, value in drawn.params.items() if not isinstance(value, list)}
    return parameters


class Task(NamedTuple):
    """The tensors of one task, or of T stacked tasks with a leading dimension.

    Attributes:
        support_lr: (K, C, h, w) in [0, 1]; internal pairs are smaller than query images, by the scale.
        support_hr: (K, C, s·h, s·w) in [0, 1].
        query_lr: (Q, C, h, w) in [0, 1].
        query_hr: (Q, C, s·h, s·w) in [0, 1].
    """

    support_lr: Tensor
    support_hr: Tensor
    query_lr: Tensor
    query_hr: Tensor


def without_support(task: Task) -> Task:
    """Returns a task with an empty support set; internal pairs are not of the size of the query, so they do not mix."""
    return Task(task.query_lr[:0], task.query_hr[:0], task.query_lr, task.query_hr)


def stack(tasks: list[Task]) -> Task:
    """Stacks tasks of one geometry along a new leading dimension T."""
    import torch

    return Task(*(torch.stack(tensors) for tensors in zip(*tasks, strict=True)))
