"""The target as a few-shot problem: K real pairs to learn from, and test crops for measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from metarestore.degradations.dihedral import flip_rotate
from metarestore.seeds import generator
from metarestore.tasks.images import ImageStore
from metarestore.tasks.task import Episode, PatchRef, Task, TaskDraw

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FewShotGeometry:
    """Numbers and sizes of shots and test crops.

    Attributes:
        shots: Number K of real pairs that may be used for learning.
        shot_size: Side of a shot, in HR pixels.
        crop: Side of a test crop, in HR pixels.
        crops: Maximum number of test crops per photograph.
        first_shot: Index of the first shot in the support pool, or in the sequence of drawn shots.
    """

    shots: int
    shot_size: int
    crop: int
    crops: int
    first_shot: int = 0


@dataclass(frozen=True)
class FewShotDraw:
    """A target as plain data; each image is a separate draw, like the photographs of a real camera.

    Attributes:
        shots: One draw of one patch for each shot.
        test: One draw of one patch for each test crop.
    """

    shots: tuple[TaskDraw, ...]
    test: tuple[TaskDraw, ...]

    @property
    def photographs(self) -> tuple[str, ...]:
        """Name of the photograph of each test crop."""
        return tuple(draw.support[0].image for draw in self.test)


class FewShotTarget(Protocol):
    """A target distribution as a few-shot problem."""

    name: str
    content: str
    scale: int

    @property
    def split(self) -> tuple[int, int] | None:
        """Numbers of pairs for learning and for testing; None for a synthetic target."""
        ...

    def draw(self, seed: int) -> FewShotDraw:
        """Draws the shots and the test crops."""
        ...

    def build(self, draw: FewShotDraw) -> Task:
        """Builds the tensors: the support set contains the shots, the query set the test crops."""
        ...

    def is_gray(self, photograph: str) -> bool:
        """Returns whether a test photograph is stored with a single channel."""
        ...


Box = tuple[int, int, int, int]


def grid_boxes(height: int, width: int, side: int, count: int) -> list[Box]:
    """Returns up to `count` non-overlapping square boxes, preferring those near the centre of the image.

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


def test_crops(images: ImageStore, names: Sequence[str], geometry: FewShotGeometry) -> list[tuple[str, Box]]:
    """Returns the test crops of every photograph, in a fixed order."""
    return [(name, box) for name in names for box in grid_boxes(*images.size(name), geometry.crop, geometry.crops)]


def joined(shots: Sequence[tuple[Tensor, Tensor]], test: Sequence[tuple[Tensor, Tensor]]) -> Task:
    """Combines (LR, HR) pairs into one task: shots as the support set, test crops as the query set."""
    import torch

    support_lr, support_hr = (torch.cat(side) for side in zip(*shots, strict=True))
    query_lr, query_hr = (torch.cat(side) for side in zip(*test, strict=True))
    return Task(support_lr, support_hr, query_lr, query_hr)


class ShotTasks:
    """Random patches of the target's shots as a distribution, for learning from the shots.

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
        """Draws patches of task `index`, or of task `patches`, aligned to the LR pixel grid."""
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
        """Crops the patches from the shots."""
        lr, hr = self._shots.support_lr, self._shots.support_hr
        return Task(
            cut(lr, draw.support, self.scale),
            cut(hr, draw.support),
            cut(lr, draw.query, self.scale),
            cut(hr, draw.query),
        )


def cut(images: Tensor, refs: Sequence[PatchRef], shrink: int = 1) -> Tensor:
    """Crops patches from images (K, C, H, W), named by index; boxes are divided by `shrink`."""
    import torch

    patches = []
    for ref in refs:
        top, left, height, width = (side // shrink for side in ref.box)
        patches.append(flip_rotate(images[int(ref.image), :, top : top + height, left : left + width], ref.turn))
    return torch.stack(patches)
