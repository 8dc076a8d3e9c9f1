"""The formats in which restored photographs are written, and what each of them can store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from metarestore.errors import UserError
from metarestore.tasks.decoding import Levels

FormatName = Literal["png", "jpeg", "webp", "tiff"]

QUALITY = 95
"""Default quality of JPEG and WebP: an artefact of compression must not undo what was restored."""


@dataclass(frozen=True)
class Format:
    """A format of image files.

    Attributes:
        name: Its name.
        endings: Extensions of its files; new files have the first.
        deep: Whether it stores 16 bits per channel.
        alpha: Whether it stores an alpha channel.
        gray: Whether it stores a single channel.
        longest: Maximum height and width in pixels.
        held: Bytes per pixel that are held until the file is written; 0 if strips are written as they come.
    """

    name: FormatName
    endings: tuple[str, ...]
    deep: bool
    alpha: bool
    gray: bool
    longest: int
    held: int


FORMATS: dict[FormatName, Format] = {
    "png": Format("png", (".png",), deep=True, alpha=True, gray=True, longest=1_000_000, held=0),
    # Pillow stores RGB in 4 bytes per pixel; its WebP encoder copies the picture twice.
    "jpeg": Format("jpeg", (".jpg", ".jpeg"), deep=False, alpha=False, gray=True, longest=65_500, held=4),
    "webp": Format("webp", (".webp",), deep=False, alpha=True, gray=False, longest=16_383, held=12),
    "tiff": Format("tiff", (".tif", ".tiff"), deep=True, alpha=True, gray=True, longest=1_000_000, held=0),
}
ENDINGS = tuple(ending for one in FORMATS.values() for ending in one.endings)


def format_of(path: Path) -> Format | None:
    """Returns the format that the extension of a file stands for; None if it is another extension."""
    return next((one for one in FORMATS.values() if path.suffix.lower() in one.endings), None)


@dataclass(frozen=True)
class Layout:
    """Size and type of a picture.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
        channels: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
        dtype: uint8 or uint16.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype[np.uint8] | np.dtype[np.uint16]

    @property
    def bytes(self) -> int:
        """Size of the pixels."""
        return self.height * self.width * self.channels * self.dtype.itemsize


def layout_of(pixels: Levels, scale: int = 1) -> Layout:
    """Returns the layout of pixels (h, w) or (h, w, C) after upscaling by a factor."""
    height, width = pixels.shape[:2]
    return Layout(scale * height, scale * width, 1 if pixels.ndim == 2 else pixels.shape[2], pixels.dtype)


def stored_as(layout: Layout, kind: Format, path: Path) -> tuple[Layout, list[str]]:
    """Returns the layout in which a format stores a picture, and what is lost or converted, one remark each.

    Args:
        layout: Layout of the restored picture.
        kind: The format.
        path: The photograph, for messages.

    Raises:
        UserError: The picture is larger than the format allows.
    """
    if max(layout.height, layout.width) > kind.longest:
        raise UserError(
            f"{path}: would be {layout.width}x{layout.height} pixels, and {kind.name.upper()} stores sides of at most "
            f"{kind.longest}; write PNG or TIFF"
        )
    remarks, channels, dtype = [], layout.channels, layout.dtype
    if dtype == np.uint16 and not kind.deep:
        remarks.append(f"its 16 bits per channel are reduced to 8, since {kind.name.upper()} stores no more")
        dtype = np.dtype(np.uint8)
    if channels in (2, 4) and not kind.alpha:
        remarks.append(f"its transparent parts become white, since {kind.name.upper()} stores no alpha channel")
        channels -= 1
    if channels < 3 and not kind.gray:
        remarks.append(f"its gray is stored as three equal channels, since {kind.name.upper()} has no gray")
        channels += 2
    return Layout(layout.height, layout.width, channels, dtype), remarks


def converted(rows: Levels, layout: Layout) -> Levels:
    """Converts rows (n, w, C) of a restored picture to the channels and the type of a layout."""
    if rows.shape[2] in (2, 4) and layout.channels in (1, 3):
        rows = _over_white(rows)
    if rows.shape[2] < 3 <= layout.channels:
        rows = np.dstack([rows[..., :1].repeat(3, axis=2), rows[..., 1:]])
    if rows.dtype == np.uint16 and layout.dtype == np.uint8:
        return ((rows.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return rows


def _over_white(rows: Levels) -> Levels:
    peak = np.iinfo(rows.dtype).max
    alpha = rows[..., -1:].astype(np.float32) / peak
    blended: Levels = (rows[..., :-1] * alpha + peak * (1 - alpha)).round().astype(rows.dtype)
    return blended
