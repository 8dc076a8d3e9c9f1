"""From the bytes of an image file to pixels, by OpenCV; HEIC by the optional library pillow-heif."""

from __future__ import annotations

import importlib
import io
import os
import re
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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

_ORIENTATION = 0x0112
_DAMAGE = re.compile(
    r"^(?:((?:Corrupt JPEG data|Premature end of JPEG|Inconsistent progression).*)|.*TIFF_Error (.*))$", re.MULTILINE
)
"""What libjpeg and libtiff report when they fill in what a damaged file lacks."""
_DECODER = re.compile(r"(Corrupt JPEG|Premature end of JPEG|Inconsistent progression|libpng |\[ ?(WARN|ERROR|INFO):\d)")
"""How a line of a decoder begins."""
_SILENT = threading.Lock()

_MOST_PIXELS = 1 << 30
"""Pixels that OpenCV decodes, as a guard against files that lie, unless OPENCV_IO_MAX_IMAGE_PIXELS says otherwise."""
_LONGEST_SIDE = 1_000_000
"""The limit of libpng; OpenCV's own is 2^20."""


@dataclass(frozen=True)
class Decoded:
    """The pixels of an image file, upright.

    Attributes:
        pixels: Gray (H, W) or RGB (H, W, 3), uint8 or uint16.
        damage: What the decoder reports of a damaged file that it could read in part.
    """

    pixels: Levels
    damage: str | None = None


def decode(data: bytes, path: str | os.PathLike[str]) -> Decoded:
    """Decodes a file, turned as its EXIF orientation says; palettes are resolved, an alpha channel is dropped.

    Args:
        data: The file's content.
        path: The file, for its ending and for messages.

    Raises:
        UserError: It is damaged, no image, or has neither 8 nor 16 bits per channel.
    """
    if Path(path).suffix.lower() in HEIC or data[4:12] in {b"ftypheic", b"ftypheix", b"ftypmif1"}:
        return Decoded(_heic(data, path))
    with _decoder_messages() as messages:
        pixels = _by_opencv(data)
    if pixels is None:
        _refuse_oversized(path, data)
        raise UserError(f"{path}: damaged, or not {FORMATS} inside; convert it or remove it")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{path}: has {pixels.dtype} pixels; convert it to 8 or 16 bits per channel, or remove it")
    found = _DAMAGE.search("".join(messages))
    if pixels.ndim == 3:
        # OpenCV makes colour of a PNG with a gray and an alpha channel (colour type 4), but not of such a TIFF.
        gray_png = data[:8] == b"\x89PNG\r\n\x1a\n" and data[25:26] == b"\x04"
        pixels = np.ascontiguousarray(pixels[..., 0]) if gray_png else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return Decoded(pixels, found.group(1) or found.group(2) if found else None)


def extras(data: bytes, pixels: Levels, path: str | os.PathLike[str]) -> tuple[Levels, bytes | None]:
    """Returns what `decode` leaves out of a file: its alpha channel and its colour profile.

    Args:
        data: The file's content.
        pixels: What `decode` made of it.
        path: The file, for its ending and for messages.

    Returns:
        The pixels, with alpha as the last of 2 or 4 channels if there is any, of the same depth; and the ICC profile.
    """
    try:
        with _any_size(), Image.open(io.BytesIO(data)) as image:
            image.load()
            profile = image.info.get("icc_profile")
            if "A" not in image.getbands() and "transparency" not in image.info:
                return pixels, profile
            if pixels.dtype == np.uint16:
                return _with_deep_alpha(data, pixels, image.getexif().get(_ORIENTATION, 1)), profile
            # By Pillow: OpenCV blends the colours of a TIFF with black where it is transparent.
            with_alpha = ImageOps.exif_transpose(image).convert("LA" if pixels.ndim == 2 else "RGBA")
            return np.asarray(with_alpha), profile
    except (OSError, SyntaxError, ValueError):  # a format of TIFF that Pillow does not know
        return pixels, None


def _with_deep_alpha(data: bytes, pixels: Levels, orientation: int) -> Levels:
    """Adds the alpha channel of a file of 16 bits, which Pillow would reduce to 8."""
    every = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)  # this flag does not turn the image
    if every is None or every.ndim != 3 or every.shape[2] != 4:
        return pixels
    return np.dstack([pixels, _upright(every[..., 3], orientation)])


def _upright(plane: Levels, orientation: int) -> Levels:
    """Turns a plane (H, W) as an EXIF orientation says."""
    mirrored = {2: 0, 4: 2, 5: 1, 7: -1}  # quarter turns, counter-clockwise, after the columns are reversed
    turned = {3: 2, 6: -1, 8: 1}
    if orientation in mirrored:
        return np.rot90(plane[:, ::-1], mirrored[orientation])
    return np.rot90(plane, turned.get(orientation, 0))


def _by_opencv(data: bytes) -> Levels | None:
    """Returns the pixels in OpenCV's order and the file's depth, gray (H, W) or BGR (H, W, 3); None if undecodable."""
    # From memory, not by path: OpenCV cannot open every Unicode path on Windows, and its file readers
    # accept some truncated files. These flags keep depth and gray, honour EXIF and drop alpha.
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # an empty file, or more pixels than OpenCV's limit
        return None


def _refuse_oversized(path: str | os.PathLike[str], data: bytes) -> None:
    """Raises `UserError` if a file that was not decoded states more pixels than OpenCV decodes: it may be undamaged."""
    width, height = _stated_size(data) or (0, 0)
    given = os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", "")
    limit = int(given) if given.isdigit() else _MOST_PIXELS
    states = f"{path}: states a width of {width} and a height of {height} pixels"
    if max(width, height) > _LONGEST_SIDE:
        raise UserError(f"{states}, and sides above {_LONGEST_SIDE} are not decoded; cut it into parts")
    if width * height > limit:
        raise UserError(
            f"{states}, and images above {limit} pixels are not decoded; cut it into parts, or set "
            f"OPENCV_IO_MAX_IMAGE_PIXELS={width * height} if there is memory for it"
        )


def _stated_size(data: bytes) -> tuple[int, int] | None:
    """Returns width and height as the header of an image file states them; None if it has no header that is known."""
    Image.init()
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        opened, accepts = Image.OPEN.get(kind, (None, None))
        if opened is None or (accepts is not None and accepts(data[:16]) is not True):
            continue
        try:
            # `Image.open` would refuse a large image before it says how large it is.
            return opened(io.BytesIO(data), "").size
        except (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error):
            return None
    return None


def _heic(data: bytes, path: str | os.PathLike[str]) -> Levels:
    """Decodes HEIC to gray (H, W) or RGB (H, W, 3), uint8."""
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError:
        raise UserError(f"{path}: is HEIC, which needs a further library; install it: {INSTALL_HEIC}") from None
    pillow_heif.register_heif_opener()
    try:
        with _any_size(), Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            return np.asarray(upright.convert("L" if upright.getbands()[0] == "L" else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: damaged, or not HEIC inside; convert it or remove it") from error


@contextmanager
def _any_size() -> Iterator[None]:
    """Lifts Pillow's limit of pixels, as OpenCV has one of its own."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _decoder_messages() -> Iterator[list[str]]:
    """Collects what is written to the process's stderr: the decoders in OpenCV report damage nowhere else.

    What other threads write meanwhile is passed on afterwards.
    """
    messages: list[str] = []
    with _SILENT, tempfile.TemporaryFile() as heard:
        try:
            stderr = os.dup(2)
        except OSError:  # a process without stderr
            yield messages
            return
        try:
            os.dup2(heard.fileno(), 2)
            yield messages
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            heard.seek(0)
            lines = heard.read().decode(errors="replace").splitlines(keepends=True)
            messages += [line for line in lines if _DECODER.match(line)]
            sys.stderr.write("".join(line for line in lines if not _DECODER.match(line)))
