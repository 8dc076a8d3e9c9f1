"""Registers HR with LR: an affine map by ECC, then a smooth displacement field where one is needed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from metarestore.registration.compare import Gray, blurred, details, gray, reduced
from metarestore.registration.exposure import match_exposure
from metarestore.registration.motion import LARGEST_ANGLE, LARGEST_ZOOM, Floats, Motion, has_data, warped

_COARSEST = 96
"""Shorter side of LR at the coarsest level of the pyramid, in pixels."""
_ROUNDS = 4
_STILL = 0.003
"""Displacement of the corners in LR pixels, below which an iteration has converged."""
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 80, 1e-7)
_WINDOW = 7.0
"""Standard deviation of the windows of local displacements, in LR pixels."""
_PRIOR = 0.15
"""Expected standard deviation of local displacements in LR pixels; where details are few, they are drawn to 0."""
_PRIOR_GAIN = 0.1
"""The same for the local contrast of LR relative to HR, which shading and tone curves change."""
_LOCAL_ROUNDS = 3
_LONGEST = 2.0
"""Largest local displacement in LR pixels."""
_MODELS = ((cv2.MOTION_TRANSLATION, 0.01), (cv2.MOTION_AFFINE, 0.03))
"""Global models, and the minimum part of the differences of details that each must explain to be used."""
_EXPLAINED = 0.03
"""The same for local displacements, in parts of the picture in which they were not estimated."""
_FAR_BETTER = 0.7
"""Fraction of the differences that a larger rotation or magnification must leave for the pair to be refused."""
_BLOCK = 8
"""Side of these parts in LR pixels."""
_BLURS = (0.0, 0.35, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
"""Blurs of reduced HR that are tried, in LR pixels."""
_BLACK, _WHITE = 1.0, 250.0
"""Grey levels beyond which a channel counts as saturated."""
_LEAST_USABLE = 0.3
"""Minimum part of the picture that must not be saturated; otherwise saturated pixels are used too."""
_OUTLYING = 2.5
"""Differences above this multiple of their robust standard deviation get smaller weights (Huber)."""


class NotRegisteredError(Exception):
    """The registration of LR and HR cannot be determined; its text says why."""


def register(lr: NDArray[np.float32], hr: NDArray[np.float32], scale: int, *, local: bool = True) -> Motion:
    """Estimates where LR pixels lie in HR.

    Details of LR are compared with those of HR reduced to its size, sharpness and exposure. Differences that do not
    follow the model, e.g. moved objects, lose their influence. HR is warped at its own resolution in every iteration,
    because interpolation at the size of LR would bias the result by some hundredths of a pixel. The result is the
    simplest motion that explains the pair: none, a shift, an affine map, or local displacements as well.

    Args:
        lr: LR image (h, w, 3) in grey levels.
        hr: HR image (s·h, s·w, 3).
        scale: Factor s.
        local: Whether local displacements are considered.

    Raises:
        NotRegisteredError: No affine map relates LR and HR.

    Source: Evangelidis and Psarakis, Parametric Image Alignment Using Enhanced Correlation Coefficient Maximization
    (2008); Lucas and Kanade (1981) for local displacements.
    """
    view = _View.of(lr, hr, scale)
    start = _coarse(view.lr, view.reduced)
    view = view.as_sharp_as_lr(start)
    best, error = Motion.identity(), view.error(Motion.identity())
    for model, least in _MODELS:
        # A model that does not converge is not used; `_coarse` has checked that there are common details.
        with suppress(NotRegisteredError):
            motion = _refined(view, start, model)
            if motion.is_small and (other := view.error(motion)) < (1 - least) * error:
                best, error = motion, other
    if not start.is_small and view.error(start) < _FAR_BETTER * error:
        raise NotRegisteredError(
            f"HR is rotated by {start.angle:.1f} degrees and magnified by {start.zoom:.3f} relative to LR, more than "
            f"{LARGEST_ANGLE:g} degrees or {LARGEST_ZOOM:.0%}"
        )
    view = view.as_sharp_as_lr(best)
    return _with_local(view, best) if local and _is_local(view, best) else best


def sharpness(lr: Gray, high: Gray, known: NDArray[np.bool_], fine: float = 1.0) -> float:
    """Returns the blur in LR pixels that makes HR, reduced to the size of LR, as sharp as LR.

    Args:
        lr: Gray LR (h, w).
        high: Gray HR of the same size and exposure.
        known: Pixels that may be compared.
        fine: Details finer than this, in LR pixels, are not compared.
    """
    low = details(lr, fine)
    return min(_BLURS, key=lambda sigma: energy(low, details(blurred(high, sigma), fine), known))


def robust_sigma(values: NDArray[np.floating]) -> float:
    """Returns the standard deviation of normal values, from their median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values)))) if values.size else 0.0


@dataclass(frozen=True, eq=False)
class _View:
    """A pair as the estimators see it: gray images of equal exposure, and the pixels of LR that are not saturated."""

    lr: Gray
    hr: NDArray[np.float32]
    scale: int
    usable: NDArray[np.bool_]
    blur: float = 0.0

    @classmethod
    def of(cls, lr: NDArray[np.float32], hr: NDArray[np.float32], scale: int) -> _View:
        high = reduced(hr, scale)
        exposed = match_exposure(lr, high).apply(hr)
        return cls(gray(lr), gray(exposed), scale, _unsaturated(lr, high))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of LR."""
        return self.lr.shape[0], self.lr.shape[1]

    @cached_property
    def low(self) -> Gray:
        """Details of LR."""
        return details(self.lr)

    @property
    def reduced(self) -> Gray:
        """HR, reduced to the size of LR."""
        return reduced(self.hr, self.scale)

    def as_sharp_as_lr(self, motion: Motion) -> _View:
        """Returns the view whose HR is blurred like LR."""
        known = has_data(motion, *self.shape, self.scale) & self.usable
        image = reduced(warped(self.hr, motion, self.scale), self.scale)
        return replace(self, blur=sharpness(self.lr, image, known))

    def high(self, motion: Motion) -> tuple[Gray, NDArray[np.bool_]]:
        """Returns the details of the warped HR, as small and as sharp as LR, and which pixels may be compared."""
        known = has_data(motion, *self.shape, self.scale) & self.usable
        image = reduced(warped(self.hr, motion, self.scale), self.scale)
        return details(blurred(image, self.blur)), known

    def error(self, motion: Motion, part: NDArray[np.bool_] | None = None) -> float:
        """Returns the mean squared difference of details in squared grey levels, with little weight of outliers."""
        high, known = self.high(motion)
        return energy(self.low, high, known if part is None else known & part)


def energy(low: Gray, high: Gray, known: NDArray[np.bool_]) -> float:
    """Returns a robust mean of the squared differences."""
    if not known.any():
        return float("inf")
    error, _ = _differences(low, high, known)
    size = np.abs(error[known])
    limit = _OUTLYING * max(robust_sigma(error[known]), 0.5)
    return float(np.where(size < limit, size**2, 2 * limit * size - limit**2).mean())


def _unsaturated(lr: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Returns which pixels (h, w) are far from saturated ones, whose edges lie elsewhere in LR than in HR."""
    clipped = (np.maximum(lr, high) > _WHITE) | (np.minimum(lr, high) < _BLACK)
    usable = cv2.dilate(np.asarray(clipped.any(axis=-1), np.uint8), np.ones((5, 5), np.uint8)) == 0
    return np.asarray(usable if usable.mean() > _LEAST_USABLE else np.ones_like(usable))


def _refined(view: _View, motion: Motion, model: int) -> Motion:
    weights: NDArray[np.bool_] | None = None
    for _ in range(_ROUNDS):
        high, known = view.high(motion)
        mask = known if weights is None else known & weights
        increment = _ecc(view.low, high, np.eye(2, 3, dtype=np.float32), mask, model)
        motion = motion.then(increment)
        if _corner_shift(increment, view.shape) < _STILL:
            break
        weights = ~_outliers(view.low, *view.high(motion))
    return motion


def _coarse(lr: Gray, high: Gray) -> Motion:
    """Returns the affine map from a pyramid of both images, in pixels of LR."""
    matrix = np.eye(2, 3, dtype=np.float32)
    levels = max(int(np.log2(min(lr.shape) / _COARSEST)), 0)
    for level in range(levels, -1, -1):
        step = 2**level
        size = (lr.shape[1] // step, lr.shape[0] // step)
        low, other = (
            details(np.asarray(cv2.resize(each, size, interpolation=cv2.INTER_AREA), np.float32)) for each in (lr, high)
        )
        if level == levels:
            shift, _ = cv2.phaseCorrelate(low, other, cv2.createHanningWindow(size, cv2.CV_32F))
            matrix[:, 2] = shift if max(map(abs, shift)) < min(size) / 4 else (0.0, 0.0)
        # Positions at step k are (u − (k − 1)/2)/k.
        matrix = _ecc(low, other, matrix, None).astype(np.float32)
        if level:
            centre = np.array([0.5, 0.5], np.float32)
            matrix[:, 2] = 2 * matrix[:, 2] + centre - matrix[:, :2] @ centre
    return Motion(matrix.astype(np.float64))


def _ecc(
    low: Gray, high: Gray, start: NDArray[np.float32], mask: NDArray[np.bool_] | None, model: int = cv2.MOTION_AFFINE
) -> Floats:
    """Returns the affine map (2, 3) of positions of `low` to positions of `high`."""
    known = np.full(high.shape, 255, np.uint8) if mask is None else np.asarray(mask, np.uint8) * 255
    try:
        _, matrix = cv2.findTransformECC(low, high, start.copy(), model, _CRITERIA, known, 1)
    except cv2.error as error:
        raise NotRegisteredError("LR and HR have no common details") from error
    return np.asarray(matrix, np.float64)


def _outliers(low: Gray, high: Gray, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns where details differ far more than elsewhere, and around it."""
    gain = float((low * high)[known].sum() / max(float((high * high)[known].sum()), 1e-6))
    difference = blurred(np.abs(low - gain * high), 2.0)
    limit = max(6.0 * float(np.median(difference[known])), 3.0)
    grown = cv2.dilate((difference > limit).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    # If much of the picture differs, nothing is an exception.
    return np.asarray(grown if grown.mean() < 0.4 else np.zeros_like(grown))


def _corner_shift(increment: Floats, shape: tuple[int, ...]) -> float:
    corners = np.array([[x, y, 1.0] for x in (0, shape[1]) for y in (0, shape[0])])
    return float(np.abs(corners @ increment.T - corners[:, :2]).max())


def _is_local(view: _View, motion: Motion) -> bool:
    """Returns whether displacements estimated in half of the blocks of LR explain those in the other half."""
    rows, columns = (np.arange(side) // _BLOCK for side in view.shape)
    even = (rows[:, None] + columns) % 2 == 0
    parts = (even, ~even)
    before = [view.error(motion, part) for part in parts]
    after = [view.error(_with_local(view, motion, ~part), part) for part in parts]
    return sum(after) < (1 - _EXPLAINED) * sum(before)


def _with_local(view: _View, motion: Motion, part: NDArray[np.bool_] | None = None) -> Motion:
    field = np.zeros((*view.shape, 2))
    for _ in range(_LOCAL_ROUNDS):
        high, known = view.high(Motion(motion.matrix, field))
        used = known if part is None else known & part
        error, gain = _differences(view.low, high, used)
        limit = _OUTLYING * max(robust_sigma(error[used]), 0.5)
        weight = used * np.minimum(1.0, limit / np.maximum(np.abs(error), 1e-6)) ** 2
        field = np.clip(field + _displacements(gain * high, error, weight, field), -_LONGEST, _LONGEST)
    return Motion(motion.matrix, field)


def _differences(low: Gray, high: Gray, known: NDArray[np.bool_]) -> tuple[Floats, float]:
    """Returns the differences of details, and the gain from `high` to `low`."""
    gain = float((low * high)[known].sum() / max(float((high * high)[known].sum()), 1e-6))
    return np.asarray(low - gain * high, np.float64), gain


def _displacements(high: Gray, error: Floats, weight: Floats, field: Floats) -> Floats:
    """Solves for the local displacements that explain the differences, by weighted least squares in Gaussian windows.

    The prior draws the total displacement `field` plus the result to 0.
    """
    down, right = (np.asarray(gradient, np.float64) for gradient in np.gradient(high))
    terms = [right, down, np.asarray(high, np.float64)]
    energy = _windowed(weight * error**2)
    matrix, moment = np.empty((*high.shape, 3, 3)), np.empty((*high.shape, 3))
    # The window averages 4·π·σ² pixels, of which the blur of the details makes about one in ten independent.
    prior = energy / (4 * np.pi * _WINDOW**2 / 10) + 1e-6
    for k, first in enumerate(terms):
        moment[..., k] = _windowed(weight * first * error)
        for j, second in enumerate(terms[: k + 1]):
            matrix[..., k, j] = matrix[..., j, k] = _windowed(weight * first * second)
        strength = prior / (_PRIOR, _PRIOR, _PRIOR_GAIN)[k] ** 2
        matrix[..., k, k] += strength
        if k < 2:
            moment[..., k] -= strength * field[..., k]
    step = np.linalg.solve(matrix, moment[..., None])[..., :2, 0]
    return np.asarray(np.clip(step, -1.0, 1.0))


def _windowed(image: Floats) -> Floats:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), _WINDOW, borderType=cv2.BORDER_REFLECT), np.float64)
