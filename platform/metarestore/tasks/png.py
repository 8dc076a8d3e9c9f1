"""Writes PNG row by row: OpenCV and Pillow encode only a picture that is in memory as a whole."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from metarestore.tasks.decoding import Levels

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""Colour type of a file, by the number of its channels."""
_ROWS = 64
"""Rows that are filtered at once."""
_LEVEL = 4
"""Level of compression: 6 takes twice as long, for files that are 7% smaller."""

Bytes = NDArray[np.uint8]


def write_png(
    file: IO[bytes],
    rows: Iterable[Levels],
    size: tuple[int, int],
    *,
    icc: bytes | None = None,
    exif: bytes | None = None,
    level: int = _LEVEL,
) -> None:
    """Writes a picture whose rows come in strips from top to bottom.

    Args:
        file: The file.
        rows: Strips (n, w, C), uint8 or uint16; C is 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
        size: Height and width of the picture.
        icc: Colour profile.
        exif: EXIF data, which begin with the header of TIFF.
        level: Level of compression, 0 to 9.

    Source: Portable Network Graphics Specification, 3rd edition, sections 5, 9 and 11.
    """
    strips = iter(rows)
    first = next(strips)
    height, width = size
    header = struct.pack(">IIBBBBB", width, height, 8 * first.dtype.itemsize, _COLOUR_TYPES[first.shape[2]], 0, 0, 0)
    file.write(_SIGNATURE + chunk(b"IHDR", header))
    if icc is not None:
        file.write(profile_chunk(icc))
    if exif is not None:
        file.write(chunk(b"eXIf", exif))
    compressor = zlib.compressobj(level, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
    for lines in _filtered(first, strips):
        if content := compressor.compress(lines.tobytes()):
            file.write(chunk(b"IDAT", content))
    file.write(chunk(b"IDAT", compressor.flush()) + chunk(b"IEND", b""))


def chunk(name: bytes, content: bytes) -> bytes:
    """Returns a chunk of a PNG file."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def profile_chunk(icc: bytes) -> bytes:
    """Returns the chunk of a colour profile."""
    return chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))


def _filtered(first: Levels, strips: Iterator[Levels]) -> Iterator[Bytes]:
    """Yields filtered rows, each of which begins with the number of its filter."""
    step = first.shape[2] * first.dtype.itemsize
    above = np.zeros(first.shape[1] * step, np.uint8)
    for strip in _chained(first, strips):
        for top in range(0, len(strip), _ROWS):
            part = strip[top : top + _ROWS]
            lines = part.astype(part.dtype.newbyteorder(">")).reshape(len(part), -1).view(np.uint8)
            yield _best_filters(lines, np.vstack([above, lines[:-1]]), step)
            above = lines[-1]


def _chained(first: Levels, strips: Iterator[Levels]) -> Iterator[Levels]:
    yield first
    yield from strips


def _best_filters(lines: Bytes, above: Bytes, step: int) -> Bytes:
    """Filters each row so that the sum of its absolute values is least, the heuristic of section 12.7."""
    left, corner = (np.pad(each, ((0, 0), (step, 0)))[:, :-step] for each in (lines, above))
    average = ((left.astype(np.uint16) + above) >> 1).astype(np.uint8)
    candidates = np.stack([lines - left, lines - above, lines - average, lines - _paeth(left, above, corner)])
    cost = np.abs(candidates.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
    best = cost.argmin(axis=0)
    chosen = candidates[best, np.arange(len(lines))]
    return np.hstack([(best + 1).astype(np.uint8)[:, None], chosen])


def _paeth(left: Bytes, above: Bytes, corner: Bytes) -> Bytes:
    """Predicts each byte by the neighbour that is closest to left + above − corner."""
    a, b, c = (each.astype(np.int16) for each in (left, above, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest: Bytes = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, above, corner))
    return nearest
