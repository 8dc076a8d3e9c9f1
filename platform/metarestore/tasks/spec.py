"""The interface that every kind of task file implements: what it says, and what can be asked of it.

A kind is one file beside this one, with a class that extends `DistributionSpec`, and its entry in `kinds.py`.
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
    """One task distribution, as its file describes it.

    What a kind cannot do is asked for before it is tried: `own_images`, `cases`, `steps` and `lr_files` are empty
    where a kind has none, and an open distribution states whether it `degrades` other images.
    """

    kind: str
    """Name of the kind."""
    scale: Scale
    """HR side over LR side."""

    @property
    def own_images(self) -> Path | None:
        """Where the HR images are that the kind brings along; None if it degrades the photographs of a study."""
        return None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The entries of its pipeline; empty if it has none."""
        return ()

    @property
    def cases(self) -> tuple[Drawn, ...]:
        """The degradations of an evaluation protocol, which are all measured; empty if tasks are drawn by chance."""
        return ()

    @property
    def space(self) -> DrawSpace:
        """What may differ between its draws."""
        return DrawSpace(())

    @property
    def pairs(self) -> PairSource | None:
        """The aligned real pairs that the kind brings along; None if it has none."""
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
        """Returns the pairs that the distribution was fitted to, by name, with the hashes of their pixels."""
        return {}

    def implausible_pairs(self) -> Sequence[str]:
        """Names the images that the kind brings along but that do not seem to belong together, and says what to do.

        Raises:
            UserError: They cannot be opened.
        """
        return ()

    def lr_files(self) -> Mapping[str, Path]:
        """Lists the LR photographs that the kind brings along, by name; empty if it has none.

        Raises:
            UserError: There should be some, but their folder is missing or empty.
        """
        return {}

    def content(self) -> Any:
        """Returns what decides its draws, as JSON data."""
        return self.model_dump(mode="json")

    @abstractmethod
    def at_scale(self, scale: Scale) -> Self:
        """Returns the same distribution for another scale.

        Raises:
            PydanticCustomError: There is none; it is a `ValueError`, and `at` says where.
        """

    @abstractmethod
    def rooted(self, root: Path) -> Self:
        """Returns the distribution with its relative paths starting at `root`, the project's folder."""

    @abstractmethod
    def missing(self) -> Sequence[tuple[KeyPath, str]]:
        """Lists the files and folders that it names and that cannot be used: the key of each, and what is wrong."""

    def remarks(self) -> Iterable[Remark]:
        """Yields what works but is probably not meant: where in its pipeline, and what."""
        return ()

    def moved(self, folder: Path) -> Self:
        """Returns the distribution with the images that it brings along in another folder."""
        del folder
        return self

    @abstractmethod
    def open(self, name: str, episode: Episode, images: Photographs, split: Split = "train") -> OpenDistribution:
        """Opens the images that its tasks are made of.

        Args:
            name: The distribution's name.
            episode: Geometry of a task.
            images: Opens clean photographs; not called by a kind that brings its own images.
            split: Which of them patches are drawn from.

        Raises:
            UserError: Images are missing, do not belong together, or are smaller than a patch.
        """

    @abstractmethod
    def few_shot(self, name: str, episode: Episode, images: Photographs, geometry: FewShotGeometry) -> FewShotTarget:
        """Opens the distribution as a target of few shots.

        Args:
            name: The distribution's name.
            episode: Geometry of a task.
            images: Opens clean photographs; not called by a kind that brings its own images.
            geometry: Shots and test crops.

        Raises:
            UserError: Images are missing, do not belong together, are smaller than a shot or a test crop, or are fewer
                than the shots.
        """


def content_hash(spec: DistributionSpec) -> str:
    """Returns 16 hex digits that change with what a distribution draws, not with comments or the file's layout."""
    canonical = json.dumps(spec.content(), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()
