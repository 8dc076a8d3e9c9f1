"""Task distributions for training loops of one's own: drawn pairs, and a data set of PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from metarestore.config.file_names import is_yaml
from metarestore.errors import UserError
from metarestore.project import Project, read_task
from metarestore.tasks.distribution import OpenDistribution
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.tasks.spec import DistributionSpec, Scale
from metarestore.tasks.task import Episode, Split


class DrawnPair(NamedTuple):
    """A pair of images, RGB in [0, 1].

    Attributes:
        lr: LR (3, h, w).
        hr: HR (3, s·h, s·w).
        parameters: The drawn parameters of the degradation, as `operation.parameter`; lists, such as kernels, are
            omitted.
    """

    lr: Tensor
    hr: Tensor
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class LoadedTask:
    """A task distribution.

    Attributes:
        name: Its name.
        spec: Its specification.
    """

    name: str
    spec: DistributionSpec

    @property
    def scale(self) -> int:
        """HR side over LR side."""
        return self.spec.scale

    def draw(
        self, seed: int, index: int, *, patch: int = 192, photographs: str | os.PathLike[str] | None = None
    ) -> DrawnPair:
        """Draws a pair; it depends on the arguments only.

        Args:
            seed: Seed of the draws.
            index: Number of the pair.
            patch: Side of HR in pixels, a multiple of the scale.
            photographs: Folder of clean photographs; None takes the embedded ones. Real pairs have their own.

        Raises:
            UserError: The patch does not fit the scale or the photographs.
        """
        return self.dataset(seed=seed, patch=patch, photographs=photographs, length=index + 1)[index]

    def dataset(
        self,
        *,
        seed: int = 0,
        patch: int = 192,
        photographs: str | os.PathLike[str] | None = None,
        length: int = 10_000,
    ) -> PairDataset:
        """Returns a data set of drawn pairs for `torch.utils.data.DataLoader`; arguments are those of `draw`.

        Args:
            seed: Seed of the draws.
            patch: Side of HR in pixels.
            photographs: Folder of clean photographs.
            length: Number of pairs.
        """
        if patch % self.scale or patch <= 0:
            raise UserError(f"patch must be a positive multiple of the scale {self.scale}, got {patch}")
        folder = None if photographs is None else Path(photographs)
        source = ImageSource.embedded("train") if folder is None else ImageSource.folder(folder)
        return PairDataset(self, source, Episode(support=1, query=0, patch=patch), seed, length)

    def degrade(self, hr: Tensor, seed: int, index: int) -> Tensor:
        """Degrades HR images of one's own by draw `index`.

        Args:
            hr: (N, 3, H, W) in [0, 1], sides being multiples of the scale.
            seed: Seed of the draws.
            index: Number of the draw; all images get the same parameters, and noise of their own.

        Returns:
            LR (N, 3, H / s, W / s) in [0, 1].

        Raises:
            UserError: The distribution consists of real pairs.
        """
        dataset = self.dataset(seed=seed, patch=8 * self.scale)
        return dataset.opened.degrade(hr, dataset.opened.draw(seed, index))


class PairDataset(Dataset[DrawnPair]):
    """Drawn pairs by their number.

    It can be sent to the workers of a `DataLoader`; pairs do not depend on their number. To collate, drop the
    parameters: `DataLoader(data, collate_fn=lambda pairs: (torch.stack([p.lr for p in pairs]), ...))`.

    Args:
        task: The distribution.
        source: Clean photographs.
        episode: Geometry of a draw.
        seed: Seed of the draws.
        length: Number of pairs.
    """

    def __init__(self, task: LoadedTask, source: ImageSource, episode: Episode, seed: int, length: int) -> None:
        self._task, self._source, self._episode = task, source, episode
        self._seed, self._length = seed, length
        self._opened: OpenDistribution | None = None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> DrawnPair:
        if not -self._length <= index < self._length:
            raise IndexError(f"pair {index} of {self._length}")
        draw = self.opened.draw(self._seed, index % self._length)
        lr, hr = self.opened.build_support(draw)
        return DrawnPair(lr[0], hr[0], draw.parameters())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    @property
    def opened(self) -> OpenDistribution:
        """The distribution with open photographs, of which those smaller than a patch are left out."""
        if self._opened is None:
            self._opened = self._task.spec.open(self._task.name, self._episode, self._images, "train")
        return self._opened

    def _images(self, split: Split) -> ImageStore:
        return ImageStore.open(self._source).at_least(self._episode.patch, self._episode.patch)


def load_task(name: str | os.PathLike[str], *, scale: Scale | None = None) -> LoadedTask:
    """Opens a task distribution.

    Args:
        name: A name of the catalogue or of the project in the current folder, or a task file.
        scale: Upscaling factor, if not that of the file.

    Raises:
        UserError: There is no such task, or its file is invalid.
    """
    path = Path(name)
    file = path if is_yaml(path) else Project(Path.cwd()).path("tasks", str(name))
    return LoadedTask(file.stem, read_task(file, scale))
