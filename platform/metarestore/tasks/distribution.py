"""Task distributions: drawing yields data, building yields tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from metarestore.degradations import replay
from metarestore.degradations.turns import turned
from metarestore.seeds import derived_seed, generator
from metarestore.tasks.images import ImageStore
from metarestore.tasks.pair_images import split_pairs
from metarestore.tasks.spec import PairsSpec, SyntheticSpec, content_hash
from metarestore.tasks.task import Episode, PatchRef, Split, Task, TaskDraw


class TaskDistribution(Protocol):
    """One degradation type."""

    name: str
    content: str
    scale: int

    def draw(self, seed: int, index: int, patches: int | None = None) -> TaskDraw:
        """Draws a task; it depends on the distribution's content and the arguments only.

        Args:
            seed: Seed of the run.
            index: Which task.
            patches: Index that the patches are drawn by, if not `index`.
        """
        ...

    def build(self, draw: TaskDraw) -> Task:
        """Makes the tensors of a drawn task, RGB in [0, 1]."""
        ...


def draw_patches(
    images: ImageStore, split: Split, episode: Episode, seed: int, index: int
) -> tuple[tuple[PatchRef, ...], tuple[PatchRef, ...]]:
    """Draws support and query patches.

    They do not depend on the distribution: two distributions drawn with the same seed and index degrade the same
    clean patches, which takes image content out of their comparison.
    """
    rng = generator(seed, "patches", index)
    refs = []
    for position in range(episode.support + episode.query):
        name = images.names[int(rng.integers(len(images.names)))]
        height, width = images.size(name)
        top = int(rng.integers(height - episode.patch + 1))
        left = int(rng.integers(width - episode.patch + 1))
        box = (top, left, episode.patch, episode.patch)
        refs.append(PatchRef(split, name, box, int(rng.integers(8)), derived_seed(seed, "noise", index, position)))
    return tuple(refs[: episode.support]), tuple(refs[episode.support :])


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Converts uint8 pixels (H, W, 3) to a float32 image (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(torch.float32).div_(255.0)


class SyntheticTasks:
    """Degrades patches of clean photographs by a pipeline drawn once per task.

    Args:
        name: The distribution's name.
        spec: Its task file.
        images: Clean photographs, by split.
        episode: Geometry of a task.
        split: Which photographs `draw` takes patches from.

    Raises:
        UserError: A photograph is smaller than a patch.
    """

    def __init__(
        self,
        name: str,
        spec: SyntheticSpec,
        images: Mapping[Split, ImageStore],
        episode: Episode,
        split: Split = "train",
    ) -> None:
        images[split].require_size(episode.patch, episode.patch)
        self.name = name
        self.spec = spec
        self.content = content_hash(spec)
        self.scale: int = spec.scale
        self._images = images
        self._episode = episode
        self._split = split

    def draw(self, seed: int, index: int, patches: int | None = None) -> TaskDraw:
        """Draws the degradation of task `index`, and its patches or those of task `patches`."""
        drawn = index if patches is None else patches
        support, query = draw_patches(self._images[self._split], self._split, self._episode, seed, drawn)
        return self.draw_on(seed, index, support, query)

    def draw_on(self, seed: int, index: int, support: Sequence[PatchRef], query: Sequence[PatchRef]) -> TaskDraw:
        """Draws the degradation of task `index` for patches that are given."""
        degradations = self.spec.degradation(self.content, seed, index)
        return TaskDraw(self.name, self.content, self.scale, degradations, tuple(support), tuple(query))

    def build(self, draw: TaskDraw) -> Task:
        """Reads the clean patches and degrades them."""
        hr = self._clean(draw.support + draw.query)
        lr = replay(hr, draw.degradations, [ref.seed for ref in draw.support + draw.query])
        cut = len(draw.support)
        return Task(lr[:cut], hr[:cut], lr[cut:], hr[cut:])

    def build_support(self, draw: TaskDraw) -> tuple[Tensor, Tensor]:
        """Makes the support set alone: LR (K, 3, h, w) and HR (K, 3, s·h, s·w)."""
        hr = self._clean(draw.support)
        return replay(hr, draw.degradations, [ref.seed for ref in draw.support]), hr

    def degrade(self, hr: Tensor, draw: TaskDraw) -> Tensor:
        """Applies a drawn degradation to other HR images (N, 3, H, W); noise fields follow from the draw's seeds."""
        seeds = [draw.support[k % len(draw.support)].seed + k for k in range(len(hr))]
        return replay(hr, draw.degradations, seeds)

    def _clean(self, refs: Sequence[PatchRef]) -> Tensor:
        """Reads patches (N, 3, H, W)."""
        return torch.stack(
            [turned(to_tensor(self._images[ref.split].patch(ref.image, *ref.box)), ref.turn) for ref in refs]
        )


class PairTasks:
    """Cuts aligned patches from real pairs; draws come from the support pool only, never from the test pairs.

    Args:
        name: The distribution's name.
        spec: Its task file.
        lr: Real LR images.
        hr: Real HR images of the same names; each `scale` times as large.
        episode: Geometry of a task.
    """

    def __init__(self, name: str, spec: PairsSpec, lr: ImageStore, hr: ImageStore, episode: Episode) -> None:
        self.name = name
        self.spec = spec
        self.content = content_hash(spec)
        self.scale: int = spec.scale
        self.pool, self.test = split_pairs(hr.names, spec.support_pool)
        self.hr = hr
        self._lr = lr
        self._episode = episode

    def draw(self, seed: int, index: int, patches: int | None = None) -> TaskDraw:
        """Draws patches of task `index`, or of task `patches`, from the support pool."""
        drawn = index if patches is None else patches
        support, query = draw_pair_patches(self.hr, self.pool, self.scale, self._episode, seed, drawn)
        return self.draw_on(support, query)

    def draw_on(self, support: Sequence[PatchRef], query: Sequence[PatchRef]) -> TaskDraw:
        """Makes the draw of patches that are given; a real camera has no drawn degradation."""
        return TaskDraw(self.name, self.content, self.scale, (), tuple(support), tuple(query))

    def build(self, draw: TaskDraw) -> Task:
        """Reads both sides of each patch."""
        support_lr, support_hr = self._pairs(draw.support)
        query_lr, query_hr = self._pairs(draw.query)
        return Task(support_lr, support_hr, query_lr, query_hr)

    def build_support(self, draw: TaskDraw) -> tuple[Tensor, Tensor]:
        """Reads the support set alone: LR (K, 3, h, w) and HR (K, 3, s·h, s·w)."""
        return self._pairs(draw.support)

    def _pairs(self, refs: Sequence[PatchRef]) -> tuple[Tensor, Tensor]:
        """Reads LR (N, 3, h, w) and HR (N, 3, s·h, s·w)."""
        lr, hr = [], []
        for ref in refs:
            top, left, height, width = (side // self.scale for side in ref.box)
            lr.append(turned(to_tensor(self._lr.patch(ref.image, top, left, height, width)), ref.turn))
            hr.append(turned(to_tensor(self.hr.patch(ref.image, *ref.box)), ref.turn))
        return torch.stack(lr), torch.stack(hr)


def draw_pair_patches(
    images: ImageStore, names: Sequence[str], scale: int, episode: Episode, seed: int, index: int
) -> tuple[tuple[PatchRef, ...], tuple[PatchRef, ...]]:
    """Draws patches whose boxes fall on LR pixels, from the HR images called `names`."""
    rng = generator(seed, "patches", index)
    refs = []
    for _ in range(episode.support + episode.query):
        name = names[int(rng.integers(len(names)))]
        height, width = images.size(name)
        top = scale * int(rng.integers((height - episode.patch) // scale + 1))
        left = scale * int(rng.integers((width - episode.patch) // scale + 1))
        refs.append(PatchRef("pairs", name, (top, left, episode.patch, episode.patch), int(rng.integers(8)), 0))
    return tuple(refs[: episode.support]), tuple(refs[episode.support :])
