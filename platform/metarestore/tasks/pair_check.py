"""Checks that LR and HR show the same content, before pairs are used for learning.

Pairs are compared as small gray copies without their finest and coarsest details, so that noise, blur, compression,
exposure and vignetting hardly matter. A fault is reported only if another explanation of LR (another HR image, a
shift, a rotation, another scale) correlates far better than the pair itself.

Example:
    >>> rng = np.random.default_rng(0)
    >>> scenes = [cv2.resize(rng.integers(0, 256, (12, 12, 3), np.uint8), (192, 192)) for _ in range(3)]
    >>> small = [cv2.resize(scene, (48, 48), interpolation=cv2.INTER_AREA) for scene in scenes]
    >>> views = [observe(name, small[k], scene) for name, k, scene in zip("abc", (1, 0, 2), scenes)]
    >>> [report.fault for report in judge(views)]
    ['exchanged', 'exchanged', None]
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.float32]
Fault = Literal["exchanged", "shifted", "mirrored", "rotated", "rescaled", "inverted", "another scene"]

_SIDE = 48
"""Side of the small copies."""
_FINE, _COARSE = 1.0, 6.0
"""Standard deviations of the Gaussians between which details are compared, in pixels of the small copies."""
_CLEAR = 0.95
"""Correlation above which no other explanation is considered; the lowest of 111 real pairs is 0.97."""
_MARGIN = 0.06
"""Minimum improvement of the correlation by another explanation."""
_UNEXPLAINED = 0.5
"""Maximum fraction of the unexplained part that it may leave."""
_BELIEVED, _BELIEVED_OF_MANY = 0.5, 0.65
"""Minimum correlation of another explanation; higher if it is the best of hundreds of shifts."""
_UNLIKE = 0.35
"""Correlation below which LR and HR show different scenes, unless noise or blur may be the reason."""
_STRONGEST_NOISE = 60.0
"""Largest standard deviation of the noise of LR that is considered, in grey levels."""
_INFORMATIVE = 0.35
"""Minimum expected correlation with that noise for a low correlation to be informative."""
_BLURRED, _DIMMED = 0.3, 0.5
"""Contrast of LR over that of HR below which LR is too blurred to search for shifts and scales, and to decide that the
scenes differ."""
_LEAST_SIDE = 32
"""Shorter side of an LR image in pixels, below which a pair is not judged."""
_LEAST_CONTRAST = 1.5
"""Standard deviation of a small copy in grey levels, below which a pair is not judged."""
_LEAST_SHIFT = 1.5
"""Shift in LR pixels from which a pair is misaligned; real cameras are aligned to 0.2."""
_TILE = 192
"""Side of the parts in which shifts are measured, in LR pixels."""
_TILE_FINE, _TILE_COARSE = 1.0, 8.0
_ZOOMS = tuple(z for k in range(-15, 16) if abs((z := 1.02**k) - 1) > 0.03)
_SLACK = 4
"""Shift in pixels of the small copies that is allowed for beside another scale."""

_ORIENTATIONS: dict[tuple[int, bool], tuple[Fault, str]] = {
    (0, True): ("mirrored", "mirrored left to right"),
    (2, True): ("mirrored", "mirrored top to bottom"),
    (2, False): ("rotated", "rotated by 180 degrees"),
    (1, False): ("rotated", "rotated by 90 degrees clockwise"),
    (3, False): ("rotated", "rotated by 90 degrees counter-clockwise"),
    (1, True): ("mirrored", "mirrored along a diagonal"),
    (3, True): ("mirrored", "mirrored along the other diagonal"),
}
"""Orientation of LR relative to HR, by the quarter turns (counter-clockwise) and the flip that map LR to HR."""


@dataclass(frozen=True, eq=False)
class PairView:
    """The data of a pair that is needed to compare it with others.

    Attributes:
        name: The pair's name.
        lr_size: Height and width of LR in pixels.
        hr_size: Height and width of HR.
        lr: Small gray copy of LR.
        hr: Small gray copy of HR.
        tiles: Shifts (down, right) in LR pixels of the most detailed parts, with their correlation and that without
            a shift.
    """

    name: str
    lr_size: tuple[int, int]
    hr_size: tuple[int, int]
    lr: Gray
    hr: Gray
    tiles: tuple[tuple[tuple[float, float], float, float], ...]


@dataclass(frozen=True)
class PairReport:
    """The result of comparing a pair with the others.

    Attributes:
        name: The pair's name.
        scale: Ratio of HR side to LR side, geometric mean of both directions.
        correlation: Correlation of LR with its own HR.
        other: The other pair whose HR is most similar to this LR, and their correlation; None without others.
        shift: Position of the content of LR in HR, (down, right) in LR pixels; (0, 0) if unknown.
        turn: How LR is mirrored or rotated relative to HR; empty if it is not.
        zoom: Magnification of LR relative to HR.
        gain: Contrast of LR divided by that of HR.
        fault: The fault; None if there is none, or it cannot be determined.
        explained: Correlation for the fault; that of the pair if there is none.
    """

    name: str
    scale: float
    correlation: float
    other: tuple[str, float] | None = None
    shift: tuple[float, float] = (0.0, 0.0)
    turn: str = ""
    zoom: float = 1.0
    gain: float = 1.0
    fault: Fault | None = None
    explained: float = 1.0

    @property
    def problem(self) -> str | None:
        """The problem of the pair and its remedy, as part of a line."""
        if self.fault is None:
            return None
        other = self.other[0] if self.other else ""
        down, right = self.shift
        words: dict[Fault, str] = {
            "exchanged": f"LR shows what HR of '{other}' shows; exchange the files",
            "shifted": f"LR is shifted: HR shows it {down:+.0f} (down) {right:+.0f} (right) LR pixels away; align them",
            "mirrored": f"LR is {self.turn} relative to HR; mirror it back",
            "rotated": f"LR is {self.turn} relative to HR; rotate it back",
            "rescaled": f"LR shows things {self.zoom:.2f} times as large as HR does; crop or resample the pair",
            "inverted": "LR is dark where HR is bright; invert it",
            "another scene": "LR and HR show different scenes; remove the pair, or find the right partner",
        }
        reference = "" if self.fault in ("inverted", "another scene") else f" instead of {self.correlation:.2f}"
        shown = self.correlation if not reference else self.explained
        return f"pair '{self.name}': {words[self.fault]} (correlation {shown:.2f}{reference})"


def observe(name: str, lr: NDArray[np.uint8], hr: NDArray[np.uint8]) -> PairView:
    """Extracts the data of one pair.

    Args:
        name: The pair's name.
        lr: LR image (h, w, 3), RGB.
        hr: HR image (H, W, 3), of any size of about the same shape.
    """
    low, high = _gray(lr), _gray(hr)
    enlarged = _resized(high, low.shape[1], low.shape[0])
    small = _resized(low, _SIDE, _SIDE)
    return PairView(
        name,
        (lr.shape[0], lr.shape[1]),
        (hr.shape[0], hr.shape[1]),
        small,
        _resized(high, _SIDE, _SIDE),
        tuple(_tile_shifts(low, enlarged)),
    )


def judge(views: Sequence[PairView]) -> tuple[PairReport, ...]:
    """Compares every pair with the others and with other explanations of itself."""
    if not views:
        return ()
    table = _unit([view.lr for view in views]) @ _unit([view.hr for view in views]).T
    return tuple(_judged(views, table[k], k) for k in range(len(views)))


@dataclass(frozen=True)
class _Explanation:
    correlation: float
    fault: Fault
    shift: tuple[float, float] = (0.0, 0.0)
    turn: str = ""
    zoom: float = 1.0


def _judged(views: Sequence[PairView], row: NDArray[np.float64], k: int) -> PairReport:
    view, own = views[k], float(row[k])
    others = [(float(value), j) for j, value in enumerate(row) if j != k]
    best = max(others, default=None)
    other = None if best is None else (views[best[1]].name, best[0])
    ratios = [high / low for high, low in zip(view.hr_size, view.lr_size, strict=True)]
    scale = math.sqrt(ratios[0] * ratios[1])
    lr, hr = _details(view.lr), _details(view.hr)
    gain = float((lr * hr).sum() / max(float((hr * hr).sum()), 1e-9))
    report = PairReport(view.name, scale, own, other, gain=gain, explained=own)
    if min(view.lr_size) < _LEAST_SIDE or min(lr.std(), hr.std()) < _LEAST_CONTRAST:
        return report
    explanation = _fault(view, own, best)
    if explanation is None:
        return report
    return PairReport(
        view.name,
        scale,
        own,
        other,
        explanation.shift,
        explanation.turn,
        explanation.zoom,
        gain,
        explanation.fault,
        explanation.correlation,
    )


def _fault(view: PairView, own: float, other: tuple[float, int] | None) -> _Explanation | None:
    """Returns an explanation of LR that is far better than the pair itself, or None."""
    lr, hr = _details(view.lr), _details(view.hr)
    contrast = float(lr.std() / hr.std())
    shift = _agreed_shift(view) if contrast >= _BLURRED else None
    if own >= _CLEAR:
        return shift
    candidates = [*_reoriented(view), _Explanation(-own, "inverted")]
    if other is not None:
        candidates.append(_Explanation(other[0], "exchanged"))
    if contrast >= _BLURRED:
        # Compared in the middle only, like other scales and shifts.
        middle = max(own, _best_match(lr, hr, _SLACK)[0])
        candidates += [each for each in _searched(view) if _better(each.correlation, middle, _BELIEVED_OF_MANY)]
    best = max(candidates, key=lambda each: each.correlation)
    if _better(best.correlation, own, _BELIEVED):
        return shift if best.fault == "shifted" and shift is not None else best
    if shift is not None or contrast < _DIMMED:
        return shift
    expected = _least_expected(view)
    unlike = expected >= _INFORMATIVE and own < min(_UNLIKE, 0.5 * expected)
    return _Explanation(own, "another scene") if unlike else None


def _least_expected(view: PairView) -> float:
    """Returns the expected correlation of a pair with the strongest noise in LR."""
    # A pixel of the small copy is the mean of several of LR, and the fine Gaussian averages further.
    averaged = max(math.sqrt(view.lr_size[0] * view.lr_size[1]) / _SIDE, 1.0) * 2 * math.sqrt(math.pi) * _FINE
    signal = float(_details(view.hr).std())
    return signal / math.hypot(signal, _STRONGEST_NOISE / averaged)


def _better(correlation: float, than: float, least: float) -> bool:
    """Returns whether an explanation is far better than another."""
    return correlation >= max(least, than + _MARGIN) and 1 - correlation <= _UNEXPLAINED * (1 - than)


def _reoriented(view: PairView) -> Iterator[_Explanation]:
    hr = _details(view.hr)
    square = view.lr_size[0] == view.lr_size[1]
    for (quarters, mirrored), (fault, words) in _ORIENTATIONS.items():
        if square or quarters % 2 == 0:
            lr = np.rot90(view.lr, quarters)
            lr = np.ascontiguousarray(lr[:, ::-1] if mirrored else lr)
            yield _Explanation(_correlation(_details(lr), hr), fault, turn=words)


def _searched(view: PairView) -> Iterator[_Explanation]:
    """Yields the best shift, if it is a large one, and other scales with a small shift."""
    lr = _details(view.lr)
    correlation, (down, right) = _best_match(lr, _details(view.hr), _SIDE // 4)
    shift = (down * view.lr_size[0] / _SIDE, right * view.lr_size[1] / _SIDE)
    # At the limits of the search there may be no peak.
    if math.hypot(*shift) >= _LEAST_SHIFT and max(abs(down), abs(right)) < _SIDE // 4:
        yield _Explanation(correlation, "shifted", shift)
    for zoom in _ZOOMS:
        side = round(_SIDE * zoom)
        scaled = _details(_resized(view.hr, side, side))
        yield _Explanation(_best_match(lr, scaled, _SLACK)[0], "rescaled", zoom=side / _SIDE)


def _best_match(lr: Gray, hr: Gray, slack: int) -> tuple[float, tuple[int, int]]:
    """Returns the highest correlation of the middle of LR with a part of HR near its middle, and where that is."""
    side = min(lr.shape[0] - 2 * slack, hr.shape[0] - 2 * slack)
    low, high = _middle(lr, side), _middle(hr, side + 2 * slack)
    table = cv2.matchTemplate(high, low, cv2.TM_CCOEFF_NORMED)
    down, right = np.unravel_index(int(table.argmax()), table.shape)
    return float(table.max()), (int(down) - slack, int(right) - slack)


def _agreed_shift(view: PairView) -> _Explanation | None:
    """Returns the shift that the most detailed parts agree on, if it is a large one that explains LR better."""
    clear = [tile for tile in view.tiles if _better(tile[1], tile[2], _BELIEVED_OF_MANY)]
    if 2 * len(clear) <= len(view.tiles):
        return None
    shifts = np.array([tile[0] for tile in clear])
    middle = np.median(shifts, axis=0)
    if float(np.hypot(*middle)) < _LEAST_SHIFT or float(np.abs(shifts - middle).max()) > 1.0:
        return None
    return _Explanation(float(np.mean([t[1] for t in clear])), "shifted", (float(middle[0]), float(middle[1])))


def _tile_shifts(lr: Gray, hr: Gray) -> Iterator[tuple[tuple[float, float], float, float]]:
    """Measures the shift of up to three parts of LR, those with most detail, by correlation with HR of its size.

    If the correlation is highest at the limits of the search, that without a shift is used instead.
    """
    low, high = (_details(image, _TILE_FINE, _TILE_COARSE) for image in (lr, hr))
    side = min(_TILE, *lr.shape)
    slack = side // 6
    if side < _LEAST_SIDE:
        return
    corners = product(*({0, (length - side) // 2, length - side} if length > side else {0} for length in lr.shape))
    tiles = [(slice(top, top + side), slice(left, left + side)) for top, left in sorted(corners)]
    tiles.sort(key=lambda tile: -min(float(low[tile].std()), float(high[tile].std())))
    for tile in tiles[:3]:
        part = np.ascontiguousarray(low[tile][slack:-slack, slack:-slack])
        table = cv2.matchTemplate(np.ascontiguousarray(high[tile]), part, cv2.TM_CCOEFF_NORMED)
        down, right = np.unravel_index(int(table.argmax()), table.shape)
        still = float(table[slack, slack])
        inside = 0 < down < 2 * slack and 0 < right < 2 * slack
        yield (float(down - slack), float(right - slack)), float(table.max()) if inside else still, still


def _gray(image: NDArray[np.uint8]) -> Gray:
    return np.asarray(image.mean(axis=-1, dtype=np.float32))


def _resized(image: Gray, width: int, height: int) -> Gray:
    smaller = width < image.shape[1] or height < image.shape[0]
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.float32)


def _details(image: Gray, fine: float = _FINE, coarse: float = _COARSE) -> Gray:
    """Removes the finest and the coarsest details."""
    near, far = (cv2.GaussianBlur(image, (0, 0), s, borderType=cv2.BORDER_REFLECT) for s in (fine, coarse))
    return np.asarray(near - far, np.float32)


def _middle(image: Gray, side: int) -> Gray:
    top, left = ((length - side) // 2 for length in image.shape)
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _unit(copies: Sequence[Gray]) -> NDArray[np.float64]:
    """Returns the details of small copies as rows (N, D) of mean 0 and length 1."""
    rows = np.stack([_details(copy).ravel() for copy in copies]).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6))


def _correlation(first: Gray, second: Gray) -> float:
    a, b = first - first.mean(), second - second.mean()
    return float((a * b).sum() / max(math.sqrt(float((a * a).sum() * (b * b).sum())), 1e-6))
