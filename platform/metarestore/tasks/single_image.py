"""The kind `single_image`: patches of one photograph and of its degraded version, for zero-shot restoration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from metarestore.config.base import Strict
from metarestore.config.file_names import full_path
from metarestore.config.keypath import KeyPath
from metarestore.degradations import DegradationDraw, replay
from metarestore.degradations.base import Drawn, Parameter, error_at
from metarestore.degradations.dihedral import DIHEDRAL, flip_rotate
from metarestore.degradations.kernels import Kernel
from metarestore.errors import UserError
from metarestore.seeds import derived_seed, generator
from metarestore.tasks.distribution import OpenDistribution, to_tensor
from metarestore.tasks.few_shot import FewShotDraw, FewShotGeometry
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.tasks.spec import DistributionSpec, KernelSource, Photographs, Scale, content_hash
from metarestore.tasks.task import Episode, PatchRef, Split, Task, TaskDraw

if TYPE_CHECKING:
    from torch import Tensor

Augmentation = Literal["none", "half_turn", "all"]
_TRANSFORMS: Mapping[Augmentation, Sequence[int]] = {"none": (0,), "half_turn": (0, 2), "all": range(DIHEDRAL)}


class KernelChoice(Strict):
    """A kernel that is not estimated: from a file, from a draw of another task, or given by its weights."""

    file: Path | None = None
    """A file with one kernel, e.g. from `metarestore kernel`; a relative path starts at the project's folder."""
    task: str | None = None
    """Name of a task file with a pipeline; the kernel is the blur and downsampling of one of its draws."""
    seed: int = Field(0, ge=0)
    """Seed of that draw."""
    index: int = Field(0, ge=0)
    """Number of that draw."""
    weights: tuple[tuple[float, ...], ...] | None = None
    """The kernel, row by row; its side is even if and only if the scale is, and its middle is its centre."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [key for key in ("file", "task", "weights") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of file, task and weights, got {' and '.join(given) or 'none'}")
        if self.weights is not None:
            _checked(self.weights)
        return self

    def matrix(self) -> Kernel:
        """Returns the weights (K, K).

        Raises:
            TypeError: They are not known yet; call `DistributionSpec.resolved` first.
        """
        if self.weights is None:
            raise TypeError("the kernel must be resolved before it is used")
        return np.asarray(self.weights, dtype=np.float32)


class SingleImageSpec(DistributionSpec):
    """One photograph, from which a network learns to restore it: its patches are HR, and LR is degraded from them.

    As a target it cannot be used for measurements: its query set is empty.

    Source: Shocher et al., "Zero-Shot" Super-Resolution using Deep Internal Learning (2018).
    """

    kind: Literal["single_image"]
    scale: Scale
    """Factor by which the photograph will be upscaled, and by which its patches are downsampled."""
    image: Path
    """The photograph; a relative path starts at the project's folder."""
    kernel: Literal["estimated", "bicubic"] | KernelChoice = "estimated"
    """The kernel of the degradation: estimated from the photograph, that of bicubic downsampling, or another kernel."""
    augmentation: Augmentation = "half_turn"
    """How patches are flipped and rotated. half_turn: by 0 or 180 degrees, under which symmetric kernels are invariant;
    all: by all eight dihedral transforms, as published."""
    noise: float = Field(0.0, ge=0, le=128)
    """Standard deviation of the noise that is added to degraded patches, in grey levels of 0..255."""

    @model_validator(mode="after")
    def _kernel_fits_the_scale(self) -> Self:
        if isinstance(self.kernel, KernelChoice) and self.kernel.weights is not None:
            side = len(self.kernel.weights)
            if (side - self.scale) % 2:
                raise error_at(f"a kernel of {side}x{side} has no centre at scale {self.scale}", "kernel", "weights")
        return self

    @property
    def own_images(self) -> Path:
        """The photograph."""
        return self.image

    @property
    def unresolved(self) -> bool:
        """Whether the kernel still has to be estimated or read."""
        return not isinstance(self.kernel, KernelChoice) or self.kernel.weights is None

    def resolved(self, kernels: KernelSource) -> Self:
        """Returns the specification with the weights of its kernel."""
        return self.model_copy(update={"kernel": KernelChoice(weights=_rows(self._resolved_kernel(kernels)))})

    def _resolved_kernel(self, kernels: KernelSource) -> Kernel:
        if not isinstance(self.kernel, KernelChoice):
            return kernels.bicubic(self.scale) if self.kernel == "bicubic" else kernels.of_image(self.image, self.scale)
        if self.kernel.file is not None:
            return kernels.of_file(self.kernel.file, self.scale)
        if self.kernel.task is not None:
            return kernels.of_task(self.kernel.task, self.scale, self.kernel.seed, self.kernel.index)
        return self.kernel.matrix()

    @property
    def matrix(self) -> Kernel:
        """The kernel (K, K)."""
        if not isinstance(self.kernel, KernelChoice):
            raise TypeError("the kernel must be resolved before it is used")
        return self.kernel.matrix()

    @property
    def kernel_hash(self) -> str:
        """A hash of the kernel, 16 hex digits."""
        rows = json.dumps([list(map(float, row)) for row in self.matrix])
        return hashlib.blake2b(rows.encode(), digest_size=8).hexdigest()

    def degradation(self) -> Drawn:
        """Returns the degradation, which is the same for every task."""
        kernel = self.matrix
        blur: dict[str, Parameter] = {
            "file": "",
            "index": 0,
            "digest": self.kernel_hash,
            "rows": len(kernel),
            "kernel": list(map(float, kernel.ravel())),
        }
        downsample: dict[str, Parameter] = {"method": "nearest", "antialias": True, "scale": self.scale}
        steps = [DegradationDraw("kernel_file", (0,), blur), DegradationDraw("downsample", (1,), downsample)]
        if self.noise:
            steps.append(DegradationDraw("gaussian_noise", (2,), {"sigma": self.noise, "correlation": 0.0}))
        return tuple(steps)

    def content(self) -> Any:
        """Returns everything that determines its draws: the photograph's pixels and the kernel, not their paths.

        Raises:
            UserError: The photograph cannot be read.
        """
        others = self.model_dump(mode="json", exclude={"image", "kernel"})
        return {**others, "image": ImageStore.open(ImageSource.file(self.image)).content, "kernel": self.kernel_hash}

    def lr_files(self) -> Mapping[str, Path]:
        """Returns the photograph, which is the LR image to restore."""
        return {self.image.stem: self.image}

    def at_scale(self, scale: Scale) -> Self:
        """Returns the task itself if it has this scale.

        Raises:
            PydanticCustomError: It has another scale; a `ValueError` with the key as its position.
        """
        if scale != self.scale:
            raise error_at(f"the kernel is for scale {self.scale}, not for {scale}; write a task file for it", "scale")
        return self

    def rooted(self, root: Path) -> Self:
        """Returns the task with relative paths starting at `root`, the project's folder."""
        changes: dict[str, Any] = {"image": full_path(root, self.image)}
        if isinstance(self.kernel, KernelChoice) and self.kernel.file is not None:
            changes["kernel"] = self.kernel.model_copy(update={"file": full_path(root, self.kernel.file)})
        return self.model_copy(update=changes)

    def missing(self) -> Sequence[tuple[KeyPath, str]]:
        """Returns the photograph or the kernel's file if it is missing, by key."""
        files: list[tuple[KeyPath, Path]] = [(("image",), self.image)]
        if isinstance(self.kernel, KernelChoice) and self.kernel.file is not None:
            files.append((("kernel", "file"), self.kernel.file))
        return [(key, f"there is no file {path}; put it there") for key, path in files if not path.is_file()]

    def moved(self, folder: Path) -> Self:
        """Returns the task with its photograph in another folder."""
        return self.model_copy(update={"image": (folder / self.image.name).absolute()})

    def open(self, name: str, episode: Episode, images: Photographs, split: Split = "train") -> SingleImageTasks:
        """Opens the photograph."""
        del images, split
        return SingleImageTasks(name, self, episode)

    def few_shot(
        self, name: str, episode: Episode, images: Photographs, geometry: FewShotGeometry
    ) -> SingleImageTarget:
        """Opens the photograph as a target, which has shots but no test crops."""
        del images
        return SingleImageTarget(SingleImageTasks(name, self, episode), geometry)


def _checked(weights: tuple[tuple[float, ...], ...]) -> None:
    if not weights or any(len(row) != len(weights) for row in weights):
        raise ValueError("weights must have as many rows as columns")
    total = sum(map(sum, weights))
    if not abs(total - 1) < 1e-3:
        raise ValueError(f"weights must sum to 1, got {total:g}")


def _rows(kernel: Kernel) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, row)) for row in kernel)


class SingleImageTasks(OpenDistribution):
    """Cuts patches from one photograph and degrades them.

    Args:
        name: The distribution's name.
        spec: Its task file, resolved.
        episode: Geometry of a task.

    Raises:
        UserError: The photograph cannot be read, or is smaller than a patch.
    """

    def __init__(self, name: str, spec: SingleImageSpec, episode: Episode) -> None:
        self.name = name
        self.spec = spec
        self.content = content_hash(spec)
        self.scale: int = spec.scale
        self.images = ImageStore.open(ImageSource.file(spec.image))
        self.images.require_size(episode.patch, episode.patch)
        self.episode = episode
        self._degradation = spec.degradation()

    def draw(self, seed: int, index: int, patches: int | None = None) -> TaskDraw:
        """Draws the patches of task `index`, or of task `patches` if given; their boxes are aligned to LR pixels."""
        rng = generator(seed, "patches", index if patches is None else patches)
        drawn = index if patches is None else patches
        count = self.episode.support + self.episode.query
        refs = [self.patch(rng, self.episode.patch, derived_seed(seed, "noise", drawn, k)) for k in range(count)]
        return self.draw_on(seed, index, refs[: self.episode.support], refs[self.episode.support :])

    def patch(self, rng: np.random.Generator, side: int, seed: int) -> PatchRef:
        """Draws a patch whose box is aligned to LR pixels; `seed` is that of its noise."""
        [name] = self.images.names
        height, width = self.images.size(name)
        top = self.scale * int(rng.integers((height - side) // self.scale + 1))
        left = self.scale * int(rng.integers((width - side) // self.scale + 1))
        transforms = _TRANSFORMS[self.spec.augmentation]
        return PatchRef("train", name, (top, left, side, side), transforms[int(rng.integers(len(transforms)))], seed)

    def draw_on(self, seed: int, index: int, support: Sequence[PatchRef], query: Sequence[PatchRef]) -> TaskDraw:
        """Returns the draw of given patches; the degradation is always the same."""
        del seed, index
        return TaskDraw(self.name, self.content, self.scale, self._degradation, tuple(support), tuple(query))

    def build(self, draw: TaskDraw) -> Task:
        """Cuts the patches from the photograph, and degrades them to LR."""
        return Task(*self._pairs(draw.support), *self._pairs(draw.query))

    def build_support(self, draw: TaskDraw) -> tuple[Tensor, Tensor]:
        """Builds the support set only: LR (K, 3, h, w) and HR (K, 3, s·h, s·w)."""
        return self._pairs(draw.support)

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Yields the height and width of the photograph."""
        return map(self.images.size, self.images.names)

    def _pairs(self, refs: Sequence[PatchRef]) -> tuple[Tensor, Tensor]:
        """Builds LR (N, 3, h, w) and HR (N, 3, s·h, s·w): degraded with a margin, then flipped and rotated."""
        import torch

        side = refs[0].box[-1] if refs else self.episode.patch
        lr = [torch.empty(0, 3, side // self.scale, side // self.scale)]
        hr = [torch.empty(0, 3, side, side)]
        for ref in refs:
            lr_patch, hr_patch = self._pair(ref)
            lr.append(flip_rotate(lr_patch, ref.turn))
            hr.append(flip_rotate(hr_patch, ref.turn))
        return torch.cat(lr), torch.cat(hr)

    def _pair(self, ref: PatchRef) -> tuple[Tensor, Tensor]:
        height, width = self.images.size(ref.image)
        margin = -(-len(self.spec.matrix) // self.scale) * self.scale
        top, left, rows, columns = ref.box
        first = (max(top - margin, 0), max(left - margin, 0))
        last = (min(top + rows + margin, height), min(left + columns + margin, width))
        # Pixels beyond a multiple of the scale are dropped; they are outside the kernel, or at the photograph's border.
        lengths = [(end - begin) // self.scale * self.scale for begin, end in zip(first, last, strict=True)]
        region = to_tensor(self.images.patch(ref.image, *first, *lengths))[None]
        degraded = replay(region, self._degradation, [ref.seed])
        down, right = (top - first[0]) // self.scale, (left - first[1]) // self.scale
        lr = degraded[..., down : down + rows // self.scale, right : right + columns // self.scale]
        return lr, to_tensor(self.images.patch(ref.image, *ref.box))[None]


class SingleImageTarget:
    """One photograph as a target: the shots are its patches, and there are no test crops.

    Raises:
        UserError: The photograph is smaller than a shot.
    """

    def __init__(self, tasks: SingleImageTasks, geometry: FewShotGeometry) -> None:
        tasks.images.require_size(geometry.shot_size, geometry.shot_size)
        self.name, self.content, self.scale = tasks.name, tasks.content, tasks.scale
        self._tasks, self._geometry = tasks, geometry

    @property
    def split(self) -> None:
        """None: there are no pairs to split."""
        return None

    def draw(self, seed: int) -> FewShotDraw:
        """Draws the shots; there are no test crops."""
        rng = generator(seed, "shots")
        first = self._geometry.first_shot
        refs = [
            self._tasks.patch(rng, self._geometry.shot_size, derived_seed(seed, "shot noise", k))
            for k in range(first + self._geometry.shots)
        ]
        shots = [self._tasks.draw_on(seed, k, [ref], []) for k, ref in enumerate(refs)]
        return FewShotDraw(tuple(shots[first:]), ())

    def build(self, draw: FewShotDraw) -> Task:
        """Cuts the shots; the query set is empty.

        Raises:
            UserError: The draw contains test crops.
        """
        import torch

        if draw.test:
            raise UserError(f"'{self.name}' is a single photograph without HR, so it cannot be used for measurements")
        lr, hr = zip(*(self._tasks.build_support(one) for one in draw.shots), strict=True)
        crop = self._geometry.crop
        no_query = torch.empty(0, 3, crop // self.scale, crop // self.scale), torch.empty(0, 3, crop, crop)
        return Task(torch.cat(lr), torch.cat(hr), *no_query)

    def is_gray(self, photograph: str) -> bool:
        """Returns whether the photograph is stored with a single channel."""
        return self._tasks.images.is_gray(photograph)
