"""Folders of aligned pairs: which files belong together, and in which sizes they fit.

Every command that reads pairs finds them here, so that all accept the same layouts and refuse the same mistakes.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarestore.errors import UserError
from metarestore.tasks.photographs import list_photographs, read_image

Size = tuple[int, int]
"""Height and width in pixels."""

SCALES = (2, 3, 4)
LISTED = 10
"""Files of one kind that an error names; the others are counted."""

_SUBFOLDERS = (
    ("lr", "hr"),
    ("LR", "HR"),
    ("test_LR", "test_HR"),
    ("train_LR", "train_HR"),
    ("LR_bicubic/X{scale}", "HR"),
    ("DIV2K_train_LR_bicubic/X{scale}", "DIV2K_train_HR"),
    ("DIV2K_valid_LR_bicubic/X{scale}", "DIV2K_valid_HR"),
)
"""Where data sets keep the two sides: our own, DRealSR, the bicubic benchmarks and DIV2K."""
_REMEDY = "pairs need the same file names, or lr_name and hr_name in the task file"


@dataclass(frozen=True)
class PairNames:
    """How the file names of a pair follow from the pair's name.

    Attributes:
        lr: Name of the LR file without suffix; `{name}` stands for the pair's name.
        hr: Name of the HR file.
    """

    lr: str = "{name}"
    hr: str = "{name}"


def published_names(scale: int | None) -> list[PairNames]:
    """Lists the names that published data sets give to pairs: DIV2K, RealSR, DRealSR.

    Args:
        scale: HR side over LR side; those of all scales if it is not known.
    """
    names: list[PairNames] = []
    for factor in SCALES if scale is None else (scale,):
        names += [PairNames(f"{{name}}x{factor}{track}", "{name}") for track in ("", "m", "d")]
        names += [PairNames(f"{{name}}_LR{factor}", "{name}_HR"), PairNames("{name}_x1", f"{{name}}_x{factor}")]
    return [*names, PairNames("{name}_LR", "{name}_HR"), PairNames("{name}_lr", "{name}_hr")]


@dataclass(frozen=True)
class Matching:
    """Which names of two folders belong together.

    Attributes:
        pairs: The LR and the HR file's name of each pair, by the pair's name; sorted.
        lone_lr: LR names without a partner.
        lone_hr: HR names without a partner.
    """

    pairs: Mapping[str, tuple[str, str]]
    lone_lr: tuple[str, ...]
    lone_hr: tuple[str, ...]

    @property
    def lone(self) -> int:
        """Number of files without a partner."""
        return len(self.lone_lr) + len(self.lone_hr)


@dataclass(frozen=True)
class PairFiles:
    """The files of one pair.

    Attributes:
        name: The pair's name.
        lr: LR file.
        hr: HR file.
        scale: HR side over LR side; it follows from the sizes if left out.
        crop: Whether both are cut at the bottom and right to a multiple of the scale.
    """

    name: str
    lr: Path
    hr: Path
    scale: int | None = None
    crop: bool = False

    def read(self) -> RawPair:
        """Reads both images.

        Raises:
            UserError: An image cannot be read, or the sizes do not fit.
        """
        lr, hr = read_image(self.lr), read_image(self.hr)
        sizes = (_size(lr.pixels), _size(hr.pixels))
        fitted = fitted_size(*sizes, self.scale, crop=self.crop)
        if fitted is None:
            raise UserError(f"{self.hr}: {size_problem(*sizes, self.scale)}")
        (h, w), scale = fitted
        return RawPair(lr.pixels[:h, :w], hr.pixels[: scale * h, : scale * w], scale, lr.gray)


class RawPair(NamedTuple):
    """A pair as it is stored.

    Attributes:
        lr: LR image (h, w, 3), RGB of 0..255.
        hr: HR image (scale·h, scale·w, 3).
        scale: HR side over LR side.
        gray: Whether the LR file stores a single channel.
    """

    lr: NDArray[np.uint8]
    hr: NDArray[np.uint8]
    scale: int
    gray: bool


@dataclass(frozen=True)
class PairFolder:
    """Where pairs are, and how they are read.

    Attributes:
        lr: Folder of LR images.
        hr: Folder of HR images; it may be the same folder, if the names tell LR from HR.
        names: How the file names follow from the pairs' names; recognised if left out.
        scale: HR side over LR side; it follows from the sizes if left out.
        crop: Whether HR and LR are cut at the bottom and right to a multiple of the scale.
    """

    lr: Path
    hr: Path
    names: PairNames | None = None
    scale: int | None = None
    crop: bool = False

    @classmethod
    def of_folder(cls, folder: Path, scale: int | None = None) -> PairFolder:
        """Finds the two sides in one folder: in `lr/` and `hr/`, or in the folder itself where the names differ."""
        scales = SCALES if scale is None else (scale,)
        subfolders = [(lr.format(scale=each), hr) for lr, hr in _SUBFOLDERS for each in scales]
        for lr, hr in subfolders:
            if (folder / lr).is_dir() and (folder / hr).is_dir():
                return cls(folder / lr, folder / hr, None, scale)
        inside = list(folder.iterdir()) if folder.is_dir() else []
        if any(path.is_file() for path in inside) and not any(path.name in ("lr", "hr") for path in inside):
            return cls(folder, folder, None, scale)
        return cls(folder / "lr", folder / "hr", None, scale)

    def match(self, lr: Iterable[str], hr: Iterable[str]) -> Matching:
        """Finds out which names belong together."""
        return match_names(lr, hr, self.names, self.scale, together=self.lr.absolute() == self.hr.absolute())

    def files(self) -> tuple[PairFiles, ...]:
        """Lists the pairs, sorted by name.

        Raises:
            UserError: A folder is missing or empty, or an image has no partner.
        """
        lr, hr = list_photographs(self.lr), list_photographs(self.hr)
        found = self.match(lr, hr)
        if problems := self.lone_problems(found, lr, hr):
            raise UserError(problems)
        return tuple(
            PairFiles(name, lr[low], hr[high], self.scale, self.crop) for name, (low, high) in found.pairs.items()
        )

    def lone_problems(self, found: Matching, lr: Mapping[str, Path], hr: Mapping[str, Path]) -> list[str]:
        """Returns a line for each file without a partner, up to ten."""
        lines = [f"{lr[name]}: has no partner '{name}' in {self.hr}; {_REMEDY}" for name in found.lone_lr]
        lines += [f"{hr[name]}: has no partner '{name}' in {self.lr}; {_REMEDY}" for name in found.lone_hr]
        if not found.pairs and not lines:
            lines = [f"{self.lr}: no file is called {self.names.lr if self.names else '{name}'}; correct lr_name"]
        return shortened(lines, f"{self.hr}: {{more}} more files have no partner; {_REMEDY}")


@dataclass(frozen=True)
class PairSource:
    """Pairs, and which of them may be learned from.

    Attributes:
        folder: Where they are.
        support_pool: How many of them may be learned from, if a task file says so.
    """

    folder: PairFolder
    support_pool: int | None = None

    def shots(self, shots: int) -> tuple[int, int]:
        """Returns how many pairs a study with so many shots learns from, and how many there are.

        At least one of several is left to test on.

        Raises:
            UserError: A folder is missing or empty, or an image has no partner.
        """
        there = len(self.folder.files())
        return max(min(shots, self.support_pool or there, there - 1), 1), there

    def tested(self) -> tuple[PairFiles, ...]:
        """Lists the pairs to measure on: all of a folder, the test pairs of a task file.

        Raises:
            UserError: A folder is missing or empty, or an image has no partner.
        """
        files = self.folder.files()
        if self.support_pool is None:
            return files
        _, test = split_pairs([each.name for each in files], self.support_pool)
        return tuple(each for each in files if each.name in test)


def split_pairs(names: Sequence[str], support_pool: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits pairs by name into those that may be learned from and those to test on; at least one is to test on."""
    count = min(support_pool, len(names) - 1)
    return tuple(names[:count]), tuple(names[count:])


def match_names(
    lr: Iterable[str], hr: Iterable[str], names: PairNames | None = None, scale: int | None = None, *, together: bool
) -> Matching:
    """Finds out which names belong together; names are compared after Unicode normalisation (NFC).

    Args:
        lr: Names of the LR files, without suffix.
        hr: Names of the HR files.
        names: How they follow from the pairs' names. If left out, equal names are pairs, or else the names of a
            published data set are recognised.
        scale: HR side over LR side, if known.
        together: Whether both are the names of one folder.
    """
    low, high = tuple(lr), tuple(hr)
    if names is None and not together and set(low) == set(high):
        return Matching({name: (name, name) for name in sorted(low)}, (), ())
    if names is not None:
        return _matched(low, high, names, strict=False, together=together)
    plain = [] if together else [PairNames()]
    tried = [
        _matched(low, high, each, strict=not together, together=together) for each in (*plain, *published_names(scale))
    ]
    # A complete layout wins, then the one that explains most files; equal names come first.
    return min(tried, key=lambda found: (found.lone > 0 or not found.pairs, -len(found.pairs)))


def fitted_size(lr: Size, hr: Size, scale: int | None, *, crop: bool) -> tuple[Size, int] | None:
    """Returns the size of LR that is used, and the scale; None where the sizes do not fit.

    Args:
        lr: Size of the LR image.
        hr: Size of the HR image.
        scale: HR side over LR side; 2, 3 or 4 if left out.
        crop: Whether both may be cut at the bottom and right, by less than one LR pixel of HR.
    """
    for factor in SCALES if scale is None else (scale,):
        if hr == (factor * lr[0], factor * lr[1]):
            return lr, factor
    for factor in (SCALES if scale is None else (scale,)) if crop else ():
        cut = (min(lr[0], hr[0] // factor), min(lr[1], hr[1] // factor))
        near = all(a - c <= 1 and b - factor * c < factor for a, b, c in zip(lr, hr, cut, strict=True))
        if near and min(cut) > 0:
            return cut, factor
    return None


def size_problem(lr: Size, hr: Size, scale: int | None) -> str:
    """Says why the sizes of a pair do not fit, and what to do."""
    (h, w), (height, width) = lr, hr
    said = f"is {height}x{width} (height x width), its LR partner {h}x{w}; "
    factors = SCALES if scale is None else (scale,)
    if lr == hr:
        return said + (
            "LR was enlarged to the size of HR, as in RealSR 1 and 2 and in City100, or is HR itself; "
            "use LR images as the camera stores them (RealSR 3)"
        )
    if h > height or w > width:
        return said + "HR is smaller than LR; exchange the folders"
    if any((height, width) == (factor * w, factor * h) for factor in factors):
        return said + "one of the two is rotated by 90 degrees; rotate it back"
    if fitted_size(lr, hr, scale, crop=True) is not None:
        return said + (
            "HR is not a multiple of the scale; write crop: true in a task file of kind pairs, and both are "
            "cut at the bottom and right"
        )
    if scale is None:
        return said + "HR must be exactly 2, 3 or 4 times as large on both sides; crop the pair"
    whole = next((k for k in range(2, 17) if (height, width) == (k * h, k * w)), None)
    other = f"; it is {whole} times as large" if whole else ""
    return said + f"at scale {scale} it should be {scale * h}x{scale * w}{other}"


def pair_content(lr: NDArray[np.uint8], hr: NDArray[np.uint8]) -> str:
    """Returns 16 hex digits that stand for the pixels of a pair, whatever its files are called."""
    content = hashlib.blake2b(digest_size=8)
    for image in (lr, hr):
        content.update(str(image.shape).encode())
        content.update(np.ascontiguousarray(image).data)
    return content.hexdigest()


def shortened(lines: Sequence[str], more: str) -> list[str]:
    """Returns the first ten lines, and `more` with the number of the others."""
    rest = len(lines) - LISTED
    return [*lines[:LISTED], more.format(more=rest)] if rest > 0 else list(lines)


def _matched(lr: Sequence[str], hr: Sequence[str], names: PairNames, *, strict: bool, together: bool) -> Matching:
    """Matches by one template.

    Args:
        lr: Names of the LR files.
        hr: Names of the HR files.
        names: The template.
        strict: Whether a name that does not follow the template has no partner; else it is not part of the pairs.
        together: Whether both are the names of one folder, where an LR name may look like an HR name.
    """
    low, high = dict(_keyed(lr, names.lr)), dict(_keyed(hr, names.hr))
    if together:
        taken = set(low.values()) if len(names.lr) >= len(names.hr) else set()
        high = {name: each for name, each in high.items() if each not in taken}
        low = {name: each for name, each in low.items() if each not in set(high.values())}
    pairs = {name: (low[name], high[name]) for name in sorted(low.keys() & high.keys())}
    used_lr, used_hr = {each for each, _ in pairs.values()}, {each for _, each in pairs.values()}
    sides = (lr, hr) if strict else (tuple(low.values()), tuple(high.values()))
    lone_lr, lone_hr = (
        tuple(name for name in side if name not in used) for side, used in zip(sides, (used_lr, used_hr), strict=True)
    )
    return Matching(pairs, lone_lr, lone_hr)


def _keyed(stored: Sequence[str], template: str) -> Iterator[tuple[str, str]]:
    """Yields the pair's name of each file that follows the template, and the file's own."""
    before, after = (unicodedata.normalize("NFC", part) for part in template.split("{name}"))
    for each in stored:
        name = unicodedata.normalize("NFC", each)
        if len(name) > len(before) + len(after) and name.startswith(before) and name.endswith(after):
            yield name[len(before) : len(name) - len(after)], each


def _size(pixels: NDArray[np.uint8]) -> Size:
    return pixels.shape[0], pixels.shape[1]
