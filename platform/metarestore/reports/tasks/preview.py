"""Rows of a contact sheet: examples of a task distribution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarestore.config.ranges import Range
from metarestore.degradations import OPERATIONS, DegradationDraw
from metarestore.degradations.base import Parameter
from metarestore.reports.tasks.contact_sheet import SheetRow
from metarestore.tasks.distribution import OpenDistribution
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.tasks.spec import DistributionSpec
from metarestore.tasks.task import Episode
from metarestore.tasks.vectors import DrawSpace

SIDE = 192
"""Side of a crop in HR pixels: a multiple of every scale, and at most the size of the smallest test photograph."""


def preview_rows(name: str, spec: DistributionSpec, *, seed: int, count: int) -> list[SheetRow]:
    """Draws `count` tasks from the embedded test photographs, or from the distribution's own pairs."""
    distribution = opened(name, spec)
    rows = []
    for index in range(count):
        draw = distribution.draw(seed, index)
        lr, hr = distribution.build_support(draw)
        lines = drawn_lines(spec.space, draw.degradations)
        rows.append(
            SheetRow(to_pixels(hr[0]), to_pixels(lr[0]), "\n".join(map(joined, lines)) or draw.support[0].image)
        )
    return rows


def opened(name: str, spec: DistributionSpec) -> OpenDistribution:
    """Opens a task distribution for single crops of the embedded test photographs, or of its own images."""
    episode = Episode(support=1, query=0, patch=SIDE)
    return spec.open(name, episode, lambda split: ImageStore.open(ImageSource.embedded(split)), "test")


def drawn_lines(
    space: DrawSpace, draws: Sequence[DegradationDraw], without: tuple[tuple[int, ...], str] | None = None
) -> list[tuple[str, str]]:
    """Formats drawn operations and their parameters, e.g. `("jpeg", "quality 85")`, in the order of application.

    Everything that is the same in all draws is omitted: fixed parameters, and operations that are always applied
    without drawn parameters. An operation that may be absent is listed with its non-default parameters.

    Args:
        space: The space of drawn parameters.
        draws: The operations of one task.
        without: Position and name of a parameter to omit.
    """
    places = {place.position: place for place in space.places}
    lines = []
    for draw in draws:
        place = places[draw.position]
        keys = [*place.ranges, *place.words] or (_unusual(draw) if place.optional else [])
        settings = [f"{key} {shown(draw.params[key])}" for key in keys if (draw.position, key) != without]
        if settings or place.optional:
            lines.append((draw.op, ", ".join(settings)))
    return lines


def joined(line: tuple[str, str]) -> str:
    """Formats an operation and its parameters as one line: `jpeg: quality 85`."""
    return ": ".join(filter(None, line))


def _unusual(draw: DegradationDraw) -> list[str]:
    """Returns the parameters that a file sets to other values than their defaults."""
    fields = OPERATIONS[draw.op].model_fields
    defaults = {key: field.default for key, field in fields.items()}
    usual = {key: value.plain() if isinstance(value, Range) else value for key, value in defaults.items()}
    return [key for key, value in draw.params.items() if key in usual and value is not None and value != usual[key]]


def shown(value: Parameter) -> str:
    """Formats a drawn value with three digits."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def to_pixels(image: Tensor) -> NDArray[np.uint8]:
    """Converts an image (3, H, W) in [0, 1] to uint8 (H, W, 3)."""
    pixels: NDArray[np.uint8] = (image.clamp(0, 1) * 255.0).round().byte().permute(1, 2, 0).numpy()
    return pixels
