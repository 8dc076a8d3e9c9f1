"""A parameter sweep: one patch, degraded with increasing values of one parameter while all others are fixed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metarestore.config.ranges import Choice, Range
from metarestore.config.suggest import did_you_mean
from metarestore.decibels import CAP
from metarestore.degradations.base import Parameter
from metarestore.degradations.resample import bicubic_downsample
from metarestore.errors import UserError
from metarestore.evaluation.metrics import psnr_y
from metarestore.reports.pictures import pixel_figure, place_image, place_text, wrapped
from metarestore.reports.style import house_style
from metarestore.reports.tasks.contact_sheet import require_drawable
from metarestore.reports.tasks.preview import SIDE, drawn_lines, joined, opened, shown, to_pixels
from metarestore.tasks.spec import DistributionSpec
from metarestore.tasks.task import TaskDraw
from metarestore.tasks.vectors import DrawSpace, Place

_TRIALS = 1000
"""Number of tasks that are searched for one with the operation."""
_COLUMNS = 9
_GAP = 8
_MARGIN = 24
_LINE = 16
_NOTE = 8.5


@dataclass(frozen=True)
class Step:
    """One image of a strip.

    Attributes:
        value: Value of the parameter.
        lr: LR pixels, uint8 RGB (h, w, 3).
        psnr: PSNR-Y in dB with respect to bicubic downsampling without degradation.
    """

    value: Parameter
    lr: NDArray[np.uint8]
    psnr: float


@dataclass(frozen=True)
class Strip:
    """A sweep of one parameter.

    Attributes:
        title: Task and parameter.
        fixed: Description of the photograph and the fixed parameters.
        hr: HR pixels, uint8 RGB (H, W, 3).
        steps: The images, by increasing value.
    """

    title: str
    fixed: str
    hr: NDArray[np.uint8]
    steps: tuple[Step, ...]


def swept(name: str, spec: DistributionSpec, parameter: str, *, seed: int, steps: int) -> Strip:
    """Varies one parameter of the first draw that has it; noise fields and all other parameters are fixed.

    Args:
        name: Name of the task.
        spec: The task.
        parameter: A column of the draw vector, e.g. `0.gaussian_blur.sigma`, or an unambiguous suffix of it.
        seed: Seed of the draws.
        steps: Maximum number of values; integers and choices may have fewer.

    Raises:
        UserError: The task does not draw this parameter, or the name is ambiguous.
    """
    space = spec.space
    place, key = _parameter(name, space, parameter)
    distribution = opened(name, spec)
    candidates = (distribution.draw(seed, index) for index in range(_TRIALS))
    draw = next((one for one in candidates if any(each.position == place.position for each in one.degradations)), None)
    if draw is None:
        raise UserError(
            f"--sweep {parameter}: none of the first {_TRIALS} tasks of {name} contains {place.name}; "
            "choose another parameter"
        )
    _, hr = distribution.build_support(draw)
    plain = to_pixels(bicubic_downsample(hr, spec.scale)[0])
    pictures = []
    for value in _values(place, key, steps):
        lr = to_pixels(distribution.build_support(_changed(draw, place, key, value))[0][0])
        pictures.append(Step(value, lr, psnr_y(lr, plain, 0)))
    title = f"{name}: {place.name}.{key}, seed {seed}"
    return Strip(title, _fixed(space, draw, place, key), to_pixels(hr[0]), tuple(pictures))


@house_style
def sweep_strips(strips: Sequence[Strip]) -> Figure:
    """Draws strips one below the other: HR, then LR for each value with its PSNR.

    Raises:
        UserError: The sheet would be too tall for matplotlib.
    """
    columns = min(_COLUMNS, 1 + max(len(strip.steps) for strip in strips))
    width = _MARGIN + columns * (SIDE + _GAP) - _GAP + _MARGIN
    notes = [wrapped(strip.fixed, width - 2 * _MARGIN, _NOTE) for strip in strips]
    depth = SIDE + 8 + 2 * _LINE + 12
    heads = [40 + _LINE * len(note) + 8 for note in notes]
    heights = [
        head + math.ceil((1 + len(strip.steps)) / columns) * depth for head, strip in zip(heads, strips, strict=True)
    ]
    require_drawable(sum(heights))
    figure = pixel_figure(width, sum(heights))
    top = 0
    for strip, note, head, height in zip(strips, notes, heads, heights, strict=True):
        place_text(figure, strip.title, _MARGIN, top + 10, size=12, bold=True)
        place_text(figure, "\n".join(note), _MARGIN, top + 36, size=_NOTE, grey=True)
        tiles = [(strip.hr, "HR", ""), *((step.lr, shown(step.value), _decibels(step.psnr)) for step in strip.steps)]
        for index, (pixels, label, below) in enumerate(tiles):
            left, above = _MARGIN + index % columns * (SIDE + _GAP), top + head + index // columns * depth
            place_image(figure, pixels, left, above, SIDE, SIDE)
            place_text(figure, label, left, above + SIDE + 6, size=9, bold=True)
            place_text(figure, below, left, above + SIDE + 6 + _LINE, size=8, grey=True)
        top += height
    return figure


def _parameter(task: str, space: DrawSpace, written: str) -> tuple[Place, str]:
    """Returns the parameter of a given name or unambiguous suffix."""
    known = {f"{place.name}.{key}": (place, key) for place in space.places for key in (*place.ranges, *place.words)}
    if not known:
        raise UserError(f"--sweep {written}: {task} draws no parameters; choose another task")
    # Whole words take precedence over parts of words: `noise.sigma` may abbreviate `0.gaussian_noise.sigma`.
    ends = ([name for name in known if name.endswith(mark + written)] for mark in "._")
    matches = [written] if written in known else next(filter(None, ends), [])
    if len(matches) > 1:
        raise UserError(f"--sweep {written}: the name is ambiguous in {task}; use one of {', '.join(matches)}")
    if not matches:
        short = dict.fromkeys(f"{place.op}.{key}" for place, key in known.values())
        hint = did_you_mean(written, short, noun="parameters")
        raise UserError(f"--sweep {written}: {task} does not draw this parameter{hint}")
    return known[matches[0]]


def _values(place: Place, key: str, steps: int) -> Sequence[Parameter]:
    """Returns increasing values, evenly spaced in the drawn distribution; all values of a choice."""
    if key in place.words:
        return place.words[key]
    drawn: Range = place.ranges[key]
    if isinstance(drawn, Choice):
        values = sorted(set(drawn.values))
    else:
        fine = (np.geomspace if drawn.low > 0 else np.linspace)(drawn.low, drawn.high, 4001)
        quantiles = [drawn.unit(value) for value in fine.tolist()]
        values = np.interp(np.linspace(0, 1, steps), quantiles, fine).round(12).tolist()
    return list(dict.fromkeys(map(round, values))) if drawn.integer else values


def _changed(draw: TaskDraw, place: Place, key: str, value: Parameter) -> TaskDraw:
    """Returns the draw with one parameter replaced."""
    degradations = tuple(
        replace(one, params={**one.params, key: value}) if one.position == place.position else one
        for one in draw.degradations
    )
    return replace(draw, degradations=degradations)


def _fixed(space: DrawSpace, draw: TaskDraw, place: Place, key: str) -> str:
    """Describes the photograph and the fixed parameters."""
    lines = drawn_lines(space, draw.degradations, without=(place.position, key))
    return "; ".join([f"Below each value: PSNR-Y to bicubic LR. Fixed: {draw.support[0].image}", *map(joined, lines)])


def _decibels(value: float) -> str:
    return f"{value:.2f} dB" if value < CAP else "same as bicubic"
