"""Aligns the pairs of a folder, and writes them into another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metarestore.errors import UserError
from metarestore.registration.align import AlignedPair, align_pair
from metarestore.registration.register import NotRegisteredError
from metarestore.tasks.pair_check import Fault, PairView, judge, observe
from metarestore.tasks.pair_files import PairFiles
from metarestore.tasks.pair_masks import MASKS
from metarestore.tasks.photographs import read_image, write_image

Progress = Callable[[str, int, int], None]
"""Called after each pair with its name, the number done, and the total."""

_ALIGNABLE: tuple[Fault, ...] = ("shifted", "rescaled")
"""Faults of content that an alignment may correct; it refuses those that it cannot."""


@dataclass(frozen=True)
class Alignment:
    """The result of aligning the pairs of a folder.

    Attributes:
        before: Median shift of tiles of each written pair before the alignment, in LR pixels; NaN without details.
        after: The same after it.
        masked: Fraction of masked pixels of each written pair.
        problems: One line for each pair that was left out.
    """

    before: tuple[float, ...]
    after: tuple[float, ...]
    masked: tuple[float, ...]
    problems: tuple[str, ...]


def align_folder(pairs: Sequence[PairFiles], out: Path, progress: Progress | None = None) -> Alignment:
    """Aligns pairs, and writes them as PNG files into `lr`, `hr` and `mask` of a folder, under the pairs' names.

    Args:
        pairs: The pairs.
        out: The folder.
        progress: Called after each pair.

    Raises:
        UserError: A file cannot be written.
    """
    problems = _implausible(pairs)
    written: list[AlignedPair] = []
    lines: list[str] = []
    for done, files in enumerate(pairs, start=1):
        try:
            if files.name in problems:
                raise UserError(problems[files.name])
            written.append(_aligned(files, out))
        except UserError as error:
            lines += error.problems
        except NotRegisteredError as error:
            lines.append(f"{files.lr.parent}: pair '{files.name}' cannot be aligned: {error}; remove it")
        if progress is not None:
            progress(files.name, done, len(pairs))
    before, after, masked = ([getattr(one, key) for one in written] for key in ("before", "after", "masked"))
    return Alignment(tuple(before), tuple(after), tuple(masked), tuple(lines))


def _aligned(files: PairFiles, out: Path) -> AlignedPair:
    raw = files.read()
    aligned = align_pair(raw.lr, raw.hr, raw.scale)
    gray = raw.gray and read_image(files.hr).gray
    for side, pixels in (("lr", aligned.lr), ("hr", aligned.hr)):
        write_image(out / side / f"{files.name}.png", pixels[..., 0] if gray else pixels)
    write_image(out / MASKS / f"{files.name}.png", aligned.mask.astype(np.uint8) * 255)
    return aligned


def _implausible(pairs: Sequence[PairFiles]) -> dict[str, str]:
    """Returns the problem of each pair that cannot be read or shows different scenes, by its name."""
    problems: dict[str, str] = {}
    views: list[PairView] = []
    for files in pairs:
        try:
            raw = files.read()
        except UserError as error:
            problems[files.name] = error.problems[0]
            continue
        views.append(observe(files.name, raw.lr, raw.hr))
    for report in judge(views):
        if report.problem is not None and report.fault not in _ALIGNABLE:
            problems[report.name] = f"{pairs[0].lr.parent}: {report.problem}"
    return problems
