"""PSNR-Y and SSIM-Y on given LR and HR images, e.g. published LR sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metarestore.errors import UserError
from metarestore.evaluation.folder import FolderReport, Progress, Restore, evaluate_files
from metarestore.tasks.pair_check import judge, observe
from metarestore.tasks.pair_files import PairFiles, fitted_size, shortened, size_problem
from metarestore.tasks.photographs import read_image

PAIRS_PROTOCOL = (
    "LR images as given; HR cut at the bottom and right to a multiple of the scale; Y of BT.601 limited range, rounded "
    "to 8 bit (a single-channel file is its own Y); border = scale; peak 255; SSIM of Wang et al. 2004, 11x11 Gaussian "
    "window; pixels of 0 in the mask of a pair do not count"
)


def evaluate_pairs(
    pairs: Sequence[PairFiles], scale: int, restore: Restore, progress: Progress | None = None
) -> FolderReport:
    """Restores the LR image of each pair and compares it with HR; all files are checked before the first.

    Args:
        pairs: The pairs.
        scale: Upscaling factor.
        restore: The restoration to measure.
        progress: Called after each pair.

    Raises:
        UserError: A file is no photograph or is too small, or LR and HR do not fit the scale.
        ValueError: `restore` returns another type or size.
    """
    files = {pair.name: pair for pair in pairs}

    def given(name: str, hr: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = (side // scale for side in hr.shape[:2])
        return np.ascontiguousarray(read_image(files[name].lr).pixels[:height, :width])

    def counted(name: str, hr: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
        stored = read_image(files[name].hr).pixels if files[name].mask is not None else hr
        mask = files[name].read_mask(stored.shape[0], stored.shape[1])
        return None if mask is None else mask[: hr.shape[0], : hr.shape[1]]

    return evaluate_files({name: pair.hr for name, pair in files.items()}, scale, restore, progress, given, counted)


def check_evaluated(pairs: Sequence[PairFiles], scale: int) -> list[str]:
    """Reads all pairs once, and returns one line for each whose LR and HR contents do not match.

    Raises:
        UserError: A file is no photograph, or LR and HR do not fit the scale.
    """
    problems: list[str] = []
    views = []
    for pair in pairs:
        try:
            lr, hr = read_image(pair.lr).pixels, read_image(pair.hr).pixels
            sizes = ((lr.shape[0], lr.shape[1]), (hr.shape[0], hr.shape[1]))
            pair.read_mask(*sizes[1])
        except UserError as error:
            problems += error.problems
            continue
        if fitted_size(*sizes, scale, crop=True) is None:
            problems.append(f"{pair.hr}: {size_problem(*sizes, scale)}")
        else:
            views.append(observe(pair.name, lr, hr))
    if problems:
        raise UserError(shortened(problems, f"{pairs[0].hr.parent}: {{more}} more pairs cannot be used"))
    return [report.problem for report in judge(views) if report.problem is not None]
