"""Draws pairs one at a time, and writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarestore.degradations import replay
from metarestore.degradations.dihedral import flip_rotate
from metarestore.errors import UserError
from metarestore.files import write_atomically
from metarestore.sampling.record import FILE, DrawnOperation, Header, Record, current_versions, to_line
from metarestore.tasks.distribution import OpenDistribution, to_tensor
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.tasks.spec import DistributionSpec, content_hash
from metarestore.tasks.task import Episode, TaskDraw

Pixels = NDArray[np.uint8]

SIDES = ("lr", "hr")
"""The folders of the images; they can be read directly by `kind: pairs`."""


@dataclass(frozen=True)
class Sample:
    """A pair of images with its line of the file of parameters.

    Attributes:
        record: The line.
        lr: LR pixels, uint8 RGB (h, w, 3).
        hr: HR pixels, uint8 RGB (H, W, 3).
    """

    record: Record
    lr: Pixels
    hr: Pixels


def new_header(name: str, spec: DistributionSpec, *, seed: int, patch: int, data: ImageSource | None = None) -> Header:
    """Returns the header for new samples.

    Args:
        name: Name of the task distribution.
        spec: The task distribution, at the requested scale.
        seed: Seed of the draws.
        patch: Side of the HR images, in pixels.
        data: The photographs; defaults to the embedded test photographs. Real pairs have their own.

    Raises:
        UserError: The patch does not fit the scale, or photographs are given for real pairs.
    """
    if patch % spec.scale or patch <= 0:
        least = max(spec.scale, patch - patch % spec.scale)
        raise UserError(f"--patch: {patch} is not a multiple of the scale {spec.scale}; write {least}")
    if data is not None and spec.own_images:
        raise UserError(f"--data: {name} has its own images; remove the option")
    return Header(
        task=name,
        spec=spec,
        content=content_hash(spec),
        seed=seed,
        scale=spec.scale,
        patch=patch,
        data=None if spec.own_images else data or ImageSource.embedded("test"),
        columns=spec.space.names,
        versions=current_versions(),
    )


class Sampler:
    """Creates the pairs of a header.

    Args:
        header: Properties shared by all pairs.

    Raises:
        UserError: Photographs are missing.
    """

    def __init__(self, header: Header) -> None:
        self.header = header
        self._episode = Episode(support=1, query=0, patch=header.patch)
        self._own: OpenDistribution | None = None
        if header.data is None:
            self._own = self._opened()
            self.images = self._own.images
        else:
            self.images = ImageStore.open(header.data)
        self._hashes: dict[str, str] = {}

    def samples(self, start: int, count: int) -> Iterator[Sample]:
        """Draws pairs `start` to `start + count - 1`; each depends only on its number.

        Raises:
            UserError: Some photographs are smaller than a patch.
        """
        space, tasks = self.header.spec.space, self._own or self._opened()
        draws = ((index, tasks.draw(self.header.seed, index)) for index in range(start, start + count))
        return (self.make(index, draw, tuple(space.vector(draw.degradations).to_json())) for index, draw in draws)

    def _opened(self) -> OpenDistribution:
        return self.header.spec.open(self.header.task, self._episode, lambda _: self.images, "test")

    def make(self, index: int, draw: TaskDraw, vector: tuple[float | None, ...]) -> Sample:
        """Creates the pair of a draw.

        Raises:
            UserError: The photograph is missing.
            ValueError: The photograph is smaller than the draw's box.
        """
        patch = draw.support[0]
        lr, hr = (_pixels(images[0]) for images in self._build(draw))
        record = Record(
            index=index,
            image=patch.image,
            image_sha256=self.image_sha256(patch.image),
            box=patch.box,
            turn=patch.turn,
            noise_seed=patch.seed,
            degradations=tuple(DrawnOperation.model_validate(one.to_json()) for one in draw.degradations),
            vector=vector,
            lr_sha256=sha256(lr),
            hr_sha256=sha256(hr),
        )
        return Sample(record, lr, hr)

    def _build(self, draw: TaskDraw) -> tuple[Tensor, Tensor]:
        """Creates LR (1, 3, h, w) and HR (1, 3, H, W) from the draw only: files of the task are not needed."""
        if self._own is not None:
            return self._own.build_support(draw)
        [patch] = draw.support
        hr = flip_rotate(to_tensor(self.images.patch(patch.image, *patch.box)), patch.turn)[None]
        return replay(hr, draw.degradations, [patch.seed]), hr

    def image_sha256(self, name: str) -> str:
        """Returns the hash of a photograph."""
        if name not in self._hashes:
            self._hashes[name] = sha256(self.images.image(name))
        return self._hashes[name]


def sha256(pixels: Pixels) -> str:
    """Returns the SHA-256 of pixels, uint8 RGB (H, W, 3), row by row."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def require_empty(folder: Path) -> None:
    """Checks that samples may be written into a folder.

    Raises:
        UserError: It contains files, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out: {folder} is a file; choose a new folder")
    if any(not path.is_dir() for path in folder.rglob("*")):
        raise UserError(f"--out: {folder} already contains files; choose a new folder, or empty it")


def write_samples(folder: Path, header: Header, samples: Iterable[Sample]) -> int:
    """Writes `lr/NNNNNN.png`, `hr/NNNNNN.png` and `params.jsonl`, and returns the number of pairs.

    The file of parameters is written last. If writing stops early, it lists the complete pairs, and incomplete ones are
    removed.

    Args:
        folder: A new or empty folder.
        header: Properties shared by all pairs.
        samples: The pairs, consumed one at a time.

    Raises:
        UserError: The folder holds files, or cannot be written to.
    """
    require_empty(folder)
    partial = folder / f".{FILE}.part"
    written = 0
    try:
        for side in SIDES:
            (folder / side).mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as lines:
            lines.write(to_line(header).encode())
            for sample in samples:
                _write_pair(folder, sample, lines)
                written += 1
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder with --out") from error
    finally:
        if written:
            partial.replace(folder / FILE)
        else:
            partial.unlink(missing_ok=True)
    return written


def _write_pair(folder: Path, sample: Sample, lines: IO[bytes]) -> None:
    """Writes two images and a line, or nothing if interrupted."""
    images = {folder / side / f"{sample.record.name}.png": getattr(sample, side) for side in SIDES}
    with ExitStack() as undo:
        undo.callback(lines.truncate, lines.tell())
        for path, pixels in images.items():
            undo.callback(path.unlink, missing_ok=True)
            write_atomically(path, _png(pixels))
        lines.write(to_line(sample.record).encode())
        lines.flush()
        undo.pop_all()


def _png(pixels: Pixels) -> bytes:
    _, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def _pixels(image: Tensor) -> Pixels:
    """Converts (3, H, W) in [0, 1], a multiple of 1/255, to uint8 (H, W, 3)."""
    return np.ascontiguousarray((image * 255.0).round().byte().permute(1, 2, 0).numpy())
