"""Reads aligned pairs for a fit, and checks their sizes, scales and contents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metarestore.errors import UserError
from metarestore.tasks.pair_check import PairView, judge, observe
from metarestore.tasks.pair_files import PairFiles, PairFolder, pair_content, shortened

Floats = NDArray[np.float64]

_SMALLEST = 32
"""Minimum side of an LR image in pixels: below, there are too few equations for a kernel of 5x5 LR pixels."""

_DOUBTFUL = 0.7
"""Correlation of a pair below which its partner is also searched among the pairs that are not fitted."""


@dataclass(frozen=True)
class Pair:
    """One aligned pair, in grey levels of 0..255.

    Attributes:
        name: The pair's name.
        scale: HR side over LR side.
        lr: LR image (h, w, 3), RGB.
        hr: HR image (scale·h, scale·w, 3), RGB.
        gray: Whether the LR file stores a single channel.
        content: Hash of the pixels; empty for pairs that were not read from files.
        mask: Which pixels of HR are aligned (scale·h, scale·w); None if all are.
    """

    name: str
    scale: int
    lr: Floats
    hr: Floats
    gray: bool = False
    content: str = ""
    mask: NDArray[np.bool_] | None = None


def list_pairs(pairs: Path | PairFolder) -> tuple[PairFiles, ...]:
    """Lists the pairs of a folder, sorted by name.

    Raises:
        UserError: A folder is missing or empty, or an image has no partner; up to ten are listed.
    """
    return (pairs if isinstance(pairs, PairFolder) else PairFolder.of_folder(pairs)).files()


def read_pair(files: PairFiles) -> Pair:
    """Reads one pair.

    Raises:
        UserError: An image cannot be read, is too small, or HR is not 2, 3 or 4 times as large as LR.
    """
    raw = files.read()
    h, w, _ = raw.lr.shape
    if min(h, w) < _SMALLEST:
        raise UserError(
            f"{files.lr}: is {h}x{w}; at least {_SMALLEST}x{_SMALLEST} are needed to fit a kernel; take a larger crop"
        )
    content = pair_content(raw.lr, raw.hr)
    return Pair(
        files.name, raw.scale, raw.lr.astype(np.float64), raw.hr.astype(np.float64), raw.gray, content, raw.mask
    )


def check_pairs(pairs: Sequence[PairFiles], others: Sequence[PairFiles] = ()) -> int:
    """Reads and checks all pairs before the fit starts.

    Args:
        pairs: The pairs.
        others: Other pairs of the folder, in which the correct partners of wrong pairs are searched.

    Returns:
        Their common scale.

    Raises:
        UserError: A pair cannot be used, LR and HR of a pair differ in content, or scales differ; all problems are
            listed.
    """
    problems: list[str] = []
    scales: dict[int, PairFiles] = {}
    views = []
    for files in pairs:
        try:
            pair = read_pair(files)
        except UserError as error:
            problems += error.problems
            continue
        scales.setdefault(pair.scale, files)
        views.append(observe(pair.name, pair.lr.astype(np.uint8), pair.hr.astype(np.uint8)))
    folder = pairs[0].lr.parent
    reports = judge(views)
    if any(report.correlation < _DOUBTFUL for report in reports):
        reports = judge([*views, *_observed(others)])[: len(views)]
    wrong = [f"{folder}: {report.problem}" for report in reports if report.problem is not None]
    problems += shortened(wrong, f"{folder}: {{more}} more pairs like these")
    if len(scales) > 1:
        listing = ", ".join(f"x{scale} ('{files.name}')" for scale, files in sorted(scales.items()))
        problems.append(
            f"{pairs[0].hr.parent}: pairs of different scales: {listing}; fit one camera and scale at a time"
        )
    if problems:
        raise UserError(problems)
    return next(iter(scales))


def _observed(pairs: Sequence[PairFiles]) -> Iterator[PairView]:
    """Yields the data of the pairs that can be read."""
    for files in pairs:
        with suppress(UserError):
            raw = files.read()
            yield observe(files.name, raw.lr, raw.hr)
