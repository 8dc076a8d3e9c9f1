"""The kind `pairs`: aligned LR and HR photographs of a real camera."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from metarestore.config.file_names import full_path
from metarestore.config.keypath import KeyPath
from metarestore.degradations.base import error_at
from metarestore.degradations.dihedral import flip_rotate
from metarestore.errors import UserError
from metarestore.seeds import generator
from metarestore.tasks.distribution import OpenDistribution, to_tensor
from metarestore.tasks.few_shot import Box, FewShotDraw, FewShotGeometry, grid_boxes, joined
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.tasks.pair_files import PairFolder, PairNames, PairSource, split_pairs
from metarestore.tasks.pair_images import implausible_pairs, open_sides, read_masks
from metarestore.tasks.pair_masks import Masks, aligned_part, masks_content, most_aligned
from metarestore.tasks.photographs import SUFFIXES
from metarestore.tasks.spec import DistributionSpec, Photographs, Scale, content_hash
from metarestore.tasks.task import Episode, PatchRef, Split, Task, TaskDraw

if TYPE_CHECKING:
    from torch import Tensor


def _is_template(template: str) -> str:
    problem = ""
    if template.count("{name}") != 1:
        problem = "must contain {name} once, which stands for the pair's name"
    elif Path(template).name != template or Path(template).suffix.lower() in SUFFIXES:
        problem = "is the name of a file without its folder and suffix, e.g. '{name}x4'"
    if problem:
        raise PydanticCustomError("template", "{problem}, got '{given}'", {"problem": problem, "given": template})
    return template


_TRIES = 100
"""Maximum number of patches of a task that are drawn again."""

NameTemplate = Annotated[str, AfterValidator(_is_template)]


class PairsSpec(DistributionSpec):
    """Aligned real pairs: two folders with the same file names."""

    kind: Literal["pairs"]
    scale: Scale
    """Ratio of HR side to LR side."""
    lr: Path
    """Folder of LR images; a relative path is resolved against the project's folder."""
    hr: Path
    """Folder of HR images."""
    support_pool: int = Field(10, ge=1)
    """Number of pairs, the first by name, that may be used for learning; the others are the test set, independent of
    the number of shots."""
    lr_name: NameTemplate | None = Field(None, exclude_if=lambda value: value is None)
    """Name of a pair's LR file without suffix, e.g. "{name}x4"; `{name}` is the pair's name. Files with other
    names are ignored. If neither name is given, equal names are pairs, or the names of DIV2K, RealSR and DRealSR."""
    hr_name: NameTemplate | None = Field(None, exclude_if=lambda value: value is None)
    """Name of a pair's HR file without suffix, e.g. "{name}_HR"."""
    crop: bool = Field(False, exclude_if=lambda value: not value)
    """Whether HR is cropped at the bottom and right to a multiple of the scale, and LR accordingly."""
    check_content: bool = Field(True, exclude=True)
    """Report pairs whose LR does not show what HR shows: exchanged, shifted, mirrored, rotated or rescaled ones."""

    @property
    def pairs(self) -> PairSource:
        """Both folders, and the number of pairs that may be used for learning."""
        given = self.lr_name is not None or self.hr_name is not None
        names = PairNames(self.lr_name or "{name}", self.hr_name or "{name}") if given else None
        return PairSource(PairFolder(self.lr, self.hr, names, self.scale, self.crop), self.support_pool)

    def content(self) -> Any:
        """Returns everything that determines its draws: pixels and names of the images, independent of their folder.

        Raises:
            UserError: They cannot be read.
        """
        written: dict[str, Any] = self.model_dump(mode="json", exclude={"lr", "hr"})
        sides = {"lr": self.lr, "hr": self.hr}
        if masks := read_masks(self.pairs.folder):
            written["mask"] = masks_content(masks)
        return written | {side: ImageStore.open(ImageSource.folder(folder)).content for side, folder in sides.items()}

    def implausible_pairs(self) -> Sequence[str]:
        """Names the pairs whose LR does not show what HR shows, if `check_content` asks for it."""
        return implausible_pairs(self.pairs.folder) if self.check_content else ()

    @property
    def own_images(self) -> Path:
        """The folder of HR images."""
        return self.hr

    def lr_files(self) -> Mapping[str, Path]:
        """Lists the LR image of each pair, by the file's name.

        Raises:
            UserError: A folder is missing or empty, or an image has no partner.
        """
        return {pair.lr.name: pair.lr for pair in self.pairs.folder.files()}

    def at_scale(self, scale: Scale) -> Self:
        """Returns the pairs, which have one scale.

        Raises:
            PydanticCustomError: They have another scale; a `ValueError` whose `at` is the key path.
        """
        if scale != self.scale:
            raise error_at(f"the pairs are for scale {self.scale}, not for {scale}; remove scale", "scale")
        return self

    def rooted(self, root: Path) -> Self:
        """Returns the pairs with folders resolved against `root`, the project's folder."""
        return self.model_copy(update={key: full_path(root, getattr(self, key)) for key in ("lr", "hr")})

    def missing(self) -> Sequence[tuple[KeyPath, str]]:
        """Returns the folders that do not exist."""
        folders = {"lr": self.lr, "hr": self.hr}
        return [
            ((key,), f"there is no folder {folder}; put the images there")
            for key, folder in folders.items()
            if not folder.is_dir()
        ]

    def moved(self, folder: Path) -> Self:
        """Returns the pairs with their images in `lr` and `hr` of another folder."""
        return self.model_copy(update={side: (folder / side).absolute() for side in ("lr", "hr")})

    def open(self, name: str, episode: Episode, images: Photographs, split: Split = "train") -> PairTasks:
        """Opens both folders."""
        del images, split
        return open_pairs(name, self, episode)

    def few_shot(self, name: str, episode: Episode, images: Photographs, geometry: FewShotGeometry) -> PairsTarget:
        """Opens both folders as a target."""
        del images
        return PairsTarget(open_pairs(name, self, episode), geometry)


def open_pairs(name: str, spec: PairsSpec, episode: Episode) -> PairTasks:
    """Opens both folders of a camera and checks that they belong together.

    Raises:
        UserError: Names or sizes of LR and HR do not match.
    """
    lr, hr = open_sides(spec.pairs.folder)
    if len(hr.names) < 2:
        raise UserError(f"{spec.hr}: has {len(hr.names)} pair; at least 2 are needed, to learn from and to test on")
    hr.require_size(episode.patch, episode.patch)
    return PairTasks(name, spec, lr, hr, episode)


class PairTasks(OpenDistribution):
    """Crops aligned patches from real pairs of the support pool, never from test pairs.

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
        self.images = hr
        self.masks: Masks = read_masks(spec.pairs.folder)
        self.episode = episode
        self._lr = lr

    def draw(self, seed: int, index: int, patches: int | None = None) -> TaskDraw:
        """Draws patches of task `index`, or of task `patches`, from the support pool."""
        drawn = index if patches is None else patches
        support, query = draw_pair_patches(self.images, self.pool, self.scale, self.episode, seed, drawn, self.masks)
        return self.draw_on(seed, index, support, query)

    def draw_on(self, seed: int, index: int, support: Sequence[PatchRef], query: Sequence[PatchRef]) -> TaskDraw:
        """Returns the draw of given patches; a real camera has no drawn degradation."""
        del seed, index
        return TaskDraw(self.name, self.content, self.scale, (), tuple(support), tuple(query))

    def build(self, draw: TaskDraw) -> Task:
        """Reads LR and HR of each patch."""
        support_lr, support_hr = self._pairs(draw.support)
        query_lr, query_hr = self._pairs(draw.query)
        return Task(support_lr, support_hr, query_lr, query_hr)

    def build_support(self, draw: TaskDraw) -> tuple[Tensor, Tensor]:
        """Reads only the support set: LR (K, 3, h, w) and HR (K, 3, s·h, s·w)."""
        return self._pairs(draw.support)

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Yields height and width of each HR image of the support pool."""
        return map(self.images.size, self.pool)

    def _pairs(self, refs: Sequence[PatchRef]) -> tuple[Tensor, Tensor]:
        """Reads LR (N, 3, h, w) and HR (N, 3, s·h, s·w)."""
        import torch

        lr, hr = [], []
        for ref in refs:
            top, left, height, width = (side // self.scale for side in ref.box)
            lr.append(flip_rotate(to_tensor(self._lr.patch(ref.image, top, left, height, width)), ref.turn))
            hr.append(flip_rotate(to_tensor(self.images.patch(ref.image, *ref.box)), ref.turn))
        return torch.stack(lr), torch.stack(hr)


def draw_pair_patches(
    images: ImageStore,
    names: Sequence[str],
    scale: int,
    episode: Episode,
    seed: int,
    index: int,
    masks: Masks = MappingProxyType({}),
) -> tuple[tuple[PatchRef, ...], tuple[PatchRef, ...]]:
    """Draws patches, aligned to the LR pixel grid, from the HR images `names`.

    Patches with masked pixels are drawn again, up to 100 times in all.
    """
    rng = generator(seed, "patches", index)
    refs: list[PatchRef] = []
    tries = _TRIES
    while len(refs) < episode.support + episode.query:
        name = names[int(rng.integers(len(names)))]
        height, width = images.size(name)
        top = scale * int(rng.integers((height - episode.patch) // scale + 1))
        left = scale * int(rng.integers((width - episode.patch) // scale + 1))
        box = (top, left, episode.patch, episode.patch)
        turn = int(rng.integers(8))
        if tries and aligned_part(masks, name, box) < 1:
            tries -= 1
            continue
        refs.append(PatchRef("pairs", name, box, turn, 0))
    return tuple(refs[: episode.support]), tuple(refs[episode.support :])


class PairsTarget:
    """A real camera: the shots are pairs of its support pool, by default the first; metrics are of its test pairs.

    Raises:
        UserError: More shots are requested than the support pool has, the first one is not in it, or an image is
            smaller than a shot or a crop.
    """

    def __init__(self, tasks: PairTasks, geometry: FewShotGeometry) -> None:
        if geometry.shots > len(tasks.pool):
            raise UserError(
                f"{tasks.spec.hr}: {geometry.shots} shots are requested, but only {len(tasks.pool)} pairs may be "
                f"used for learning; lower adaptation.shots, or raise support_pool in the task file of {tasks.name}"
            )
        if geometry.first_shot >= len(tasks.pool):
            raise UserError(
                f"{tasks.spec.hr}: adaptation.first_shot is {geometry.first_shot}, but only {len(tasks.pool)} pairs "
                f"may be used for learning; write at most {len(tasks.pool) - 1}"
            )
        side = max(geometry.shot_size, geometry.crop)
        tasks.images.require_size(side, side)
        self.name, self.content, self.scale = tasks.name, tasks.content, tasks.scale
        self._tasks, self._geometry = tasks, geometry

    @property
    def split(self) -> tuple[int, int]:
        """Numbers of pairs for learning and for testing."""
        return len(self._tasks.pool), len(self._tasks.test)

    def draw(self, seed: int) -> FewShotDraw:
        """Returns the shots (centre crops) and the test crops; for real pairs they do not depend on `seed`.

        Crops without masked pixels are preferred.
        """
        geometry, first = self._geometry, self._geometry.first_shot
        # Every pair of the pool is equally often a shot if `first` runs through the pool.
        names = (*self._tasks.pool[first:], *self._tasks.pool[:first])[: geometry.shots]
        shots = [(name, self._crops(name, geometry.shot_size, 1)[0]) for name in names]
        test = [(name, box) for name in self._tasks.test for box in self._crops(name, geometry.crop, geometry.crops)]
        return FewShotDraw(tuple(map(self._pair, shots)), tuple(map(self._pair, test)))

    def build(self, draw: FewShotDraw) -> Task:
        """Reads the pairs."""
        shots = [self._tasks.build_support(one) for one in draw.shots]
        test = [self._tasks.build_support(one) for one in draw.test]
        return joined(shots, test)

    def is_gray(self, photograph: str) -> bool:
        """Returns whether a test pair's HR image is stored with a single channel."""
        return self._tasks.images.is_gray(photograph)

    def _crops(self, name: str, side: int, count: int) -> list[Box]:
        """Returns up to `count` crops near the centre of an HR image."""
        size = self._tasks.images.size(name)
        central = grid_boxes(*size, side, count)
        if name not in self._tasks.masks:
            return central
        return most_aligned(self._tasks.masks, name, grid_boxes(*size, side, size[0] * size[1]), central)

    def _pair(self, crop: tuple[str, Box]) -> TaskDraw:
        name, (top, left, height, width) = crop
        on_lr_grid = (top - top % self.scale, left - left % self.scale, height, width)
        return self._tasks.draw_on(0, 0, [PatchRef("pairs", name, on_lr_grid, 0, 0)], [])
