"""Checks pairs one by one: sizes, content, alignment, exposure, sharpness and duplicates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarestore.errors import UserError
from metarestore.registration.compare import blurred, details, gray, reduced, residual
from metarestore.registration.exposure import Exposure, match_exposure
from metarestore.registration.register import NotRegisteredError, energy, register, sharpness
from metarestore.tasks.pair_check import PairView, judge, observe
from metarestore.tasks.pair_files import PairFiles, PairFolder, RawPair
from metarestore.tasks.photographs import list_photographs

Progress = Callable[[str, int, int], None]
"""Called after each pair with its name, the number done, and the total."""

_MISALIGNED = 0.25
"""Shift in LR pixels above which there is a remark; pairs of RealSR have 0.1."""
_EXPOSED = 0.15
"""Difference of a gain from 1 above which there is a remark."""
_FINE = 0.5
_SHARPER, _CLEARLY = 0.7, 0.8
"""Blur of LR in LR pixels, and the fraction of the differences left by it, with which HR is the blurrier image."""
_SHARPENED = 0.6
"""Unsharp masking of HR that LR must correspond to as well, since blurring LR also removes its noise."""
_ALIKE = 0.995
"""Correlation of the details of two pictures above which they are the same."""


@dataclass(frozen=True)
class PairCheck:
    """The result of checking one pair.

    Attributes:
        name: The pair's name.
        lr_size: Height and width of LR; None if it cannot be read.
        hr_size: Height and width of HR.
        scale: HR side over LR side; None if the sizes do not match.
        correlation: Correlation of LR with HR.
        shift: Mean position of LR pixels in HR, (down, right) in LR pixels; None if it cannot be determined.
        residual: Median shift of tiles, in LR pixels.
        gains: Gains of R, G, B from HR to LR.
        blur: Blur of LR relative to HR reduced to its size, in LR pixels; negative if HR is the blurrier image.
        problems: Why the pair cannot be used.
        remarks: What may be improved.
    """

    name: str
    lr_size: tuple[int, int] | None = None
    hr_size: tuple[int, int] | None = None
    scale: int | None = None
    correlation: float | None = None
    shift: tuple[float, float] | None = None
    residual: float | None = None
    gains: tuple[float, ...] | None = None
    blur: float | None = None
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the check as JSON data."""
        return dict(vars(self))


def check_folder(folder: PairFolder, progress: Progress | None = None) -> tuple[PairCheck, ...]:
    """Checks all pairs of a folder, including files without a partner; sorted by name.

    Args:
        folder: The folders of LR and HR.
        progress: Called after each pair.

    Raises:
        UserError: A folder is missing or empty, or no file has a partner.
    """
    lr, hr = list_photographs(folder.lr), list_photographs(folder.hr)
    matching = folder.match(lr, hr)
    if not matching.pairs:
        raise UserError(folder.lone_problems(matching, lr, hr))
    lone = [PairCheck(name, problems=("LR has no HR partner of its name",)) for name in matching.lone_lr]
    lone += [PairCheck(name, problems=("HR has no LR partner of its name",)) for name in matching.lone_hr]
    return tuple(sorted([*check_files(folder.matched(), progress), *lone], key=lambda check: check.name))


def check_files(pairs: Sequence[PairFiles], progress: Progress | None = None) -> tuple[PairCheck, ...]:
    """Checks pairs, each by itself and against the others.

    Args:
        pairs: The pairs.
        progress: Called after each pair.
    """
    checks: dict[str, PairCheck] = {}
    views: list[PairView] = []
    for done, files in enumerate(pairs, start=1):
        try:
            raw = files.read()
        except UserError as error:
            checks[files.name] = PairCheck(files.name, problems=error.problems)
        else:
            checks[files.name] = _measured(files.name, raw)
            views.append(observe(files.name, raw.lr, raw.hr))
        if progress is not None:
            progress(files.name, done, len(pairs))
    for report in judge(views):
        check = replace(checks[report.name], correlation=report.correlation)
        if report.problem is not None:
            # Of a pair of different scenes, nothing else can be measured.
            check = replace(
                check, shift=None, residual=None, gains=None, blur=None, problems=(report.problem,), remarks=()
            )
        checks[report.name] = check
    for name, other in duplicates(views).items():
        checks[name] = replace(
            checks[name], problems=(*checks[name].problems, f"shows the same picture as '{other}'; remove one of them")
        )
    return _with_scales(list(checks.values()))


def duplicates(views: Sequence[PairView]) -> dict[str, str]:
    """Returns, for each pair whose LR and HR both show what those of an earlier one show, the name of that pair."""
    if not views:
        return {}
    alike = np.minimum(*(_correlations([getattr(view, side) for view in views]) for side in ("lr", "hr")))
    sized = np.array([view.hr_size for view in views])
    same = (alike > _ALIKE) & (sized[:, None] == sized).all(axis=-1)
    firsts = [int(np.flatnonzero(row)[0]) if row.any() else k for k, row in enumerate(same)]
    return {views[k].name: views[first].name for k, first in enumerate(firsts) if first < k}


def _correlations(copies: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    rows = np.stack([details(copy, 0.5, 6.0).ravel() for copy in copies]).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    # Pictures without details are like no other.
    unit = np.where(length > len(rows[0]) ** 0.5, rows / np.maximum(length, 1e-6), 0.0)
    return np.asarray(unit @ unit.T)


def _measured(name: str, raw: RawPair) -> PairCheck:
    low, high = raw.lr.astype(np.float32), raw.hr.astype(np.float32)
    small = reduced(high, raw.scale)
    exposure = match_exposure(low, small)
    check = PairCheck(
        name,
        (raw.lr.shape[0], raw.lr.shape[1]),
        (raw.hr.shape[0], raw.hr.shape[1]),
        raw.scale,
        gains=exposure.gains,
    )
    try:
        motion = register(low, high, raw.scale, local=False)
    except NotRegisteredError:
        return _judged(replace(check, blur=_blur(low, small, exposure)))
    right, down = motion.displacements(*raw.lr.shape[:2]).mean(axis=(0, 1))
    left_over = residual(gray(low), gray(small))
    return _judged(
        replace(
            check,
            shift=(float(down), float(right)),
            residual=None if math.isnan(left_over) else left_over,
            blur=_blur(low, small, exposure),
        )
    )


def _blur(low: NDArray[np.float32], small: NDArray[np.float32], exposure: Exposure) -> float:
    lr, high = gray(low), gray(exposure.apply(small))
    known = np.ones(lr.shape, np.bool_)
    of_lr, of_hr = sharpness(lr, high, known, _FINE), sharpness(high, lr, known, _FINE)
    left_by_lr = energy(details(lr, _FINE), details(blurred(high, of_lr), _FINE), known)
    left_by_hr = energy(details(blurred(lr, of_hr), _FINE), details(high, _FINE), known)
    is_soft = of_hr >= _SHARPER and left_by_hr < _CLEARLY * left_by_lr and _sharpening(lr, high) > _SHARPENED
    return -of_hr if is_soft else of_lr


def _sharpening(lr: NDArray[np.float32], high: NDArray[np.float32]) -> float:
    """Returns the amount of unsharp masking that makes HR like LR, by least squares; noise of LR does not bias it."""
    fine = high - blurred(high, 1.0)
    terms = np.stack([details(high, _FINE).ravel(), details(fine, _FINE).ravel()], axis=1).astype(np.float64)
    (gain, amount), *_ = np.linalg.lstsq(terms, details(lr, _FINE).ravel().astype(np.float64), rcond=None)
    return float(amount / gain) if gain > 0 else 0.0


def _judged(check: PairCheck) -> PairCheck:
    """Adds problems and remarks to the measurements of a pair."""
    problems, remarks = [], []
    if check.blur is not None and check.blur < 0:
        problems.append(f"HR is blurrier than LR (by {-check.blur:.1f} LR pixels); exchange or remove them")
    apart = max(math.hypot(*(check.shift or (0.0, 0.0))), check.residual or 0.0)
    if check.shift is None:
        remarks.append("alignment unknown, as there are too few details")
    elif apart > _MISALIGNED:
        remarks.append(f"misaligned by {apart:.2f} LR pixels; metarestore pairs align corrects it")
    if check.gains is not None and max(abs(gain - 1) for gain in check.gains) > _EXPOSED:
        remarks.append("exposure or contrast differs; metarestore pairs align matches it")
    return replace(check, problems=tuple(problems), remarks=tuple(remarks))


def _with_scales(checks: Sequence[PairCheck]) -> tuple[PairCheck, ...]:
    """Adds a problem to the pairs whose scale is not that of most."""
    scales = [check.scale for check in checks if check.scale is not None]
    if len(set(scales)) < 2:
        return tuple(checks)
    usual = max(sorted(set(scales)), key=scales.count)
    return tuple(
        replace(check, problems=(*check.problems, f"is a pair of scale {check.scale}, most others of {usual}"))
        if check.scale not in (None, usual)
        else check
        for check in checks
    )
