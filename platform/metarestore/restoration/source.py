"""Reads photographs with everything that their restored files keep."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from metarestore.restoration.metadata import EXIF_ERRORS, Metadata, kept_tags, opened
from metarestore.tasks.decoding import Levels, any_size, decode, extras
from metarestore.tasks.photographs import damage_remark


@dataclass(frozen=True)
class Source:
    """A photograph as it was read.

    Attributes:
        pixels: Upright; gray (H, W), gray and alpha (H, W, 2), RGB (H, W, 3) or RGB and alpha (H, W, 4), uint8 or
            uint16.
        metadata: Its colour profile and EXIF data.
        remarks: What was converted or could not be kept, one remark each.
    """

    pixels: Levels
    metadata: Metadata
    remarks: tuple[str, ...]


def read_source(data: bytes, path: Path) -> Source:
    """Decodes a photograph, applies its EXIF orientation, and converts palettes and CMYK to RGB.

    CMYK is converted to sRGB by its colour profile, if it has one.

    Args:
        data: Content of the file.
        path: Path of the file, for its extension and for messages.

    Raises:
        UserError: The file is damaged, not an image, or has neither 8 nor 16 bits per channel.
    """
    decoded = decode(data, path)
    pixels, icc = extras(data, decoded.pixels, path)
    remarks = [] if decoded.damage is None else [damage_remark(decoded.damage)]
    mode, metadata, problem = _described(data)
    remarks += [] if problem is None else [problem]
    if mode == "CMYK":
        pixels, icc, remark = _from_cmyk(data, pixels, icc)
        remarks.append(remark)
    elif mode in ("P", "PA"):
        remarks.append(f"its palette is converted to {_channels(pixels)}")
    # Bytes 16 to 19 of a profile are its colour space.
    if icc is not None and icc[16:20] != (b"GRAY" if _gray(pixels) else b"RGB "):
        remarks.append("its colour profile is for other channels than gray or RGB, so it is left out")
        icc = None
    return Source(pixels, Metadata(icc, metadata.tags, metadata.exif, metadata.gps), tuple(remarks))


def _gray(pixels: Levels) -> bool:
    return pixels.ndim == 2 or pixels.shape[2] < 3


def _channels(pixels: Levels) -> str:
    alpha = pixels.ndim == 3 and pixels.shape[2] in (2, 4)
    return ("gray" if _gray(pixels) else "RGB") + (" and alpha" if alpha else "")


def _described(data: bytes) -> tuple[str, Metadata, str | None]:
    """Returns the mode of an image in Pillow's terms, its EXIF data, and a remark if they cannot be read."""
    try:
        with any_size(), opened(data) as image:
            mode = image.mode
            try:
                return mode, Metadata(None, *kept_tags(image)), None
            except EXIF_ERRORS:
                return mode, Metadata(), "its EXIF data are damaged, so they are left out"
    except (OSError, SyntaxError, ValueError):  # a format that Pillow does not support
        return "", Metadata(), "its EXIF data cannot be read, so they are left out"


def _from_cmyk(data: bytes, pixels: Levels, icc: bytes | None) -> tuple[Levels, bytes | None, str]:
    """Returns a CMYK photograph as RGB, its new profile, and a remark."""
    plain = "its CMYK is converted to RGB without a colour profile"
    if icc is None or icc[16:20] != b"CMYK" or pixels.dtype != np.uint8:
        return pixels, None, plain
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    try:
        with any_size(), opened(data) as image:
            upright: Image.Image = ImageOps.exif_transpose(image)
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            rgb = ImageCms.profileToProfile(upright, profile, srgb, outputMode="RGB")
    except (OSError, SyntaxError, ValueError, ImageCms.PyCMSError):
        return pixels, None, plain
    return np.asarray(rgb), srgb.tobytes(), "its CMYK is converted to sRGB by its colour profile"
