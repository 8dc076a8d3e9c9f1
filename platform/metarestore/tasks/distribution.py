"""Task distributions: drawing returns data, building returns tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

import numpy as np

from metarestore.errors import UserError
from metarestore.seeds import derived_seed, generator
from metarestore.tasks.images import ImageStore
from metarestore.tasks.task import Episode, PatchRef, Split, Task, TaskDraw

if TYPE_CHECKING:
    from torch import Tensor


class TaskDistribution(Protocol):
    """One degradation type."""

    name: str
    content: str
    scale: int

    def draw(self, seed: int, index: int, patches: int | None = None) -> TaskDraw:
        """Draws a task; it depends on the distribution's content and the arguments only.

        Args:
            seed: Seed of the run.
            index: Index of the task.
            patches: Index by which the patches are drawn; defaults to `index`.
        """
        ...

    def build(self, draw: TaskDraw) -> Task:
        """Builds the tensors of a drawn task, RGB in [0, 1]."""
        ...


class OpenDistribution(ABC):
    """A task distribution with open images: the interface of all kinds of task files.

    Attributes:
        name: The distribution's name.
        content: Content hash of the distribution.
        scale: Ratio of HR side to LR side.
        images: The HR photographs from which patches are cropped.
        episode: Geometry of a task.
        degrades: Whether `degrade` can apply draws to given HR images.
    """

    name: str
    content: str
    scale: int
    images: ImageStore
    episode: Episode
    degrades: ClassVar[bool] = False

    @abstractmethod
    def draw(self, seed: int, index: int, patches: int | None = None) -> TaskDraw:
        """Draws task `index`, with its own patches or those of task `patches`; see `TaskDistribution`."""

    @abstractmethod
    def draw_on(self, seed: int, index: int, support: Sequence[PatchRef], query: Sequence[PatchRef]) -> TaskDraw:
        """Draws task `index` on given patches."""

    @abstractmethod
    def build(self, draw: TaskDraw) -> Task:
        """Builds the tensors of a drawn task, RGB in [0, 1]."""

    @abstractmethod
    def build_support(self, draw: TaskDraw) -> tuple[Tensor, Tensor]:
        """Builds only the support set: LR (K, 3, h, w) and HR (K, 3, s·h, s·w)."""

    @abstractmethod
    def sizes(self) -> Iterator[tuple[int, int]]:
        """Yields height and width of each photograph that patches may be drawn from, in HR pixels."""

    def degrade(self, hr: Tensor, draw: TaskDraw) -> Tensor:
        """Applies a drawn degradation to other HR images (N, 3, H, W); LR (N, 3, h, w).

        Raises:
            UserError: The kind cannot degrade given images (see `degrades`).
        """
        del hr, draw
        raise UserError(
            f"'{self.name}' has its own images and cannot degrade others; use a task distribution of kind synthetic"
        )

    def pairs_on(self, hr: Tensor, draw: TaskDraw) -> tuple[Tensor, Tensor]:
        """Returns LR and HR images that show the effect of a draw: on the given HR images, if the kind `degrades`.

        Otherwise returns the support set of the draw, whose number and sizes may differ.
        """
        return (self.degrade(hr, draw), hr) if self.degrades else self.build_support(draw)

    def with_episode(self, episode: Episode) -> Self:
        """Returns the same distribution for tasks of another geometry, whose patches fit into all of `sizes`."""
        other = copy(self)
        other.episode = episode
        return other


def draw_patches(
    images: ImageStore, split: Split, episode: Episode, seed: int, index: int
) -> tuple[tuple[PatchRef, ...], tuple[PatchRef, ...]]:
    """Draws support and query patches.

    They do not depend on the distribution: two distributions drawn with the same seed and index degrade the same
    clean patches, which removes image content from their comparison.
    """
    rng = generator(seed, "patches", index)
    refs, support = [], 0 if episode.internal else episode.support
    for position in range(support + episode.query):
        name = images.names[int(rng.integers(len(images.names)))]
        height, width = images.size(name)
        top = int(rng.integers(height - episode.patch + 1))
        left = int(rng.integers(width - episode.patch + 1))
        box = (top, left, episode.patch, episode.patch)
        refs.append(PatchRef(split, name, box, int(rng.integers(8)), derived_seed(seed, "noise", index, position)))
    return tuple(refs[:support]), tuple(refs[support:])


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Converts uint8 pixels (H, W, 3) to a float32 image (3, H, W) in [0, 1]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(torch.float32).div_(255.0)
