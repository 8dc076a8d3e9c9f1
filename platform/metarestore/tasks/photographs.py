"""Photographs on disk: which files of a folder are photographs, and how they are decoded and written."""

from __future__ import annotations

import io
import os
import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from metarestore.errors import UserError, remedy

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_FORMATS = "PNG, JPEG, BMP, TIFF or WebP"
_HIDDEN_ON_WINDOWS = frozenset({"thumbs.db", "desktop.ini"})


_MOST_PIXELS = 1 << 30
"""Pixels that OpenCV decodes, as a guard against files that lie, unless OPENCV_IO_MAX_IMAGE_PIXELS says otherwise."""
_LONGEST_SIDE = 1_000_000
"""The limit of libpng; OpenCV's own is 2^20."""


class Photograph(NamedTuple):
    """A decoded photograph.

    Attributes:
        pixels: RGB values of 0..255, uint8 (H, W, 3); a gray photograph has three equal channels.
        gray: Whether the file stores a single channel.
    """

    pixels: NDArray[np.uint8]
    gray: bool


def read_image(path: str | os.PathLike[str]) -> Photograph:
    """Decodes a PNG, JPEG, BMP, TIFF or WebP file to 8-bit RGB, turned as its EXIF orientation says.

    Palettes are resolved and 16-bit values are divided by 257 and rounded. An alpha channel is dropped, as the field
    does (the colours of transparent pixels are kept as stored; TIFF alone stores them blended with black).

    Raises:
        UserError: The file is missing, damaged, no image, or has neither 8 nor 16 bits per channel.
    """
    try:
        data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); {remedy(error, 'check the path and its permissions')}"
        ) from error
    pixels = _decode(data)
    if pixels is None:
        _refuse_oversized(path, data)
        raise UserError(f"{path}: damaged, or not {_FORMATS} inside; convert it or remove it")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{path}: has {pixels.dtype} pixels; convert it to 8 or 16 bits per channel, or remove it")
    gray = pixels.ndim == 2
    rgb = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB if gray else cv2.COLOR_BGR2RGB)
    return Photograph(_to_8_bit(rgb), gray)


def _decode(data: NDArray[np.uint8]) -> NDArray[np.integer | np.floating] | None:
    """Returns the pixels in OpenCV's order and the file's depth, gray (H, W) or BGR (H, W, 3); None if undecodable."""
    # From memory, not by path: OpenCV cannot open every Unicode path on Windows, and its file readers
    # accept some truncated files. These flags keep depth and gray, honour EXIF and drop alpha.
    try:
        return cv2.imdecode(data, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # an empty file, or more pixels than OpenCV's limit
        return None


def _refuse_oversized(path: str | os.PathLike[str], data: NDArray[np.uint8]) -> None:
    """Raises `UserError` if a file that was not decoded states more pixels than OpenCV decodes: it may be undamaged."""
    width, height = _stated_size(data.tobytes()) or (0, 0)
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
    from PIL import Image

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


def _to_8_bit(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scales 16-bit pixels to 8 bits (65535 becomes 255); 8-bit pixels are returned as they are."""
    if pixels.dtype == np.uint8:
        return pixels.view(np.uint8)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def write_image(path: str | os.PathLike[str], pixels: NDArray[np.uint8]) -> None:
    """Writes a PNG file.

    Args:
        path: A name that ends in .png; its folder must exist.
        pixels: RGB (H, W, 3) or gray (H, W) values of 0..255, uint8.

    Raises:
        UserError: The name does not end in .png, or the file cannot be written.
        ValueError: `pixels` has another type or shape.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise UserError(f"{target}: images are written as PNG; choose a name that ends in .png")
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(f"pixels must be uint8 (H, W, 3) or (H, W), got {pixels.dtype} {pixels.shape}")
    _, data = cv2.imencode(".png", pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    try:
        target.write_bytes(data.tobytes())
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); choose another folder") from error


def list_photographs(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Lists the photographs of a folder, not of its subfolders; hidden files are passed over.

    Returns:
        Name to file, sorted by name. The name is the file's without its suffix, unless two files would share it.

    Raises:
        UserError: The folder is missing or empty, or holds files that are no photographs; if so, photographs that
            cannot be decoded are reported along with them.
    """
    files = _files(Path(folder))
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    strays = [path for path in files if path.suffix.lower() not in SUFFIXES]
    if strays:
        problems = [f"{path}: not a photograph ({_FORMATS}); convert it or remove it" for path in strays]
        raise UserError([*problems, *decoding_problems(images)])
    if not images:
        raise UserError(f"{folder}: holds no photographs; put {_FORMATS} files into it (subfolders are not searched)")
    return dict(sorted(zip(_names(images), images, strict=True)))


def decoding_problems(paths: Iterable[Path]) -> list[str]:
    """Returns one line for each file that `read_image` refuses."""
    problems: list[str] = []
    for path in paths:
        try:
            read_image(path)
        except UserError as error:
            problems += error.problems
    return problems


def _files(folder: Path) -> list[Path]:
    """Returns the visible files of a folder, sorted, or raises `UserError` when it cannot be listed."""
    try:
        return sorted(path for path in folder.iterdir() if not _is_hidden(path) and not path.is_dir())
    except FileNotFoundError as error:
        raise UserError(f"{folder}: no such folder; check the path") from error
    except NotADirectoryError as error:
        raise UserError(f"{folder}: is a file; give the folder that holds the photographs") from error
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be listed ({error.strerror}); {remedy(error, 'check its permissions')}"
        ) from error


def _is_hidden(path: Path) -> bool:
    """Tells whether a desktop does not show this file."""
    return path.name.startswith(".") or path.name.lower() in _HIDDEN_ON_WINDOWS


def _names(files: list[Path]) -> list[str]:
    """Names files by their stems, and by their full names where stems collide."""
    stems = Counter(path.stem for path in files)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in files]
    # A stem may equal another file's full name ("a.png.jpg" beside "a.png" and "a.bmp").
    return names if len(set(names)) == len(names) else [path.name for path in files]
