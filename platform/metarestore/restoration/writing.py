"""Writes restored photographs: PNG and TIFF strip by strip, JPEG and WebP as a whole."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from typing import IO, Any

import numpy as np
import tifffile
from PIL import Image

from metarestore.restoration.formats import Format, Layout
from metarestore.restoration.metadata import EXIF_IFD, GPS_IFD, Metadata, Tags, directory, exif_bytes, sized
from metarestore.tasks.decoding import Levels, any_size
from metarestore.tasks.png import write_png

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_STRIP = 2**18
"""Bytes of a strip of a TIFF file before compression."""
_CLASSIC = 2**32 - 2**26
"""Bytes that a TIFF file holds for certain; a larger one is a BigTIFF file."""
_LEVEL = 4
"""Level of compression of TIFF files, as for PNG."""
_JPEG_EXIF = 65_533 - len(b"Exif\x00\x00")
"""Bytes of EXIF data that fit into a segment of a JPEG file."""
_FIRST, _LONG = 4, 4
"""Position of the position of the first directory of a TIFF file, and the type of such positions."""
_RESOLUTION, _UNIT, _SOFTWARE = (0x011A, 0x011B), 0x0128, 0x0131

Write = Callable[[IO[bytes], Iterable[Levels]], None]


def writer(kind: Format, layout: Layout, metadata: Metadata, quality: int) -> tuple[Write, list[str]]:
    """Returns a function that writes the strips of a picture to a file, and remarks about what the file cannot keep.

    Args:
        kind: Format of the file.
        layout: Layout of the picture, which the format can store.
        metadata: Colour profile and EXIF data.
        quality: Quality of JPEG and WebP, 1 to 100.
    """
    icc, remarks = metadata.icc, []
    if icc is not None and (icc[16:20] == b"GRAY") != (layout.channels < 3):
        icc = None
        remarks.append("its colour profile is for gray, so it is left out")
    exif = exif_bytes(metadata, layout)
    if exif is not None and kind.name == "jpeg" and len(exif) > _JPEG_EXIF:
        exif = None
        remarks.append("its EXIF data are too long for JPEG, so they are left out")
    if kind.name == "png":
        size = (layout.height, layout.width)
        return lambda file, rows: write_png(file, rows, size, icc=icc, exif=exif), remarks
    if kind.name == "tiff":
        if layout.bytes > _CLASSIC and metadata.described:
            remarks.append("its EXIF data are left out, since the file is a BigTIFF file")
        return lambda file, rows: _write_tiff(file, rows, layout, icc, metadata), remarks
    return lambda file, rows: _write_whole(file, rows, kind, layout, icc, exif, quality), remarks


def _write_whole(
    file: IO[bytes],
    rows: Iterable[Levels],
    kind: Format,
    layout: Layout,
    icc: bytes | None,
    exif: bytes | None,
    quality: int,
) -> None:
    """Writes JPEG or WebP, whose encoders in Pillow take the picture as a whole."""
    options: dict[str, Any] = {"quality": quality}
    if kind.name == "jpeg":
        options["subsampling"] = 0  # colours keep the resolution that was restored
    else:
        options["exact"] = True  # colours of transparent pixels are kept
    if icc is not None:
        options["icc_profile"] = icc
    if exif is not None:
        options["exif"] = b"Exif\x00\x00" + exif
    with any_size(), Image.new(_MODES[layout.channels], (layout.width, layout.height)) as image:
        top = 0
        for strip in rows:
            image.paste(Image.fromarray(strip[..., 0] if layout.channels == 1 else strip), (0, top))
            top += len(strip)
        image.save(file, kind.name, **options)


def _write_tiff(file: IO[bytes], rows: Iterable[Levels], layout: Layout, icc: bytes | None, metadata: Metadata) -> None:
    """Writes TIFF with lossless compression, and then the directories of its EXIF data behind the pixels."""
    row = layout.width * layout.channels * layout.dtype.itemsize
    per_strip = min(max(_STRIP // row, 1), layout.height)
    big = layout.bytes > _CLASSIC
    behind = {} if big else {EXIF_IFD: sized(metadata.exif, layout), GPS_IFD: metadata.gps}
    behind = {tag: entries for tag, entries in behind.items() if entries}
    start = file.tell()
    with tifffile.TiffWriter(file, bigtiff=big, byteorder="<") as tiff:
        tiff.write(
            _compressed(rows, per_strip),
            shape=(layout.height, layout.width, layout.channels)[: 2 if layout.channels == 1 else 3],
            dtype=layout.dtype,
            photometric="rgb" if layout.channels > 2 else "minisblack",
            planarconfig="contig" if layout.channels > 1 else None,
            extrasamples=["unassalpha"] if layout.channels in (2, 4) else None,
            compression="adobe_deflate",
            predictor=True,
            rowsperstrip=per_strip,
            iccprofile=icc,
            software=_text(metadata.tags.get(_SOFTWARE, "metarestore")),
            metadata=None,
            extratags=_extra_tags(metadata.tags),
            **_resolution(metadata.tags),
        )
    if behind:
        _append_directories(file, start, behind)


def _compressed(rows: Iterable[Levels], per_strip: int) -> Iterator[bytes]:
    """Yields strips of `per_strip` rows, each the difference to its left neighbour, compressed."""
    held: list[Levels] = []
    for strip in rows:
        held.append(strip)
        if sum(map(len, held)) < per_strip:
            continue
        ready = held[0] if len(held) == 1 else np.concatenate(held)
        whole = len(ready) - len(ready) % per_strip
        for top in range(0, whole, per_strip):
            yield _deflated(ready[top : top + per_strip])
        held = [ready[whole:].copy()] if whole < len(ready) else []
    if held:
        yield _deflated(np.concatenate(held))


def _deflated(strip: Levels) -> bytes:
    predicted = strip.copy()
    predicted[:, 1:] -= strip[:, :-1]
    return zlib.compress(predicted.astype(predicted.dtype.newbyteorder("<"), copy=False).tobytes(), _LEVEL)


def _text(value: Any) -> bytes:
    """Returns a tag's text; tifffile takes others than ASCII only as bytes."""
    return value if isinstance(value, bytes) else str(value).encode()


def _extra_tags(tags: Tags) -> list[tuple[int, Any, int, Any, bool]]:
    """Returns descriptive tags in the form of tifffile, those left out that it writes itself."""
    found: list[tuple[int, Any, int, Any, bool]] = [(0x0112, "H", 1, 1, True)]
    for tag, value in tags.items():
        if tag in (*_RESOLUTION, _UNIT, _SOFTWARE):
            continue
        if isinstance(value, str):
            found.append((tag, "s", 0, _text(value), True))
        elif isinstance(value, bytes):
            found.append((tag, "B", len(value), value, True))
        elif isinstance(value, int) and 0 <= value < 2**16:
            found.append((tag, "H", 1, value, True))
    return found


def _resolution(tags: Tags) -> dict[str, Any]:
    """Returns the resolution in the form of tifffile; nothing if it is not two positive numbers."""
    values = [tags.get(tag) for tag in _RESOLUTION]
    numbers = [float(value) for value in values if isinstance(value, Real)]
    if len(numbers) < 2 or not all(0 < number < 2**31 for number in numbers):  # false for NaN as well
        return {}
    unit = tags[_UNIT] if tags.get(_UNIT) in (1, 3) else 2
    return {"resolution": tuple(numbers), "resolutionunit": unit}


def _append_directories(file: IO[bytes], start: int, behind: dict[int, Tags]) -> None:
    """Appends directories that tifffile does not write, and a copy of the first directory that refers to them.

    Source: TIFF, revision 6.0, section 2.
    """
    file.seek(start + _FIRST)
    file.seek(start + int.from_bytes(file.read(4), "little"))
    count = int.from_bytes(file.read(2), "little")
    entries = [file.read(12) for _ in range(count)]
    file.seek(0, os.SEEK_END)
    for tag, tags in behind.items():
        offset = _even(file) - start
        file.write(directory(tags, offset))
        entries.append(struct.pack("<HHII", tag, _LONG, 1, offset))
    entries.sort(key=lambda entry: int.from_bytes(entry[:2], "little"))
    offset = _even(file) - start
    file.write(struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4))
    file.seek(start + _FIRST)
    file.write(struct.pack("<I", offset))
    file.seek(0, os.SEEK_END)


def _even(file: IO[bytes]) -> int:
    """Pads a file to an even length, since directories begin at even positions, and returns it."""
    file.write(bytes(file.tell() % 2))
    return file.tell()
