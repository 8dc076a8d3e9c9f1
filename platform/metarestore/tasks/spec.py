"""The interface of all kinds of task files.

A kind is one file in this package, with a class that extends `DistributionSpec`, and an entry in `kinds.py`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from metarestore.config.base import Strict
from metarestore.config.keypath import KeyPath
from metarestore.degradations.base import Drawn, Step
from metarestore.degradations.kernels import Kernel
from metarestore.tasks.distribution import OpenDistribution
from metarestore.tasks.few_shot import FewShotGeometry, FewShotTarget
from metarestore.tasks.images import ImageStore
from metarestore.tasks.pair_files import PairSource
from metarestore.tasks.remarks import Remark
from metarestore.tasks.task import Episode, Split
from metarestore.tasks.vectors import DrawSpace

Scale = Literal[2, 3, 4]

Photographs = Callable[[Split], ImageStore]
"""Opens the clean photographs of a split."""


class KernelSource(Protocol):
    """Finds the blur kernels that task files leave open: (K, K), centred in the middle, K even if the scale is."""

    def of_image(self, image: Path, scale: Scale) -> Kernel:
        """Estimates the kernel of a photograph."""
        ...

    def of_file(self, path: Path, scale: Scale) -> Kernel:
        """Reads the kernel of a file."""
        ...

    def of_task(self, name: str, scale: Scale, seed: int, index: int) -> Kernel:
        """Returns the kernel of a draw of a task distribution."""
        ...

    def bicubic(self, scale: Scale) -> Kernel:
        """Returns the kernel of bicubic downsampling."""
        ...


class DistributionSpec(Strict, ABC):
    """One task distribution, as described by its file.

    Callers check the capabilities of a kind before they use them: `own_images`, `cases`, `steps` and `lr_files` are
    empty if a kind has none, and an open distribution states whether it `degrades` other images.
    """

    kind: str
    """Name of the kind."""
    scale: Scale
    """Ratio of HR side to LR side."""

    @property
    def own_images(self) -> Path | None:
        """Folder of the HR images of the kind; None if it degrades the photographs of a study."""
        return None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The entries of its pipeline; empty if it has none."""
        return ()

    @property
    def cases(self) -> tuple[Drawn, ...]:
        """The degradations of an evaluation protocol, which are all measured; empty if tasks are drawn at random."""
        return ()

    @property
    def space(self) -> DrawSpace:
        """The space of its draws."""
        return DrawSpace(())

    @property
    def pairs(self) -> PairSource | None:
        """The aligned real pairs of the kind; None if it has none."""
        return None

    @property
    def unresolved(self) -> bool:
        """Whether a kernel is yet to be found, by `resolved`."""
        return False

    def resolved(self, kernels: KernelSource) -> Self:
        """Returns the distribution with what it leaves to be estimated.

        Raises:
            UserError: It cannot be estimated or read.
        """
        del kernels
        return self

    def fitted_pairs(self) -> Mapping[str, str]:
        """Returns the hashes of the pairs to which the distribution was fitted, by name."""
        return {}

    def implausible_pairs(self) -> Sequence[str]:
        """Lists the kind's own images that do not seem to match, and how to correct or accept them.

        Raises:
            UserError: They cannot be opened.
        """
        return ()

    def lr_files(self) -> Mapping[str, Path]:
        """Returns the LR photographs of the kind, by name; empty if it has none.

        Raises:
            UserError: There should be some, but their folder is missing or empty.
        """
        return {}

    def content(self) -> Any:
        """Returns everything that determines its draws, as JSON data."""
        return self.model_dump(mode="json")

    @abstractmethod
    def at_scale(self, scale: Scale) -> Self:
        """Returns the same distribution for another scale.

        Raises:
            PydanticCustomError: It does not support this scale; a `ValueError` whose `at` is the key path.
        """

    @abstractmethod
    def rooted(self, root: Path) -> Self:
        """Returns the distribution with relative paths resolved against `root`, the project's folder."""

    @abstractmethod
    def missing(self) -> Sequence[tuple[KeyPath, str]]:
        """Returns the key and the problem of each file or folder that cannot be used."""

    def remarks(self) -> Iterable[Remark]:
        """Yields warnings about its pipeline, with their key paths."""
        return ()

    def moved(self, folder: Path) -> Self:
        """Returns the distribution with its own images in another folder."""
        del folder
        return self

    @abstractmethod
    def open(self, name: str, episode: Episode, images: Photographs, split: Split = "train") -> OpenDistribution:
        """Opens the distribution with its images.

        Args:
            name: The distribution's name.
            episode: Geometry of a task.
            images: Opens clean photographs; not called by kinds with their own images.
            split: Split from which patches are drawn.

        Raises:
            UserError: Images are missing, do not belong together, or are smaller than a patch.
        """

    @abstractmethod
    def few_shot(self, name: str, episode: Episode, images: Photographs, geometry: FewShotGeometry) -> FewShotTarget:
        """Opens the distribution as a few-shot target.

        Args:
            name: The distribution's name.
            episode: Geometry of a task.
            images: Opens clean photographs; not called by kinds with their own images.
            geometry: Shots and test crops.

        Raises:
            UserError: Images are missing, do not belong together, are smaller than a shot or a test crop, or are fewer
                than the shots.
        """


def content_hash(spec: DistributionSpec) -> str:
    """Returns a hash (16 hex digits) of the content of a distribution, independent of comments and layout."""
    canonical = json.dumps(spec.content(), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()
