"""Decodes image files with OpenCV, and HEIC with the optional library pillow-heif."""

from __future__ import annotations

import importlib
import io
import os
import re
import struct
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from metarestore.errors import UserError

Levels = NDArray[Any]
"""Pixels of an image file: uint8 or uint16."""

FORMATS = "PNG, JPEG, BMP, TIFF or WebP"
HEIC = frozenset({".heic", ".heif"})
INSTALL_HEIC = "pip install pillow-heif"

_ORIENTATION, _ICC = 0x0112, 0x8773
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF files."""
_TIFF_ERRORS = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, struct.error, zlib.error)
"""What tifffile raises for files that are damaged or compressed in a way that needs another library."""
_DAMAGE = re.compile(
    r"^(?:((?:Corrupt JPEG data|Premature end of JPEG|Inconsistent progression).*)|.*TIFF_Error (.*))$", re.MULTILINE
)
"""Messages of libjpeg and libtiff when they fill in missing parts of a damaged file."""
_DECODER = re.compile(r"(Corrupt JPEG|Premature end of JPEG|Inconsistent progression|libpng |\[ ?(WARN|ERROR|INFO):\d)")
"""Start of a line written by a decoder."""
_SILENT = threading.Lock()

_MAX_PIXELS = 1 << 30
"""Default limit of pixels that OpenCV decodes, unless OPENCV_IO_MAX_IMAGE_PIXELS is set."""
_LONGEST_SIDE = 1_000_000
"""The limit of libpng; OpenCV's own is 2^20."""


@dataclass(frozen=True)
class Decoded:
    """The pixels of an image file, upright.

    Attributes:
        pixels: Gray (H, W) or RGB (H, W, 3), uint8 or uint16.
        damage: Message of the decoder about a damaged file that was decoded in part.
    """

    pixels: Levels
    damage: str | None = None


def decode(data: bytes, path: str | os.PathLike[str]) -> Decoded:
    """Decodes a file and applies its EXIF orientation; palettes are resolved, and alpha is dropped.

    Args:
        data: Content of the file.
        path: Path of the file, for its extension and for messages.

    Raises:
        UserError: The file is damaged, not an image, or has neither 8 nor 16 bits per channel.
    """
    if Path(path).suffix.lower() in HEIC or data[4:12] in {b"ftypheic", b"ftypheix", b"ftypmif1"}:
        return Decoded(_heic(data, path))
    if (gray := _deep_gray_of_tiff(data)) is not None:
        return Decoded(gray)
    with _decoder_messages() as messages:
        pixels = _by_opencv(data)
    if pixels is None:
        _refuse_oversized(path, data)
        raise UserError(f"{path}: damaged, or not {FORMATS} inside; convert it or remove it")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{path}: has {pixels.dtype} pixels; convert it to 8 or 16 bits per channel, or remove it")
    damage = _DAMAGE.search("".join(messages))
    if pixels.ndim == 3:
        # OpenCV converts a PNG with a gray and an alpha channel (colour type 4) to colour, but not such a TIFF.
        gray_png = data[:8] == b"\x89PNG\r\n\x1a\n" and data[25:26] == b"\x04"
        pixels = np.ascontiguousarray(pixels[..., 0]) if gray_png else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return Decoded(pixels, damage.group(1) or damage.group(2) if damage else None)


def extras(data: bytes, pixels: Levels, path: str | os.PathLike[str]) -> tuple[Levels, bytes | None]:
    """Returns the parts of a file that `decode` omits: its alpha channel and its colour profile.

    Args:
        data: Content of the file.
        pixels: Its pixels, as returned by `decode`.
        path: Path of the file, for its extension and for messages.

    Returns:
        The pixels, with alpha as the last of 2 or 4 channels if there is any, of the same depth; and the ICC profile.
    """
    if pixels.dtype == np.uint16 and data[:4] in _TIFF and (found := _deep_tiff_extras(data, pixels)) is not None:
        return found
    try:
        with any_size(), Image.open(io.BytesIO(data)) as image:
            profile = image.info.get("icc_profile")
            if "A" not in image.getbands() and "transparency" not in image.info:
                return pixels, profile
            if pixels.dtype == np.uint16:
                return _with_deep_alpha(data, pixels, image.getexif().get(_ORIENTATION, 1)), profile
            # By Pillow: OpenCV blends the colours of a TIFF with black where it is transparent.
            with_alpha = ImageOps.exif_transpose(image).convert("LA" if pixels.ndim == 2 else "RGBA")
            return np.asarray(with_alpha), profile
    except (OSError, SyntaxError, ValueError):  # a TIFF format that Pillow does not support
        return pixels, None


def _deep_tiff_extras(data: bytes, pixels: Levels) -> tuple[Levels, bytes | None] | None:
    """Returns `extras` of a TIFF file of 16 bits; None if tifffile cannot read its alpha channel.

    Pillow reads some of them only, and OpenCV applies the orientation to some of them only.
    """
    with _first_page(data) as page:
        if page is None:
            return None
        icc = page.tags[_ICC].value if _ICC in page.tags else None
        if not page.extrasamples or page.axes != "YXS":
            return pixels, icc
        alpha = _upright_channel(page, -1)
    return (np.dstack([pixels, alpha]), icc) if alpha is not None and alpha.shape == pixels.shape[:2] else None


def _deep_gray_of_tiff(data: bytes) -> Levels | None:
    """Returns the gray of a TIFF file of 16 bits with alpha, which OpenCV would reduce to 8; None for other files."""
    if data[:4] not in _TIFF:
        return None
    with _first_page(data) as page:
        deep = page is not None and page.dtype == np.uint16 and page.axes == "YXS" and page.samplesperpixel == 2
        return _upright_channel(page, 0) if deep else None


@contextmanager
def _first_page(data: bytes) -> Iterator[Any]:
    """Opens the first picture of a TIFF file with tifffile; None if it cannot be read."""
    import tifffile

    with ExitStack() as stack:
        try:
            page = stack.enter_context(tifffile.TiffFile(io.BytesIO(data))).pages.first
        except _TIFF_ERRORS:
            page = None
        yield page


def _upright_channel(page: Any, channel: int) -> Levels | None:
    """Returns a channel of a picture; None if it cannot be decoded."""
    try:
        orientation = int(page.tags[_ORIENTATION].value) if _ORIENTATION in page.tags else 1
        return np.ascontiguousarray(_upright(page.asarray()[..., channel], orientation))
    except _TIFF_ERRORS:
        return None


def _with_deep_alpha(data: bytes, pixels: Levels, orientation: int) -> Levels:
    """Adds the alpha channel of a file of 16 bits, which Pillow would reduce to 8."""
    every = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED
    )  # this flag does not apply the orientation
    if every is None or every.ndim != 3 or every.shape[2] != 4:
        return pixels
    return np.dstack([pixels, _upright(every[..., 3], orientation)])


def _upright(plane: Levels, orientation: int) -> Levels:
    """Applies an EXIF orientation to a plane (H, W)."""
    mirrored = {2: 0, 4: 2, 5: 1, 7: -1}  # quarter turns, counter-clockwise, after the columns are reversed
    rotated = {3: 2, 6: -1, 8: 1}
    if orientation in mirrored:
        return np.rot90(plane[:, ::-1], mirrored[orientation])
    return np.rot90(plane, rotated.get(orientation, 0))


def _by_opencv(data: bytes) -> Levels | None:
    """Returns the pixels in OpenCV's order and the file's depth, gray (H, W) or BGR (H, W, 3); None if undecodable."""
    # From memory, not by path: OpenCV cannot open every Unicode path on Windows, and its file readers
    # accept some truncated files. These flags keep depth and gray, honour EXIF and drop alpha.
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # an empty file, or more pixels than OpenCV's limit
        return None


def _refuse_oversized(path: str | os.PathLike[str], data: bytes) -> None:
    """Raises `UserError` if the header of a file that was not decoded states more pixels than OpenCV decodes."""
    width, height = stated_size(data) or (0, 0)
    given = os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", "")
    limit = int(given) if given.isdigit() else _MAX_PIXELS
    states = f"{path}: states a width of {width} and a height of {height} pixels"
    if max(width, height) > _LONGEST_SIDE:
        raise UserError(f"{states}, and sides above {_LONGEST_SIDE} are not decoded; cut it into parts")
    if width * height > limit:
        raise UserError(
            f"{states}, and images above {limit} pixels are not decoded; cut it into parts, or set "
            f"OPENCV_IO_MAX_IMAGE_PIXELS={width * height} if there is memory for it"
        )


def stated_size(data: bytes) -> tuple[int, int] | None:
    """Returns the width and height in the header of an image file as stored; None if the header is unknown."""
    Image.init()
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        opened, accepts = Image.OPEN.get(kind, (None, None))
        if opened is None or (accepts is not None and accepts(data[:16]) is not True):
            continue
        try:
            # `Image.open` would reject a large image before its size is known.
            return opened(io.BytesIO(data), "").size
        except (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error):
            return None
    return None


def _heic(data: bytes, path: str | os.PathLike[str]) -> Levels:
    """Decodes HEIC to gray (H, W) or RGB (H, W, 3), uint8."""
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError:
        raise UserError(f"{path}: is HEIC, which requires another library; install it: {INSTALL_HEIC}") from None
    pillow_heif.register_heif_opener()
    try:
        with any_size(), Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            return np.asarray(upright.convert("L" if upright.getbands()[0] == "L" else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: damaged, or not HEIC inside; convert it or remove it") from error


@contextmanager
def any_size() -> Iterator[None]:
    """Disables Pillow's limit of pixels; OpenCV has its own."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _decoder_messages() -> Iterator[list[str]]:
    """Captures stderr of the process, because the decoders in OpenCV report damage nowhere else.

    Output of other threads is forwarded afterwards.
    """
    messages: list[str] = []
    with _SILENT, tempfile.TemporaryFile() as captured:
        try:
            stderr = os.dup(2)
        except OSError:  # a process without stderr
            yield messages
            return
        try:
            os.dup2(captured.fileno(), 2)
            yield messages
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            captured.seek(0)
            lines = captured.read().decode(errors="replace").splitlines(keepends=True)
            messages += [line for line in lines if _DECODER.match(line)]
            sys.stderr.write("".join(line for line in lines if line.strip() and not _DECODER.match(line)))
