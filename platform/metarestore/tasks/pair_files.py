"""Folders of aligned pairs: matching of file names, and checks of sizes.

All commands that read pairs use this module, so that they accept the same layouts and reject the same mistakes.
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
from metarestore.tasks.pair_masks import mask_files, read_mask
from metarestore.tasks.photographs import list_photographs, read_image

Size = tuple[int, int]
"""Height and width in pixels."""

SCALES = (2, 3, 4)
LISTED = 10
"""Maximum number of files listed in an error; the others are counted."""

_SUBFOLDERS = (
    ("lr", "hr"),
    ("LR", "HR"),
    ("test_LR", "test_HR"),
    ("train_LR", "train_HR"),
    ("LR_bicubic/X{scale}", "HR"),
    ("DIV2K_train_LR_bicubic/X{scale}", "DIV2K_train_HR"),
    ("DIV2K_valid_LR_bicubic/X{scale}", "DIV2K_valid_HR"),
)
"""Folders of LR and HR in data sets: ours, DRealSR, the bicubic benchmarks and DIV2K."""
_REMEDY = "pairs need the same file names, or lr_name and hr_name in the task file"


@dataclass(frozen=True)
class PairNames:
    """Templates of the file names of a pair.

    Attributes:
        lr: Name of the LR file without suffix; `{name}` stands for the pair's name.
        hr: Name of the HR file.
    """

    lr: str = "{name}"
    hr: str = "{name}"


def published_names(scale: int | None) -> list[PairNames]:
    """Returns the name templates of published data sets: DIV2K, RealSR, DRealSR.

    Args:
        scale: Ratio of HR side to LR side; all scales if unknown.
    """
    names: list[PairNames] = []
    for factor in SCALES if scale is None else (scale,):
        names += [PairNames(f"{{name}}x{factor}{track}", "{name}") for track in ("", "m", "d")]
        names += [PairNames(f"{{name}}_LR{factor}", "{name}_HR"), PairNames("{name}_x1", f"{{name}}_x{factor}")]
    return [*names, PairNames("{name}_LR", "{name}_HR"), PairNames("{name}_lr", "{name}_hr")]


@dataclass(frozen=True)
class Matching:
    """The result of matching the names of two folders.

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
        scale: Ratio of HR side to LR side; determined from the sizes if omitted.
        crop: Whether both are cropped at the bottom and right to a multiple of the scale.
        mask: Mask of the HR image: pixels of 0 are not aligned and do not count; None if all are aligned.
    """

    name: str
    lr: Path
    hr: Path
    scale: int | None = None
    crop: bool = False
    mask: Path | None = None

    def read(self) -> RawPair:
        """Reads both images.

        Raises:
            UserError: An image or the mask cannot be read, or the sizes do not fit.
        """
        lr, hr = read_image(self.lr), read_image(self.hr)
        sizes = (_size(lr.pixels), _size(hr.pixels))
        fitted = fitted_size(*sizes, self.scale, crop=self.crop)
        if fitted is None:
            raise UserError(f"{self.hr}: {size_problem(*sizes, self.scale)}")
        (h, w), scale = fitted
        mask = self.read_mask(hr.pixels.shape[0], hr.pixels.shape[1])
        cut = None if mask is None else mask[: scale * h, : scale * w]
        return RawPair(lr.pixels[:h, :w], hr.pixels[: scale * h, : scale * w], scale, lr.gray, cut)

    def read_mask(self, height: int, width: int) -> NDArray[np.bool_] | None:
        """Reads which pixels of HR (H, W) are aligned; None if all are.

        Args:
            height: Height of the HR file in pixels.
            width: Its width.

        Raises:
            UserError: The mask cannot be read, has another size, or masks everything.
        """
        return None if self.mask is None else read_mask(self.mask, height, width)


class RawPair(NamedTuple):
    """A pair as stored in its files.

    Attributes:
        lr: LR image (h, w, 3), RGB of 0..255.
        hr: HR image (scale·h, scale·w, 3).
        scale: HR side over LR side.
        gray: Whether the LR file stores a single channel.
        mask: Which pixels of HR (scale·h, scale·w) are aligned; None if all are.
    """

    lr: NDArray[np.uint8]
    hr: NDArray[np.uint8]
    scale: int
    gray: bool
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class PairFolder:
    """The folders of pairs, and options for reading them.

    Attributes:
        lr: Folder of LR images.
        hr: Folder of HR images; it may be the same folder if the names distinguish LR from HR.
        names: Templates of the file names; recognised automatically if omitted.
        scale: Ratio of HR side to LR side; determined from the sizes if omitted.
        crop: Whether HR and LR are cropped at the bottom and right to a multiple of the scale.
    """

    lr: Path
    hr: Path
    names: PairNames | None = None
    scale: int | None = None
    crop: bool = False

    @classmethod
    def of_folder(cls, folder: Path, scale: int | None = None) -> PairFolder:
        """Finds LR and HR in one folder: in known subfolders such as `lr/` and `hr/`, or in the folder itself."""
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
        """Matches the names of LR and HR files."""
        return match_names(lr, hr, self.names, self.scale, together=self.lr.absolute() == self.hr.absolute())

    def files(self) -> tuple[PairFiles, ...]:
        """Returns the pairs, sorted by name.

        Raises:
            UserError: A folder is missing or empty, or an image has no partner.
        """
        lr, hr = list_photographs(self.lr), list_photographs(self.hr)
        matching = self.match(lr, hr)
        if problems := self.lone_problems(matching, lr, hr):
            raise UserError(problems)
        return self._paired(matching, lr, hr)

    def matched(self) -> tuple[PairFiles, ...]:
        """Returns the pairs like `files`, without regard to images that have no partner.

        Raises:
            UserError: A folder is missing or empty.
        """
        lr, hr = list_photographs(self.lr), list_photographs(self.hr)
        return self._paired(self.match(lr, hr), lr, hr)

    def _paired(self, matching: Matching, lr: Mapping[str, Path], hr: Mapping[str, Path]) -> tuple[PairFiles, ...]:
        masks = self.masks()
        return tuple(
            PairFiles(name, lr[low], hr[high], self.scale, self.crop, masks.get(name))
            for name, (low, high) in matching.pairs.items()
        )

    def masks(self) -> Mapping[str, Path]:
        """Returns the masks in the folder `mask` beside those of LR and HR, by the name of the pair."""
        return mask_files(self.lr, self.hr)

    def lone_problems(self, matching: Matching, lr: Mapping[str, Path], hr: Mapping[str, Path]) -> list[str]:
        """Returns a line for each file without a partner, up to ten."""
        lines = [f"{lr[name]}: has no partner '{name}' in {self.hr}; {_REMEDY}" for name in matching.lone_lr]
        lines += [f"{hr[name]}: has no partner '{name}' in {self.lr}; {_REMEDY}" for name in matching.lone_hr]
        if not matching.pairs and not lines:
            lines = [f"{self.lr}: no file is called {self.names.lr if self.names else '{name}'}; correct lr_name"]
        return shortened(lines, f"{self.hr}: {{more}} more files have no partner; {_REMEDY}")


@dataclass(frozen=True)
class PairSource:
    """Pairs, and how many of them may be used for learning.

    Attributes:
        folder: The folders of the pairs.
        support_pool: Number of pairs that may be used for learning, if a task file specifies it.
    """

    folder: PairFolder
    support_pool: int | None = None

    def shots(self, shots: int) -> tuple[int, int]:
        """Returns the number of pairs that a study with `shots` shots uses for learning, and the total number.

        If there are several pairs, at least one is kept for testing.

        Raises:
            UserError: A folder is missing or empty, or an image has no partner.
        """
        count = len(self.folder.files())
        return max(min(shots, self.support_pool or count, count - 1), 1), count

    def tested(self) -> tuple[PairFiles, ...]:
        """Returns the pairs for measurements: all pairs of a folder, or the test pairs of a task file.

        Raises:
            UserError: A folder is missing or empty, or an image has no partner.
        """
        files = self.folder.files()
        if self.support_pool is None:
            return files
        _, test = split_pairs([each.name for each in files], self.support_pool)
        return tuple(each for each in files if each.name in test)


def split_pairs(names: Sequence[str], support_pool: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits pairs by name into pairs for learning and test pairs, of which there is at least one."""
    count = min(support_pool, len(names) - 1)
    return tuple(names[:count]), tuple(names[count:])


def match_names(
    lr: Iterable[str], hr: Iterable[str], names: PairNames | None = None, scale: int | None = None, *, together: bool
) -> Matching:
    """Matches LR and HR names, after Unicode normalisation (NFC).

    Args:
        lr: Names of the LR files, without suffix.
        hr: Names of the HR files.
        names: Templates of the names. If omitted, equal names are pairs, or else the names of a published data set are
            recognised.
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
    # Complete layouts take precedence, then those that match most files; equal names come first.
    return min(tried, key=lambda matching: (matching.lone > 0 or not matching.pairs, -len(matching.pairs)))


def fitted_size(lr: Size, hr: Size, scale: int | None, *, crop: bool) -> tuple[Size, int] | None:
    """Returns the size of LR to use, and the scale; None if the sizes do not match.

    Args:
        lr: Size of the LR image.
        hr: Size of the HR image.
        scale: Ratio of HR side to LR side; 2, 3 or 4 if omitted.
        crop: Whether both may be cropped at the bottom and right, HR by less than one LR pixel.
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
    """Returns why the sizes of a pair do not match, and what to do."""
    (h, w), (height, width) = lr, hr
    prefix = f"is {height}x{width} (height x width), its LR partner {h}x{w}; "
    factors = SCALES if scale is None else (scale,)
    if lr == hr:
        return prefix + (
            "LR was enlarged to the size of HR, as in RealSR 1 and 2 and in City100, or is HR itself; "
            "use LR images as the camera stores them (RealSR 3)"
        )
    if h > height or w > width:
        return prefix + "HR is smaller than LR; exchange the folders"
    if any((height, width) == (factor * w, factor * h) for factor in factors):
        return prefix + "one of the two is rotated by 90 degrees; rotate it back"
    if fitted_size(lr, hr, scale, crop=True) is not None:
        return prefix + (
            "HR is not a multiple of the scale; write crop: true in a task file of kind pairs, and both are "
            "cut at the bottom and right"
        )
    if scale is None:
        return prefix + "HR must be exactly 2, 3 or 4 times as large on both sides; crop the pair"
    whole = next((k for k in range(2, 17) if (height, width) == (k * h, k * w)), None)
    other = f"; it is {whole} times as large" if whole else ""
    return prefix + f"at scale {scale} it should be {scale * h}x{scale * w}{other}"


def pair_content(lr: NDArray[np.uint8], hr: NDArray[np.uint8]) -> str:
    """Returns a hash (16 hex digits) of the pixels of a pair, independent of file names."""
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
    """Matches names by one pair of templates.

    Args:
        lr: Names of the LR files.
        hr: Names of the HR files.
        names: The template.
        strict: Whether names that do not match the template count as files without a partner, or are ignored.
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
    """Yields the pair name and the file name of each file that matches the template."""
    before, after = (unicodedata.normalize("NFC", part) for part in template.split("{name}"))
    for each in stored:
        name = unicodedata.normalize("NFC", each)
        if len(name) > len(before) + len(after) and name.startswith(before) and name.endswith(after):
            yield name[len(before) : len(name) - len(after)], each


def _size(pixels: NDArray[np.uint8]) -> Size:
    return pixels.shape[0], pixels.shape[1]
