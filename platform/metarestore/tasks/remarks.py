"""What works in a pipeline but is hardly meant: LR that lies beside HR, kernels that are probably turned around."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from metarestore.config.document import Document
from metarestore.config.problems import Problem
from metarestore.degradations.base import OPERATIONS, DegradationDraw, Step, number
from metarestore.degradations.blur import KernelBlur
from metarestore.degradations.kernel_file import KNOWN_FILES, KernelFile
from metarestore.degradations.kernels import mass_centre
from metarestore.degradations.pipeline import Pipeline
from metarestore.degradations.resample import Downsample
from metarestore.notices import notice

_DRAWS = 16
"""Draws that are looked at: kernels of a file differ, and on average must lie where they should."""
_SHIFT = 0.45
"""HR pixels from which on a shift is reported: half a pixel is what a wrong `centre` makes."""

Remark = tuple[tuple[str | int, ...], str]
"""Where in the pipeline, and what is remarkable."""


def remarks(pipeline: Pipeline, scale: int) -> Iterator[Remark]:
    """Yields what is remarkable about a pipeline whose kernels can be read.

    Args:
        pipeline: The pipeline.
        scale: The task's factor between HR and LR.
    """
    for path, entry in pipeline.entries():
        if isinstance(entry, KernelFile) and entry.orientation is None and entry.source is None:
            name = entry.path.name.lower()
            source = next((KNOWN_FILES[start] for start in KNOWN_FILES if name.startswith(start)), None)
            if source is not None:
                yield (
                    (*path, "path"),
                    f"{entry.path.name} is known to hold kernels that are meant for convolution, but they are taken "
                    f"for correlation; write source: {source}, or orientation: correlation if that is meant",
                )
    yield from _shifts(pipeline, scale)


def give_remarks(document: Document, found: Iterable[Remark]) -> None:
    """Reports, once, the remarks about the pipeline of a task file, with line and column."""
    for at, text in found:
        path = ("pipeline", *at)
        notice(document.message(Problem(path, text, path))[1])


def _shifts(pipeline: Pipeline, scale: int) -> Iterator[Remark]:
    """Yields where a kernel and the `downsample` after it put LR beside HR."""
    entries = dict(pipeline.entries())
    if scale == 1 or not any(_may_shift(entry) for entry in entries.values()):
        return
    found: dict[tuple[tuple[int, ...], ...], list[tuple[float, float]]] = defaultdict(list)
    for index in range(_DRAWS):
        draws = pipeline.draw(("remarks", index), scale)
        if (shift := lr_shift(draws)) is not None:
            found[tuple(draw.position for draw in draws if _is_blur(draw))].append(shift)
    reported = set()
    for positions, shifts in found.items():
        down, right = np.mean(shifts, axis=0)
        if max(abs(down), abs(right)) < _SHIFT or positions[-1] in reported:
            continue
        reported.add(positions[-1])
        # Inside a structure that repeats, the position counts the turns as well: then the structure is named.
        path = next((path for path in entries if _position(path) == positions[-1]), positions[-1][:1])
        remedy = _remedy(entries[path], scale, down)
        yield path, f"LR lies beside HR, as it shows what is {_way(down, right)} of where it should; {remedy}"


def lr_shift(draws: Sequence[DegradationDraw]) -> tuple[float, float] | None:
    """Returns how far down and right of where an LR pixel lies on HR the content lies that it shows, in HR pixels.

    Args:
        draws: A drawn degradation.

    Returns:
        The shift that kernels and `downsample` make together; None where there is no kernel before it, or where a
        `resize` before it changes what a pixel is.
    """
    before = []
    for draw in draws:
        if draw.op == Downsample.op_name():
            break
        before.append(draw)
    blurs = [draw for draw in before if _is_blur(draw)]
    if not blurs or any(draw.op == "resize" for draw in before) or len(before) == len(draws):
        return None
    last = draws[len(before)]
    # `nearest` keeps the pixel half a pixel before the middle of a block whose side is even.
    kept = -0.5 if last.params["method"] == "nearest" and int(number(last.params, "scale")) % 2 == 0 else 0.0
    centres = [_centre(draw) for draw in blurs]
    return kept + sum(down for down, _ in centres), kept + sum(right for _, right in centres)


def _centre(draw: DegradationDraw) -> tuple[float, float]:
    """Returns how far down and right of the output pixel the mass centre of a drawn kernel lies."""
    if draw.op != KernelFile.op_name():
        return (number(draw.params, "shift"),) * 2
    kernel = KernelFile.kernel(draw.params)
    row, column = mass_centre(kernel)
    return row - (kernel.shape[0] - 1) // 2, column - (kernel.shape[1] - 1) // 2


def _is_blur(draw: DegradationDraw) -> bool:
    return issubclass(OPERATIONS[draw.op], KernelBlur)


def _may_shift(entry: object) -> bool:
    """Tells whether an entry can put LR beside HR."""
    if isinstance(entry, KernelBlur):
        return entry.centre == "block" or (isinstance(entry, KernelFile) and not entry.recentre)
    return isinstance(entry, Downsample) and "nearest" in entry.method


def _position(path: tuple[str | int, ...]) -> tuple[int, ...]:
    """Returns the position that draws of an entry have: its path without the keys."""
    return tuple(part for part in path if isinstance(part, int))


def _way(down: float, right: float) -> str:
    parts = [(down, "down" if down > 0 else "up"), (right, "right" if right > 0 else "left")]
    return " and ".join(f"{abs(much):.2g} HR pixels {way}" for much, way in parts if abs(much) >= 0.05)


def _remedy(entry: Step, scale: int, down: float) -> str:
    """Returns what to change at the last kernel before `downsample`."""
    if not isinstance(entry, KernelBlur):
        return "change the centre of the kernels in it"
    if isinstance(entry, KernelFile) and not entry.recentre:
        return "leave recentre: false out, and write centre: block if downsample takes the nearest pixel"
    at_block = entry.shift(scale) > 0
    return f"write centre: {'pixel' if at_block and down > 0 else 'block'}"
