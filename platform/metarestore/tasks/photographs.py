"""Reading and writing photographs, and listing the photographs of a folder."""

from __future__ import annotations

import importlib.util
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from metarestore.errors import UserError, remedy
from metarestore.files import write_atomically
from metarestore.notices import notice
from metarestore.tasks.decoding import FORMATS, HEIC, INSTALL_HEIC, Levels, decode, extras
from metarestore.tasks.png import profile_chunk, write_png

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
RAW = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".kdc", ".mrw", ".nef", ".nrw"}
    | {".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
"""Extensions of raw files of cameras; some are TIFF files whose first image is a thumbnail."""
_HIDDEN_ON_WINDOWS = frozenset({"thumbs.db", "desktop.ini"})


class Photograph(NamedTuple):
    """A decoded photograph.

    Attributes:
        pixels: RGB values of 0..255, uint8 (H, W, 3); a gray photograph has three equal channels.
        gray: Whether the file stores a single channel, not counting alpha.
        damage: Message of the decoder about a damaged file that was decoded in part.
    """

    pixels: NDArray[np.uint8]
    gray: bool
    damage: str | None = None


@dataclass(frozen=True)
class Picture:
    """A photograph with alpha channel and colour profile.

    Attributes:
        pixels: Gray (H, W), gray and alpha (H, W, 2), RGB (H, W, 3) or RGB and alpha (H, W, 4), uint8 or uint16.
        icc: Its colour profile.
    """

    pixels: Levels
    icc: bytes | None = None


def read_image(path: str | os.PathLike[str]) -> Photograph:
    """Decodes a PNG, JPEG, BMP, TIFF, WebP or HEIC file to 8-bit RGB and applies its EXIF orientation.

    Palettes are resolved and 16-bit values are divided by 257 and rounded. An alpha channel is dropped, as is common
    (colours of transparent pixels are kept as stored; only TIFF stores them blended with black). HEIC requires the
    library pillow-heif.

    Raises:
        UserError: The file is missing, damaged, not an image, or has neither 8 nor 16 bits per channel.
    """
    decoded = decode(file_content(path), path)
    gray = decoded.pixels.ndim == 2
    rgb = cv2.cvtColor(decoded.pixels, cv2.COLOR_GRAY2RGB) if gray else decoded.pixels
    report_damage(path, decoded.damage)
    return Photograph(_to_8_bit(rgb), gray, decoded.damage)


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Decodes a file as `read_image` does, and keeps its depth, its alpha channel and its colour profile.

    Raises:
        UserError: As for `read_image`.
    """
    data = file_content(path)
    decoded = decode(data, path)
    report_damage(path, decoded.damage)
    pixels, icc = extras(data, decoded.pixels, path)
    # Bytes 16 to 19 of a profile are its colour space. OpenCV converts CMYK to RGB without a profile.
    fits = icc is None or icc[16:20] == (b"GRAY" if decoded.pixels.ndim == 2 else b"RGB ")
    if not fits:
        notice(f"{path}: its colour profile is for other channels than gray or RGB, so it is left out")
    return Picture(pixels, icc if fits else None)


def report_damage(path: str | os.PathLike[str], damage: str | None) -> None:
    """Logs a notice, once, about a damaged file, whether it was decoded now or earlier."""
    if damage is not None:
        notice(f"{path}: {damage_remark(damage)}")


def damage_remark(damage: str) -> str:
    """Describes a damaged file that was decoded in part.

    Args:
        damage: Message of the decoder.
    """
    return f"is damaged ({damage}), so parts of it are not as they were; replace it or remove it"


def file_content(path: str | os.PathLike[str]) -> bytes:
    """Reads a file, or raises `UserError` if it cannot be read or is a raw file of a camera."""
    if Path(path).suffix.lower() in RAW:
        raise UserError(f"{path}: is a raw file; develop it and save it as PNG or TIFF")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); {remedy(error, 'check the path and its permissions')}"
        ) from error


def _to_8_bit(pixels: Levels) -> NDArray[np.uint8]:
    """Scales 16-bit pixels to 8 bits (65535 becomes 255); 8-bit pixels are returned as they are."""
    if pixels.dtype == np.uint8:
        return pixels.view(np.uint8)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def write_image(path: str | os.PathLike[str], pixels: Levels, icc: bytes | None = None) -> None:
    """Writes pixels as PNG atomically.

    Args:
        path: A name that ends in .png; missing folders are created.
        pixels: Gray (H, W), gray and alpha (H, W, 2), RGB (H, W, 3) or RGB and alpha (H, W, 4), uint8 or uint16.
        icc: Colour profile to store with them.

    Raises:
        UserError: The name does not end in .png, or the file cannot be written.
        ValueError: `pixels` has another type or shape.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise UserError(f"{target}: images are written as PNG; choose a name that ends in .png")
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (2, 3, 4))
    if pixels.dtype not in (np.uint8, np.uint16) or not fits:
        raise ValueError(
            f"pixels must be uint8 or uint16 of shape (H, W) or (H, W, 2 to 4), got {pixels.dtype} {pixels.shape}"
        )
    write_atomically(target, _png(pixels, icc))


def _png(pixels: Levels, icc: bytes | None) -> bytes:
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # which OpenCV cannot encode, and Pillow only at 8 bits
        content = io.BytesIO()
        write_png(content, [pixels], pixels.shape[:2], icc=icc)
        return content.getvalue()
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    bgr = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, order[pixels.shape[2]])
    data = cv2.imencode(".png", bgr)[1].tobytes()
    if icc is None:
        return data
    header = 8 + 25  # the signature, and the chunk IHDR, which a profile follows
    return data[:header] + profile_chunk(icc) + data[header:]


def list_photographs(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Returns the photographs of a folder, not of its subfolders.

    Other files (sidecar files, movies, raw files) are skipped and counted in a notice; hidden files are ignored.

    Returns:
        Files by name, sorted. The name is that of the file without suffix, unless it is not unique.

    Raises:
        UserError: The folder is missing, or holds no photographs.
    """
    files = _files(Path(folder))
    readable = SUFFIXES | HEIC if importlib.util.find_spec("pillow_heif") else SUFFIXES
    images = [path for path in files if path.suffix.lower() in readable]
    others = [path for path in files if path.suffix.lower() not in readable]
    hints = _hints({path.suffix.lower() for path in others})
    if not images:
        contents = f" but {_counted(others)}" if others else ""
        remedy = hints or f"; put {FORMATS} files into it (subfolders are not searched)"
        raise UserError(f"{folder}: holds no photographs{contents}{remedy}")
    if others:
        notice(f"{folder}: left out, as they are no photographs that can be read: {_counted(others)}{hints}")
    return dict(sorted(zip(_names(images), images, strict=True)))


def _counted(files: Sequence[Path]) -> str:
    """Returns the number of files of each extension, e.g. `3 files (2 .xmp, 1 .mov)`."""
    endings = Counter(path.suffix.lower() or "without an ending" for path in files)
    kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))
    return f"{len(files)} file{'s' if len(files) > 1 else ''} ({kinds})"


def _hints(endings: set[str]) -> str:
    """Returns how files with these extensions can be used."""
    heic = f"; to read HEIC: {INSTALL_HEIC}" if endings & HEIC else ""
    raw = "; to use raw files, develop them and save them as PNG or TIFF" if endings & RAW else ""
    return heic + raw


def decoding_problems(paths: Iterable[Path]) -> list[str]:
    """Returns one line for each file that `read_image` rejects."""
    problems: list[str] = []
    for path in paths:
        try:
            read_image(path)
        except UserError as error:
            problems += error.problems
    return problems


def _files(folder: Path) -> list[Path]:
    """Returns the visible files of a folder, sorted, or raises `UserError` if it cannot be listed."""
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
    """Returns whether a desktop hides this file."""
    return path.name.startswith(".") or path.name.lower() in _HIDDEN_ON_WINDOWS


def _names(files: list[Path]) -> list[str]:
    """Names files by their stems, or by their full names if stems are not unique."""
    stems = Counter(path.stem for path in files)
    names = [path.stem if stems[path.stem] == 1 else path.name for path in files]
    # A stem may equal another file's full name ("a.png.jpg" beside "a.png" and "a.bmp").
    return names if len(set(names)) == len(names) else [path.name for path in files]
