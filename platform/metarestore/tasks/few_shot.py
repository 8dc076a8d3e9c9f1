"""The target as a few-shot problem: K real pairs to learn from, and test crops to be measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from metarestore.degradations.turns import turned
from metarestore.errors import UserError
from metarestore.seeds import derived_seed, generator
from metarestore.tasks.distribution import PairTasks, SyntheticTasks
from metarestore.tasks.images import ImageStore
from metarestore.tasks.task import Episode, PatchRef, Task, TaskDraw


@dataclass(frozen=True)
class FewShotGeometry:
    """How many shots and test crops, and how large.

    Attributes:
        shots: Real pairs K that may be learned from.
        shot_size: Side of a shot, in HR pixels.
        crop: Side of a test crop, in HR pixels.
        crops: Largest number of test crops of one photograph.
    """

    shots: int
    shot_size: int
    crop: int
    crops: int


@dataclass(frozen=True)
class FewShotDraw:
    """A target as plain data; each image is a draw of its own, as each photograph of a real camera is.

    Attributes:
        shots: One draw of one patch for each shot.
        test: One draw of one patch for each test crop.
    """

    shots: tuple[TaskDraw, ...]
    test: tuple[TaskDraw, ...]

    @property
    def photographs(self) -> tuple[str, ...]:
        """Name of the photograph that each test crop comes from."""
        return tuple(draw.support[0].image for draw in self.test)


class FewShotTarget(Protocol):
    """A target distribution as a few-shot problem."""

    name: str
    content: str
    scale: int

    def draw(self, seed: int) -> FewShotDraw:
        """Draws the shots and the test crops."""
        ...

    def build(self, draw: FewShotDraw) -> Task:
        """Makes the tensors: the support set is the shots, the query set is the test crops."""
        ...

    def is_gray(self, photograph: str) -> bool:
        """Tells whether a test photograph is stored with a single channel."""
        ...


Box = tuple[int, int, int, int]


def grid_boxes(height: int, width: int, side: int, count: int) -> list[Box]:
    """Places up to `count` square boxes evenly over an image, without overlap, starting from its middle.

    Raises:
        ValueError: The image is smaller than a box.
    """
    rows, columns = height // side, width // side
    if not rows or not columns:
        raise ValueError(f"an image of {height}x{width} is smaller than a crop of {side}")
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    boxes = [(top + r * side, left + c * side, side, side) for r in range(rows) for c in range(columns)]
    boxes.sort(key=lambda b: (abs(b[0] + side / 2 - height / 2) + abs(b[1] + side / 2 - width / 2), b))
    return sorted(boxes[:count])


class SyntheticTarget:
    """A held-back synthetic camera: shots from training photographs, figures from test photographs.

    Args:
        tasks: The camera's distribution, with "train" and "test" photographs.
        train: Photographs that the shots are taken from, a different one for each shot while those last that are large
            enough.
        test: Photographs for the figures.
        geometry: Shots and crops.

    Raises:
        UserError: A photograph is smaller than a shot or a test crop.
    """

    def __init__(self, tasks: SyntheticTasks, train: ImageStore, test: ImageStore, geometry: FewShotGeometry) -> None:
        test.require_size(geometry.crop, geometry.crop)
        self._large = [name for name in train.names if min(train.size(name)) >= geometry.shot_size]
        if not self._large:
            raise UserError(
                f"{train.source}: no photograph has {geometry.shot_size} pixels on both sides for a shot; "
                "lower adaptation.shot_size, or add a larger photograph"
            )
        self.name, self.content, self.scale = tasks.name, tasks.content, tasks.scale
        self._tasks, self._train, self._test, self._geometry = tasks, train, test, geometry

    def draw(self, seed: int) -> FewShotDraw:
        """Draws a degradation for each shot and each test crop."""
        shots = [self._tasks.draw_on(derived_seed(seed, "shot"), k, [ref], []) for k, ref in self._shots(seed)]
        test = [self._tasks.draw_on(derived_seed(seed, "test"), k, [ref], []) for k, ref in self._crops(seed)]
        return FewShotDraw(tuple(shots), tuple(test))

    def build(self, draw: FewShotDraw) -> Task:
        """Degrades the shots and the test crops."""
        shots = [self._tasks.build_support(one) for one in draw.shots]
        test = [self._tasks.build_support(one) for one in draw.test]
        return joined(shots, test)

    def is_gray(self, photograph: str) -> bool:
        """Tells whether a test photograph is stored with a single channel."""
        return self._test.is_gray(photograph)

    def _shots(self, seed: int) -> Iterator[tuple[int, PatchRef]]:
        rng = generator(seed, "shots")
        order = rng.permutation(len(self._large))
        size = self._geometry.shot_size
        for k in range(self._geometry.shots):
            name = self._large[int(order[k % len(order)])]
            height, width = self._train.size(name)
            box = (int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1)), size, size)
            yield k, PatchRef("train", name, box, 0, derived_seed(seed, "shot noise", k))

    def _crops(self, seed: int) -> Iterator[tuple[int, PatchRef]]:
        crops = test_crops(self._test, self._test.names, self._geometry)
        for k, (name, box) in enumerate(crops):
            yield k, PatchRef("test", name, box, 0, derived_seed(seed, "test noise", k))


class PairsTarget:
    """A real camera: the shots are the first pairs of its support pool, the figures come from its test pairs.

    Attributes:
        pool: Names of the pairs that may be learned from.
        test: Names of the others.

    Raises:
        UserError: More shots are asked for than the support pool has, or an image is smaller than a shot or a crop.
    """

    def __init__(self, tasks: PairTasks, geometry: FewShotGeometry) -> None:
        if geometry.shots > len(tasks.pool):
            raise UserError(
                f"{tasks.spec.hr}: {geometry.shots} shots are asked for, but only {len(tasks.pool)} pairs may be "
                f"learned from; lower adaptation.shots, or raise support_pool in the task file of {tasks.name}"
            )
        side = max(geometry.shot_size, geometry.crop)
        tasks.hr.require_size(side, side)
        self.name, self.content, self.scale = tasks.name, tasks.content, tasks.scale
        self.pool, self.test = tasks.pool, tasks.test
        self._tasks, self._geometry = tasks, geometry

    def draw(self, seed: int) -> FewShotDraw:
        """Lists the shots (the middles of their images) and the test crops; real pairs do not depend on `seed`."""
        size = self._geometry.shot_size
        names = self._tasks.pool[: self._geometry.shots]
        shots = [(name, grid_boxes(*self._tasks.hr.size(name), size, 1)[0]) for name in names]
        test = test_crops(self._tasks.hr, self._tasks.test, self._geometry)
        return FewShotDraw(tuple(map(self._pair, shots)), tuple(map(self._pair, test)))

    def build(self, draw: FewShotDraw) -> Task:
        """Reads the pairs."""
        shots = [self._tasks.build_support(one) for one in draw.shots]
        test = [self._tasks.build_support(one) for one in draw.test]
        return joined(shots, test)

    def is_gray(self, photograph: str) -> bool:
        """Tells whether a test pair's HR image is stored with a single channel."""
        return self._tasks.hr.is_gray(photograph)

    def _pair(self, crop: tuple[str, Box]) -> TaskDraw:
        name, (top, left, height, width) = crop
        on_lr_grid = (top - top % self.scale, left - left % self.scale, height, width)
        return self._tasks.draw_on([PatchRef("pairs", name, on_lr_grid, 0, 0)], [])


def test_crops(images: ImageStore, names: Sequence[str], geometry: FewShotGeometry) -> list[tuple[str, Box]]:
    """Lists the test crops of every photograph, in a fixed order."""
    return [(name, box) for name in names for box in grid_boxes(*images.size(name), geometry.crop, geometry.crops)]


def joined(shots: Sequence[tuple[Tensor, Tensor]], test: Sequence[tuple[Tensor, Tensor]]) -> Task:
    """Joins (LR, HR) pairs to one task: shots as the support set, test crops as the query set."""
    support_lr, support_hr = (torch.cat(side) for side in zip(*shots, strict=True))
    query_lr, query_hr = (torch.cat(side) for side in zip(*test, strict=True))
    return Task(support_lr, support_hr, query_lr, query_hr)


class ShotTasks:
    """Random patches of the target's shots, as a distribution: what a network sees that learns from them alone.

    Args:
        name: The target's name.
        content: The target's content hash.
        shots: A task whose support set is the shots.
        episode: Geometry of a task.
    """

    def __init__(self, name: str, content: str, shots: Task, episode: Episode) -> None:
        self.name, self.content = name, content
        self.scale = shots.support_hr.shape[-1] // shots.support_lr.shape[-1]
        self._shots = shots
        self._episode = episode

    def draw(self, seed: int, index: int, patches: int | None = None) -> TaskDraw:
        """Draws patches of task `index`, or of task `patches`, whose boxes fall on LR pixels."""
        rng = generator(seed, "patches", index if patches is None else patches)
        count, _, height, width = self._shots.support_lr.shape
        side = self._episode.patch // self.scale
        refs = []
        for _ in range(self._episode.support + self._episode.query):
            shot = int(rng.integers(count))
            top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            box = (top * self.scale, left * self.scale, self._episode.patch, self._episode.patch)
            refs.append(PatchRef("shots", str(shot), box, int(rng.integers(8)), 0))
        support = self._episode.support
        return TaskDraw(self.name, self.content, self.scale, (), tuple(refs[:support]), tuple(refs[support:]))

    def build(self, draw: TaskDraw) -> Task:
        """Cuts the patches out of the shots."""
        lr, hr = self._shots.support_lr, self._shots.support_hr
        return Task(
            cut(lr, draw.support, self.scale),
            cut(hr, draw.support),
            cut(lr, draw.query, self.scale),
            cut(hr, draw.query),
        )


def cut(images: Tensor, refs: Sequence[PatchRef], shrink: int = 1) -> Tensor:
    """Cuts patches out of images (K, C, H, W) that are numbered by name; boxes are divided by `shrink`."""
    patches = []
    for ref in refs:
        top, left, height, width = (side // shrink for side in ref.box)
        patches.append(turned(images[int(ref.image), :, top : top + height, left : left + width], ref.turn))
    return torch.stack(patches)
