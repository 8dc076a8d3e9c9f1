"""The kind `synthetic`: clean photographs, degraded by a pipeline that is drawn once per task."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from metarestore.config.keypath import KeyPath
from metarestore.degradations import Pipeline, replay
from metarestore.degradations.base import Drawn, Step
from metarestore.degradations.dihedral import flip_rotate
from metarestore.errors import UserError
from metarestore.seeds import derived_seed, generator
from metarestore.tasks.distribution import OpenDistribution, draw_patches, to_tensor
from metarestore.tasks.few_shot import FewShotDraw, FewShotGeometry, joined, test_crops
from metarestore.tasks.images import ImageStore
from metarestore.tasks.remarks import Remark, remarks
from metarestore.tasks.spec import DistributionSpec, Photographs, Scale, content_hash
from metarestore.tasks.task import Episode, PatchRef, Split, Task, TaskDraw
from metarestore.tasks.vectors import DrawSpace

if TYPE_CHECKING:
    from torch import Tensor


class PipelineSpec(DistributionSpec):
    """Base class of the kinds that degrade photographs with a pipeline."""

    scale: Scale
    """Upscaling factor, unless an experiment or a command sets another."""
    pipeline: Pipeline
    """Degradations, applied in order to HR images."""

    @model_validator(mode="after")
    def _fits_scale(self) -> Self:
        self.pipeline.check_scale(self.scale)
        return self

    @abstractmethod
    def degradation(self, content: str, seed: int, index: int) -> Drawn:
        """Returns the degradation of task `index`; `content` is the `content_hash` of this specification."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The entries of the pipeline."""
        return self.pipeline.steps

    @property
    def space(self) -> DrawSpace:
        """The space of its draws."""
        return DrawSpace.of(self.pipeline, self.scale)

    def content(self) -> Any:
        """Returns everything that determines its draws: the pipeline for this scale."""
        written: dict[str, Any] = self.model_dump(mode="json", exclude={"pipeline", "scales"})
        return {**written, "pipeline": _at_scale(json.loads(json.dumps(self.pipeline.content())), self.scale)}

    def at_scale(self, scale: Scale) -> Self:
        """Returns the same degradation type for another scale.

        Raises:
            PydanticCustomError: A parameter has no range for this scale; a `ValueError` whose `at` is the key path.
        """
        self.pipeline.check_scale(scale)
        return self.model_copy(update={"scale": scale})

    def rooted(self, root: Path) -> Self:
        """Returns the distribution with relative paths resolved against `root`, the project's folder."""
        return self.model_copy(update={"pipeline": self.pipeline.rooted(root)})

    def missing(self) -> Sequence[tuple[KeyPath, str]]:
        """Returns the key and the problem of each file of an entry that cannot be used."""
        problems: list[tuple[KeyPath, str]] = []
        for at, step in self.pipeline.entries():
            if not step.inner:
                try:
                    step.content()
                except ValueError as error:
                    problems.append((("pipeline", *at, "path"), str(error)))
        return problems

    def remarks(self) -> Iterable[Remark]:
        """Yields warnings about the pipeline at its scale."""
        return remarks(self.pipeline, self.scale)

    def open(self, name: str, episode: Episode, images: Photographs, split: Split = "train") -> SyntheticTasks:
        """Opens the photographs of a split."""
        return SyntheticTasks(name, self, {split: images(split)}, episode, split)

    def few_shot(self, name: str, episode: Episode, images: Photographs, geometry: FewShotGeometry) -> SyntheticTarget:
        """Opens the photographs for training and testing."""
        train, test = images("train"), images("test")
        tasks = SyntheticTasks(name, self, {"train": train, "test": test}, episode)
        return SyntheticTarget(tasks, train, test, geometry)


class SyntheticSpec(PipelineSpec):
    """A degradation type: a pipeline whose parameters are drawn once per task."""

    kind: Literal["synthetic"]
    fitted_to: dict[str, str] = Field({}, exclude=True)
    """Pairs from which `tasks fit` estimated the pipeline, with hashes of their pixels: a study that tests on them
    gives a warning. Draws do not depend on them."""

    def fitted_pairs(self) -> Mapping[str, str]:
        """Returns the pairs from which `tasks fit` estimated the pipeline."""
        return self.fitted_to

    def degradation(self, content: str, seed: int, index: int) -> Drawn:
        """Draws the degradation of task `index`; `content` is the `content_hash` of this specification."""
        return self.pipeline.draw((content, seed, "degradation", index), self.scale)


def _at_scale(written: Any, scale: int) -> Any:
    """Replaces ranges per scale by those of one scale."""
    if isinstance(written, list):
        return [_at_scale(item, scale) for item in written]
    if isinstance(written, dict):
        chosen = written["per_scale"][str(scale)] if "per_scale" in written else written
        return chosen if chosen is not written else {key: _at_scale(value, scale) for key, value in written.items()}
    return written


class SyntheticTasks(OpenDistribution):
    """Degrades patches of clean photographs by a pipeline drawn once per task.

    Args:
        name: The distribution's name.
        spec: Its task file.
        images: Clean photographs, by split.
        episode: Geometry of a task.
        split: Split from which `draw` takes patches; photographs smaller than a patch are skipped.

    Raises:
        UserError: All photographs are smaller than a patch.
    """

    degrades: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        spec: PipelineSpec,
        images: Mapping[Split, ImageStore],
        episode: Episode,
        split: Split = "train",
    ) -> None:
        self.name = name
        self.spec = spec
        self.content = content_hash(spec)
        self.scale: int = spec.scale
        self.images = images[split].at_least(episode.patch, episode.patch)
        self.episode = episode
        self._images = {**images, split: self.images}
        self._split = split

    def draw(self, seed: int, index: int, patches: int | None = None) -> TaskDraw:
        """Draws the degradation of task `index`, and its patches or those of task `patches`."""
        drawn = index if patches is None else patches
        support, query = draw_patches(self.images, self._split, self.episode, seed, drawn)
        return self.draw_on(seed, index, support, query)

    def draw_on(self, seed: int, index: int, support: Sequence[PatchRef], query: Sequence[PatchRef]) -> TaskDraw:
        """Draws the degradation of task `index` for given patches."""
        degradations = self.spec.degradation(self.content, seed, index)
        return TaskDraw(self.name, self.content, self.scale, degradations, tuple(support), tuple(query))

    def build(self, draw: TaskDraw) -> Task:
        """Reads the clean patches and degrades them, once more for internal pairs."""
        hr = self._clean(draw.support + draw.query)
        seeds = [ref.seed for ref in draw.support + draw.query]
        lr = replay(hr, draw.degradations, seeds)
        if self.episode.internal:
            return Task(replay(lr, draw.degradations, [seed + 1 for seed in seeds]), lr, lr, hr)
        cut = len(draw.support)
        return Task(lr[:cut], hr[:cut], lr[cut:], hr[cut:])

    def build_support(self, draw: TaskDraw) -> tuple[Tensor, Tensor]:
        """Builds only the support set: LR (K, 3, h, w) and HR (K, 3, s·h, s·w)."""
        hr = self._clean(draw.support)
        return replay(hr, draw.degradations, [ref.seed for ref in draw.support]), hr

    def degrade(self, hr: Tensor, draw: TaskDraw) -> Tensor:
        """Applies a drawn degradation to other HR images (N, 3, H, W); noise seeds derive from the draw."""
        refs = draw.support or draw.query
        seeds = [refs[k % len(refs)].seed + k for k in range(len(hr))]
        return replay(hr, draw.degradations, seeds)

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Yields height and width of each photograph of the split."""
        return map(self.images.size, self.images.names)

    def _clean(self, refs: Sequence[PatchRef]) -> Tensor:
        """Reads patches (N, 3, H, W)."""
        import torch

        return torch.stack(
            [flip_rotate(to_tensor(self._images[ref.split].patch(ref.image, *ref.box)), ref.turn) for ref in refs]
        )


class SyntheticTarget:
    """A held-out synthetic camera: shots from training photographs, metrics on test photographs.

    Args:
        tasks: The camera's distribution, with "train" and "test" photographs.
        train: Photographs for the shots, a different one for each shot as long as there are enough large ones.
        test: Photographs for the metrics.
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

    @property
    def split(self) -> None:
        """There are no pairs to split."""
        return None

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
        """Returns whether a test photograph is stored with a single channel."""
        return self._test.is_gray(photograph)

    def _shots(self, seed: int) -> Iterator[tuple[int, PatchRef]]:
        rng = generator(seed, "shots")
        order = rng.permutation(len(self._large))
        size = self._geometry.shot_size
        first = self._geometry.first_shot
        for k in range(first + self._geometry.shots):
            name = self._large[int(order[k % len(order)])]
            height, width = self._train.size(name)
            box = (int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1)), size, size)
            if k >= first:
                yield k, PatchRef("train", name, box, 0, derived_seed(seed, "shot noise", k))

    def _crops(self, seed: int) -> Iterator[tuple[int, PatchRef]]:
        crops = test_crops(self._test, self._test.names, self._geometry)
        for k, (name, box) in enumerate(crops):
            yield k, PatchRef("test", name, box, 0, derived_seed(seed, "test noise", k))
