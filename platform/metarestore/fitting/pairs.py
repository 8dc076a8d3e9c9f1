"""Aligned LR/HR pairs in two folders; their scale follows from their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metarestore.errors import UserError
from metarestore.tasks.images import read_image
from metarestore.tasks.photographs import list_photographs

Floats = NDArray[np.float64]

_SCALES = (2, 3, 4)
_SMALLEST = 32
"""Least side of an LR image in pixels: below, a kernel of 5x5 LR pixels has hardly any equations."""


@dataclass(frozen=True)
class PairFiles:
    """Where one pair lies.

    Attributes:
        name: The files' common name, without suffix.
        lr: LR file.
        hr: HR file.
    """

    name: str
    lr: Path
    hr: Path


@dataclass(frozen=True)
class Pair:
    """One aligned pair, in grey levels of 0..255.

    Attributes:
        name: The files' common name.
        scale: HR side over LR side.
        lr: LR image (h, w, 3), RGB.
        hr: HR image (scale·h, scale·w, 3), RGB.
        gray: Whether the LR file stores a single channel.
    """

    name: str
    scale: int
    lr: Floats
    hr: Floats
    gray: bool = False


def list_pairs(folder: Path) -> tuple[PairFiles, ...]:
    """Lists the pairs `folder`/lr/NAME.*, `folder`/hr/NAME.*, sorted by name.

    Raises:
        UserError: A folder is missing or empty, or an image has no partner; all of them are named.
    """
    lr, hr = list_photographs(folder / "lr"), list_photographs(folder / "hr")
    problems = [_no_partner(lr[name], folder / "hr") for name in lr if name not in hr]
    problems += [_no_partner(hr[name], folder / "lr") for name in hr if name not in lr]
    if problems:
        raise UserError(problems)
    return tuple(PairFiles(name, lr[name], hr[name]) for name in lr)


def read_pair(files: PairFiles) -> Pair:
    """Reads one pair.

    Raises:
        UserError: An image cannot be read, is too small, or HR is not 2, 3 or 4 times as large as LR.
    """
    lr, hr = read_image(files.lr), read_image(files.hr)
    (h, w, _), (height, width, _) = lr.pixels.shape, hr.pixels.shape
    scale = next((scale for scale in _SCALES if (height, width) == (scale * h, scale * w)), None)
    if scale is None:
        raise UserError(
            f"{files.hr}: is {height}x{width} (height x width), its LR partner {h}x{w}; HR must be exactly 2, 3 or 4 "
            "times as large on both sides; crop the pair"
        )
    if min(h, w) < _SMALLEST:
        raise UserError(
            f"{files.lr}: is {h}x{w}; at least {_SMALLEST}x{_SMALLEST} are needed to fit a kernel; take a larger crop"
        )
    return Pair(files.name, scale, lr.pixels.astype(np.float64), hr.pixels.astype(np.float64), lr.gray)


def check_pairs(pairs: Sequence[PairFiles]) -> int:
    """Reads all pairs once, so that nothing is wrong with the last after minutes of work.

    Returns:
        Their common scale.

    Raises:
        UserError: A pair cannot be used, or two have different scales; all problems are named.
    """
    problems: list[str] = []
    scales: dict[int, PairFiles] = {}
    for files in pairs:
        try:
            scales.setdefault(read_pair(files).scale, files)
        except UserError as error:
            problems += error.problems
    if len(scales) > 1:
        found = ", ".join(f"x{scale} ('{files.name}')" for scale, files in sorted(scales.items()))
        problems.append(f"{pairs[0].hr.parent}: pairs of different scales: {found}; fit one camera and scale at a time")
    if problems:
        raise UserError(problems)
    return next(iter(scales))


def _no_partner(path: Path, other: Path) -> str:
    return f"{path}: has no partner '{path.stem}' in {other}; pairs need the same file names"
