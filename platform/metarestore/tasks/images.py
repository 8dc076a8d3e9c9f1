"""The photographs of a source, decoded once and shared by all processes of a node through a memory-mapped file."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from metarestore.config.base import Strict
from metarestore.config.document import followed
from metarestore.errors import UserError
from metarestore.files import replacing
from metarestore.notices import notice
from metarestore.tasks.embedded import EMBEDDED, embedded_path
from metarestore.tasks.photographs import (
    Photograph,
    decoding_problems,
    list_photographs,
    read_image,
    report_damage,
    write_image,
)

__all__ = ["ImageSource", "ImageStore", "Photograph", "cache_folder", "read_image", "write_image"]

_FORMAT = 2  # incremented whenever the cache of the same files would change


@dataclass(frozen=True)
class ImageSource:
    """The origin of photographs: plain data that can be sent to a worker and opened there.

    Attributes:
        kind: A folder of photographs, a single one, or a split of the embedded ones.
        location: The absolute path of the folder or file, or the split's name.
    """

    kind: Literal["folder", "file", "embedded"]
    location: str

    @classmethod
    def folder(cls, path: str | os.PathLike[str]) -> ImageSource:
        """Returns the source of a folder; its path is made absolute, because workers run in other folders."""
        return cls("folder", str(Path(path).expanduser().absolute()))

    @classmethod
    def file(cls, path: str | os.PathLike[str]) -> ImageSource:
        """Names a single photograph; a relative path is completed now."""
        return cls("file", str(Path(path).expanduser().absolute()))

    @classmethod
    def embedded(cls, split: str) -> ImageSource:
        """Returns the source of a split of the embedded photographs.

        Raises:
            UserError: There is no such split.
        """
        if split not in EMBEDDED:
            raise UserError(f"unknown embedded split '{split}'; write one of {', '.join(EMBEDDED)}")
        return cls("embedded", split)

    def files(self) -> dict[str, Path]:
        """Returns the photographs' files by name, sorted by name.

        Raises:
            UserError: The folder is missing, empty, or holds no photographs.
        """
        if self.kind == "folder":
            return list_photographs(self.location)
        if self.kind == "file":
            return {Path(self.location).stem: Path(self.location)}
        return {name: embedded_path(name) for name in sorted(EMBEDDED[self.location])}

    def __str__(self) -> str:
        return self.location if self.kind != "embedded" else f"embedded {self.location} photographs"


class _Record(Strict):
    """Position of one photograph in the pixel file."""

    name: str
    offset: int
    height: int
    width: int
    gray: bool
    damage: str | None = None

    @property
    def nbytes(self) -> int:
        return 3 * self.height * self.width


class _Index(Strict):
    """Contents of the pixel file of a cache."""

    source: str
    content: str
    records: tuple[_Record, ...]

    @property
    def nbytes(self) -> int:
        return sum(record.nbytes for record in self.records)


class ImageStore:
    """Decoded photographs of one source, 8-bit RGB, read from a memory map that all processes of a node share.

    The cache is built if it is missing, stale or damaged. A pickled store contains no pixels: it reopens the map at
    first access, and rebuilds the cache on a node that has none.

    Example:
        >>> store = ImageStore.open(ImageSource.embedded("test"))
        >>> store.names
        ('astronaut', 'camera', 'chelsea', 'coffee', 'rocket')
        >>> store.size("chelsea"), store.is_gray("camera")
        ((300, 451), True)
        >>> store.patch("chelsea", top=8, left=16, height=32, width=48).shape
        (32, 48, 3)
    """

    def __init__(self, source: ImageSource, key: str, index: _Index, least: tuple[int, int] = (0, 0)) -> None:
        self.source = source
        self._key = key
        self._index = index
        self._least = least

    @classmethod
    def open(cls, source: ImageSource) -> ImageStore:
        """Opens the cache of a source, and builds it first if necessary.

        Raises:
            UserError: The source is missing or empty, some of its files are not photographs (all are listed), or the
                cache cannot be written.
        """
        files = source.files()
        key = _key(source, files)
        index = _read_index(key) or _build(key, source, files)
        for record in index.records:
            report_damage(files[record.name], record.damage)
        return cls(source, key, index)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The photographs' names, sorted; see `at_least`."""
        height, width = self._least
        records = self._index.records
        return tuple(record.name for record in records if record.height >= height and record.width >= width)

    @property
    def content(self) -> str:
        """A hash of names, sizes and pixels, which is equal on all machines with the same photographs."""
        return self._index.content

    def size(self, name: str) -> tuple[int, int]:
        """Returns (height, width) in pixels."""
        record = self._record(name)
        return record.height, record.width

    def is_gray(self, name: str) -> bool:
        """Returns whether the file of this photograph stores a single channel."""
        return self._record(name).gray

    def image(self, name: str) -> NDArray[np.uint8]:
        """Returns a photograph, uint8 (H, W, 3): a read-only view of the shared map without copying."""
        record = self._record(name)
        flat = self._pixels[record.offset : record.offset + record.nbytes]
        return flat.reshape(record.height, record.width, 3)

    def patch(self, name: str, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        """Returns a copy of a crop, uint8 (height, width, 3).

        Raises:
            ValueError: The crop is not inside the photograph.
        """
        rows, columns = self.size(name)
        if not (0 <= top <= top + height <= rows and 0 <= left <= left + width <= columns):
            raise ValueError(f"crop {height}x{width} at ({top}, {left}) is outside '{name}' ({rows}x{columns})")
        return self.image(name)[top : top + height, left : left + width].copy()

    def at_least(self, height: int, width: int) -> ImageStore:
        """Returns the store without photographs that are smaller than a crop, and logs a notice about them.

        Raises:
            UserError: All photographs are smaller.
        """
        least = (max(height, self._least[0]), max(width, self._least[1]))
        store = ImageStore(self.source, self._key, self._index, least)
        small = [name for name in self.names if name not in store.names]
        if not store.names:
            raise UserError(
                f"{self.source}: all {len(self.names)} photographs are smaller than the {height}x{width} crop; "
                "choose a smaller crop, or add larger photographs"
            )
        if small:
            shown = ", ".join(small[:3]) + (", ..." if len(small) > 3 else "")
            notice(
                f"{self.source}: {len(small)} of {len(self.names)} photographs are left out, as they are smaller than "
                f"the {height}x{width} crop: {shown}"
            )
        return store

    def require_size(self, height: int, width: int) -> None:
        """Checks that a crop of this size fits into every photograph.

        Raises:
            UserError: Some photographs are smaller; all are listed.
        """
        small = [record for record in self._index.records if record.height < height or record.width < width]
        if small:
            raise UserError(
                [
                    f"{self.source}: '{record.name}' is {record.height}x{record.width} (height x width), smaller than "
                    f"the {height}x{width} crop; remove it or choose a smaller crop"
                    for record in small
                ]
            )

    @functools.cached_property
    def _records(self) -> Mapping[str, _Record]:
        return {record.name: record for record in self._index.records}

    @functools.cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        if _read_index(self._key) != self._index:
            self._key = self._rebuilt_key()
        return np.memmap(_cache_file(self._key, "u8"), np.uint8, mode="r").view(np.ndarray)

    def _rebuilt_key(self) -> str:
        """Builds the cache on this machine, and checks that it holds the same photographs."""
        local = ImageStore.open(self.source)
        if local.content != self.content:
            raise UserError(
                f"{self.source}: the photographs differ from those at the start of the run; "
                "restore them, and give every machine the same files and the same version of OpenCV"
            )
        return local._key

    def _record(self, name: str) -> _Record:
        try:
            return self._records[name]
        except KeyError:
            raise UserError(f"{self.source}: holds no photograph '{name}'; restore the file it came from") from None

    def __reduce__(self) -> tuple[type[ImageStore], tuple[ImageSource, str, _Index, tuple[int, int]]]:
        return ImageStore, (self.source, self._key, self._index, self._least)


def cache_folder() -> Path:
    """Returns the folder of caches: `$METARESTORE_CACHE`, or `metarestore` in the user's cache folder."""
    if given := os.environ.get("METARESTORE_CACHE"):
        return Path(given).expanduser()
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "metarestore"
    try:
        return Path.home() / ".cache" / "metarestore"
    except RuntimeError as error:
        raise UserError("this user has no home folder; set METARESTORE_CACHE to a folder for caches") from error


def _cache_file(key: str, suffix: Literal["u8", "json"]) -> Path:
    return cache_folder() / f"{key}.{suffix}"


def _key(source: ImageSource, files: Mapping[str, Path]) -> str:
    """Returns a hash that changes whenever the cache of these files would: the name of the cache."""
    # The results of decoders differ in the last bit between versions of OpenCV.
    parts: list[object] = [_FORMAT, cv2.__version__]
    if source.kind == "embedded":
        parts += [importlib.metadata.version("scikit-image"), *files]
    else:
        for path in files.values():
            try:
                real, state = followed(path), path.stat()
            except OSError as error:
                # Report all files that cannot be decoded.
                raise UserError(decoding_problems(files.values())) from error
            parts.append((str(real), state.st_size, state.st_mtime_ns))
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _read_index(key: str) -> _Index | None:
    """Returns the index of a cache, or None if it is missing, damaged, or does not match the pixel file."""
    try:
        index = _Index.model_validate_json(_cache_file(key, "json").read_bytes())
        size = _cache_file(key, "u8").stat().st_size
    except (OSError, ValidationError):
        return None
    return index if size == index.nbytes else None


def _build(key: str, source: ImageSource, files: Mapping[str, Path]) -> _Index:
    """Decodes all photographs into a new cache; several processes may do so at once, with equal results."""
    pixels, index_file = _cache_file(key, "u8"), _cache_file(key, "json")
    try:
        pixels.parent.mkdir(parents=True, exist_ok=True)
        with replacing(pixels) as out:
            index = _decode_all(out, source, files)
        with replacing(index_file) as out:  # last: an index implies that its pixels are complete
            out.write(index.model_dump_json().encode())
    except OSError as error:
        raise UserError(
            f"{pixels.parent}: cannot write the cache of {source} ({error.strerror}); "
            "set METARESTORE_CACHE to a writable folder with enough space"
        ) from error
    return index


def _decode_all(out: IO[bytes], source: ImageSource, files: Mapping[str, Path]) -> _Index:
    """Appends the pixels of all photographs to `out`; raises `UserError` with all files that cannot be decoded."""
    content = hashlib.blake2b(digest_size=16)
    records: list[_Record] = []
    problems: list[str] = []
    for name, path in files.items():
        try:
            photograph = read_image(path)
        except UserError as error:
            problems += error.problems
            continue
        height, width, _ = photograph.pixels.shape
        position = {"offset": out.tell(), "height": height, "width": width}
        records.append(_Record(name=name, **position, gray=photograph.gray, damage=photograph.damage))
        content.update(json.dumps([name, height, width]).encode())
        content.update(photograph.pixels.data)
        out.write(photograph.pixels.data)
    if problems:
        raise UserError(problems)
    return _Index(source=str(source), content=content.hexdigest(), records=tuple(records))
