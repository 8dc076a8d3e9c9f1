"""Stores of the LR and HR photographs of pairs, under the names of the pairs and cropped to matching sizes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarestore.errors import UserError
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.tasks.pair_check import PairReport, judge, observe
from metarestore.tasks.pair_files import PairFolder, Size, fitted_size, shortened, size_problem
from metarestore.tasks.pair_masks import Masks


class PairImages(ImageStore):
    """Photographs of a store under other names, each cropped at the bottom and right.

    Args:
        store: All photographs of the folder.
        stored: Name of each photograph in the store, by the name of its pair.
        sizes: Size of each photograph after cropping, by the name of its pair.
    """

    def __init__(self, store: ImageStore, stored: Mapping[str, str], sizes: Mapping[str, Size]) -> None:
        super().__init__(store.source, store._key, store._index)
        self._store, self._stored, self._sizes = store, dict(stored), dict(sizes)

    @property
    def names(self) -> tuple[str, ...]:
        """The pairs' names, sorted."""
        return tuple(self._stored)

    @cached_property
    def content(self) -> str:
        """A hash of the names, sizes and pixels."""
        described = json.dumps([self._store.content, self._stored, self._sizes], sort_keys=True)
        return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()

    def size(self, name: str) -> Size:
        """Returns (height, width) in pixels after cropping."""
        self._require(name)
        return self._sizes[name]

    def is_gray(self, name: str) -> bool:
        """Returns whether the file of this photograph stores a single channel."""
        self._require(name)
        return self._store.is_gray(self._stored[name])

    def image(self, name: str) -> NDArray[np.uint8]:
        """Returns a cropped photograph, uint8 (H, W, 3), as a read-only view of the shared memory map."""
        height, width = self.size(name)
        return self._store.image(self._stored[name])[:height, :width]

    def require_size(self, height: int, width: int) -> None:
        """Checks that a crop of this size fits into every photograph.

        Raises:
            UserError: Some photographs are smaller; all of them are listed.
        """
        small = {name: size for name, size in self._sizes.items() if size[0] < height or size[1] < width}
        if small:
            raise UserError(
                [
                    f"{self.source}: '{self._stored[name]}' is {h}x{w} (height x width), smaller than the "
                    f"{height}x{width} crop; remove it or choose a smaller crop"
                    for name, (h, w) in small.items()
                ]
            )

    def _require(self, name: str) -> None:
        if name not in self._stored:
            raise UserError(f"{self.source}: there is no photograph of the pair '{name}'; restore its file")

    def __reduce__(self) -> tuple[type[PairImages], tuple[Any, ...]]:
        return PairImages, (self._store, self._stored, self._sizes)


class Sides:
    """LR and HR images of a camera, compared by content.

    Args:
        lr: LR images.
        hr: HR images of the same names.
    """

    def __init__(self, lr: ImageStore, hr: ImageStore) -> None:
        self.lr, self.hr = lr, hr

    @classmethod
    def open(cls, folder: PairFolder) -> Sides:
        """Opens both folders.

        Raises:
            UserError: An image has no partner or cannot be read, or sizes do not match the scale.
        """
        return cls(*open_sides(folder))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sides) and (self.lr.content, self.hr.content) == (other.lr.content, other.hr.content)

    def __hash__(self) -> int:
        return hash((self.lr.content, self.hr.content))


def open_sides(folder: PairFolder) -> tuple[ImageStore, ImageStore]:
    """Opens LR and HR images of a camera, under the same names and cropped to matching sizes.

    Raises:
        UserError: An image has no partner or cannot be read, or sizes do not match the scale.
    """
    sources = (ImageSource.folder(folder.lr), ImageSource.folder(folder.hr))
    lr_files, hr_files = (source.files() for source in sources)
    matching = folder.match(lr_files, hr_files)
    if lone := folder.lone_problems(matching, lr_files, hr_files):
        raise UserError(lone)
    lr, hr = (ImageStore.open(source) for source in sources)
    lr_sizes: dict[str, Size] = {}
    hr_sizes: dict[str, Size] = {}
    wrong = []
    for name, (low, high) in matching.pairs.items():
        sizes = (lr.size(low), hr.size(high))
        fitted = fitted_size(*sizes, folder.scale, crop=folder.crop)
        if fitted is None:
            wrong.append(f"{folder.hr}: '{high}' {size_problem(*sizes, folder.scale)}")
        else:
            lr_sizes[name], scale = fitted
            hr_sizes[name] = (scale * lr_sizes[name][0], scale * lr_sizes[name][1])
    if wrong:
        raise UserError(shortened(wrong, f"{folder.hr}: {{more}} more pairs do not fit scale {folder.scale}"))
    stored_lr, stored_hr = ({name: pair[side] for name, pair in matching.pairs.items()} for side in (0, 1))
    return _renamed(lr, stored_lr, lr_sizes), _renamed(hr, stored_hr, hr_sizes)


def read_masks(folder: PairFolder) -> Masks:
    """Reads all masks, by the name of the pair.

    Raises:
        UserError: A mask or its pair cannot be read, or the sizes do not match.
    """
    if not folder.masks():
        return {}
    return {pair.name: mask for pair in folder.matched() if pair.mask and (mask := pair.read().mask) is not None}


def inspect_pairs(folder: PairFolder) -> tuple[PairReport, ...]:
    """Compares all pairs of two folders, once per process and content; sorted by name.

    Raises:
        UserError: They cannot be opened.
    """
    return _inspected(Sides.open(folder))


def implausible_pairs(folder: PairFolder) -> tuple[str, ...]:
    """Lists the pairs whose LR and HR contents do not match, and how to accept them if they are correct.

    Raises:
        UserError: They cannot be opened.
    """
    wrong = [report.problem for report in inspect_pairs(folder) if report.problem is not None]
    if not wrong:
        return ()
    lines = shortened([f"{folder.lr}: {each}" for each in wrong], f"{folder.lr}: {{more}} more pairs like these")
    return (*lines, f"{folder.lr}: if the pairs are correct, write check_content: false in the task file")


@lru_cache(maxsize=8)
def _inspected(sides: Sides) -> tuple[PairReport, ...]:
    return judge([observe(name, sides.lr.image(name), sides.hr.image(name)) for name in sides.hr.names])


def _renamed(store: ImageStore, stored: Mapping[str, str], sizes: Mapping[str, Size]) -> ImageStore:
    """Renames and crops the photographs of a store; returns the store itself if nothing changes."""
    same = set(stored) == set(store.names) and all(name == each for name, each in stored.items())
    whole = same and all(store.size(name) == size for name, size in sizes.items())
    return store if whole else PairImages(store, stored, sizes)
