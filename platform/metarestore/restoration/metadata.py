"""EXIF data of photographs: what a restored photograph keeps of it, and the bytes that files store."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from metarestore.restoration.formats import Layout

EXIF_IFD, GPS_IFD = 0x8769, 0x8825
_ORIENTATION, _WIDTH, _HEIGHT = 0x0112, 0xA002, 0xA003
_POINTERS = frozenset({0xA005})
"""Tags of the directory EXIF whose values are positions in the original file."""
_DESCRIPTIVE = frozenset(
    {0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298}
    | set(range(0x9C9B, 0x9CA0))
)
"""Tags of the first directory that describe the photograph: title, camera, resolution, software, date, artist,
computer, rating, copyright, and those of Windows. The others describe how the pixels of a TIFF file are stored."""

EXIF_ERRORS = (OSError, SyntaxError, ValueError, TypeError, KeyError, OverflowError, ZeroDivisionError, struct.error)
"""What Pillow raises for damaged EXIF data."""

Tags = dict[int, Any]


@dataclass(frozen=True)
class Metadata:
    """What a photograph contains besides its pixels.

    Attributes:
        icc: Colour profile.
        tags: Descriptive tags of the first directory of its EXIF data.
        exif: The directory EXIF.
        gps: The directory GPS.
    """

    icc: bytes | None = None
    tags: Tags = field(default_factory=dict)
    exif: Tags = field(default_factory=dict)
    gps: Tags = field(default_factory=dict)

    @property
    def described(self) -> bool:
        """Whether there are any EXIF data."""
        return bool(self.tags or self.exif or self.gps)


def kept_tags(image: Image.Image) -> tuple[Tags, Tags, Tags]:
    """Returns the descriptive tags, the directory EXIF and the directory GPS of an image.

    The orientation is left out, since pixels are read upright, and so are the thumbnail and positions in the file.

    Raises:
        EXIF_ERRORS: The EXIF data are damaged.
    """
    every = image.getexif()
    tags = {tag: value for tag, value in every.items() if tag in _DESCRIPTIVE}
    exif = {tag: value for tag, value in every.get_ifd(EXIF_IFD).items() if tag not in _POINTERS}
    gps = dict(every.get_ifd(GPS_IFD))
    _block(tags, exif, gps)  # what cannot be written is found here, before the photograph is restored
    return tags, exif, gps


def exif_bytes(metadata: Metadata, layout: Layout) -> bytes | None:
    """Returns the EXIF data of a restored photograph, which begin with the header of TIFF; None if there are none."""
    if not metadata.described:
        return None
    return _block(metadata.tags, sized(metadata.exif, layout), metadata.gps)


def sized(exif: Tags, layout: Layout) -> Tags:
    """Returns a directory EXIF with the size of the restored photograph, if it states one."""
    stated = {_WIDTH: layout.width, _HEIGHT: layout.height}
    return exif | {tag: value for tag, value in stated.items() if tag in exif}


def directory(tags: Tags, offset: int) -> bytes:
    """Returns a directory of a little-endian TIFF file, given its position in the file."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2  # noqa: PLC0415  (only TIFF needs it)

    entries = ImageFileDirectory_v2(b"II\x2a\x00\x08\x00\x00\x00")
    for tag, value in tags.items():
        entries[tag] = value
    return bytes(entries.tobytes(offset))


def _block(tags: Tags, exif: Tags, gps: Tags) -> bytes:
    block = Image.Exif()
    for tag, value in (tags | {_ORIENTATION: 1}).items():
        block[tag] = value
    for tag, entries in ((EXIF_IFD, exif), (GPS_IFD, gps)):
        if entries:
            block[tag] = entries
    return bytes(block.tobytes()).removeprefix(b"Exif\x00\x00")


def opened(data: bytes) -> Image.Image:
    """Opens an image file in memory with Pillow, without decoding its pixels."""
    return Image.open(io.BytesIO(data))
