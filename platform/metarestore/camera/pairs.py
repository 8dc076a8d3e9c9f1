"""The pairs of one camera: which of them are usable, and which are the shots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metarestore.errors import UserError
from metarestore.pair_source import named_pairs
from metarestore.tasks.pair_check import PairView, judge, observe
from metarestore.tasks.pair_files import PairFiles, shortened

_FEWEST = 3
"""Pairs that are needed: two to learn from, so that one can be left out, and one to test on."""
_SIDES = (64, 512)
"""Smallest and largest side of a shot, in HR pixels."""


@dataclass(frozen=True)
class CameraPairs:
    """The usable pairs of a camera.

    Attributes:
        files: The pairs, by name.
        scale: HR side over LR side.
        shots: Number of pairs that are learned from, the first by name; all others are tested on.
        side: Side of a shot and of a test crop, in HR pixels, a multiple of 8 LR pixels.
        left_out: One line for each pair whose LR does not show what HR shows.
    """

    files: tuple[PairFiles, ...]
    scale: int
    shots: int
    side: int
    left_out: tuple[str, ...]

    @property
    def tested(self) -> int:
        """Number of pairs that are tested on."""
        return len(self.files) - self.shots


def open_pairs(folder: Path, shots: int, scale: int | None = None) -> CameraPairs:
    """Reads and checks the pairs of a folder.

    Args:
        folder: A folder of pairs, or a task file of kind pairs.
        shots: Number of pairs to learn from, at most; at least one pair is tested on.
        scale: HR side over LR side, if known.

    Raises:
        UserError: Pairs cannot be read, have different scales, are too small, or fewer than three are usable.
    """
    files = named_pairs(folder, scale).folder.files()
    views: list[PairView] = []
    problems: list[str] = []
    scales: dict[str, int] = {}
    for pair in files:
        try:
            raw = pair.read()
        except UserError as error:
            problems += error.problems
            continue
        scales[pair.name] = raw.scale
        views.append(observe(pair.name, raw.lr, raw.hr))
    if problems:
        raise UserError(shortened(problems, f"{folder}: {{more}} more pairs cannot be read"))
    if len(found := sorted(set(scales.values()))) > 1:
        listing = ", ".join(f"x{each} ('{next(n for n in scales if scales[n] == each)}')" for each in found)
        raise UserError(f"{folder}: pairs of different scales: {listing}; put one scale into one folder")
    reports = {report.name: report.problem for report in judge(views) if report.problem is not None}
    usable = tuple(pair for pair in files if pair.name not in reports)
    wrong = tuple(f"{folder}: {problem}" for problem in reports.values())
    if len(usable) < _FEWEST:
        few = f"{folder}: {len(usable)} of {len(files)} pairs are usable, at least {_FEWEST} are needed"
        raise UserError([*shortened(wrong, f"{folder}: {{more}} more pairs like these"), f"{few}; add pairs"])
    sizes = [view.hr_size for view in views if view.name not in reports]
    return CameraPairs(usable, found[0], min(shots, len(usable) - 1), _side(folder, sizes, found[0]), wrong)


def _side(folder: Path, sizes: Sequence[tuple[int, int]], scale: int) -> int:
    """Returns the side of shots and crops: as large as all HR images allow, a multiple of 8 LR pixels."""
    least, largest = _SIDES
    side = min(largest, *(length for size in sizes for length in size))
    if side < least:
        raise UserError(f"{folder}: the smallest HR image has a side of {side} pixels, at least {least} are needed")
    return whole_blocks(side, scale)


def whole_blocks(side: int, scale: int) -> int:
    """Returns the largest multiple of 8 LR pixels, in HR pixels, that a side holds.

    >>> whole_blocks(128, 4), whole_blocks(128, 3), whole_blocks(512, 3)
    (128, 120, 504)
    """
    return side // (8 * scale) * 8 * scale
