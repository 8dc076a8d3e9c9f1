"""Warnings about pipelines that are valid but probably wrong: misaligned LR, and kernels of the wrong orientation."""

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
"""Number of draws over which shifts are averaged, because the kernels of a file differ."""
_SHIFT = 0.45
"""Shift in HR pixels above which a warning is given: a wrong `centre` causes half a pixel."""

Remark = tuple[tuple[str | int, ...], str]
"""Key path in the pipeline, and the warning."""


def remarks(pipeline: Pipeline, scale: int) -> Iterator[Remark]:
    """Yields warnings about a pipeline whose kernels can be read.

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
                    f"{entry.path.name} is known to hold kernels for convolution, but they are used "
                    f"for correlation; write source: {source}, or orientation: correlation if that is intended",
                )
    yield from _shifts(pipeline, scale)


def give_remarks(document: Document, warnings: Iterable[Remark]) -> None:
    """Logs the warnings about the pipeline of a task file, once, with line and column."""
    for at, text in warnings:
        path = ("pipeline", *at)
        notice(document.message(Problem(path, text, path))[1])


def _shifts(pipeline: Pipeline, scale: int) -> Iterator[Remark]:
    """Yields warnings about kernels that, with the following `downsample`, shift LR relative to HR."""
    entries = dict(pipeline.entries())
    if scale == 1 or not any(_may_shift(entry) for entry in entries.values()):
        return
    by_position: dict[tuple[tuple[int, ...], ...], list[tuple[float, float]]] = defaultdict(list)
    for index in range(_DRAWS):
        draws = pipeline.draw(("remarks", index), scale)
        if (shift := lr_shift(draws)) is not None:
            by_position[tuple(draw.position for draw in draws if _is_blur(draw))].append(shift)
    reported = set()
    for positions, shifts in by_position.items():
        down, right = np.mean(shifts, axis=0)
        if max(abs(down), abs(right)) < _SHIFT or positions[-1] in reported:
            continue
        reported.add(positions[-1])
        # Inside a repeat, the position includes the repetition: then the structure is reported.
        path = next((path for path in entries if _position(path) == positions[-1]), positions[-1][:1])
        remedy = _remedy(entries[path], scale, down)
        yield (
            path,
            f"LR is shifted relative to HR: it shows what is {_direction(down, right)} of its position; {remedy}",
        )


def lr_shift(draws: Sequence[DegradationDraw]) -> tuple[float, float] | None:
    """Returns the offset, (down, right) in HR pixels, of the content of an LR pixel from its position in HR.

    Args:
        draws: A drawn degradation.

    Returns:
        The total shift of kernels and `downsample`; None if there is no kernel before it, or if a `resize` before it
        changes the pixel size.
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
    """Returns the offset (down, right) of the centre of mass of a drawn kernel from the output pixel."""
    if draw.op != KernelFile.op_name():
        return (number(draw.params, "shift"),) * 2
    kernel = KernelFile.kernel(draw.params)
    row, column = mass_centre(kernel)
    return row - (kernel.shape[0] - 1) // 2, column - (kernel.shape[1] - 1) // 2


def _is_blur(draw: DegradationDraw) -> bool:
    return issubclass(OPERATIONS[draw.op], KernelBlur)


def _may_shift(entry: object) -> bool:
    """Returns whether an entry can shift LR relative to HR."""
    if isinstance(entry, KernelBlur):
        return entry.centre == "block" or (isinstance(entry, KernelFile) and not entry.recentre)
    return isinstance(entry, Downsample) and "nearest" in entry.method


def _position(path: tuple[str | int, ...]) -> tuple[int, ...]:
    """Returns the position of the draws of an entry: its path without the keys."""
    return tuple(part for part in path if isinstance(part, int))


def _direction(down: float, right: float) -> str:
    parts = [(down, "down" if down > 0 else "up"), (right, "right" if right > 0 else "left")]
    return " and ".join(f"{abs(shift):.2g} HR pixels {name}" for shift, name in parts if abs(shift) >= 0.05)


def _remedy(entry: Step, scale: int, down: float) -> str:
    """Returns what to change at the last kernel before `downsample`."""
    if not isinstance(entry, KernelBlur):
        return "change the centre of the kernels in it"
    if isinstance(entry, KernelFile) and not entry.recentre:
        return "remove recentre: false, and write centre: block if downsample uses method nearest"
    at_block = entry.shift(scale) > 0
    return f"write centre: {'pixel' if at_block and down > 0 else 'block'}"
