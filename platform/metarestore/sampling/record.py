"""Reads and writes the file of parameters, `params.jsonl`: a header, then one line for each pair of images."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import cv2
import numpy as np
import torch
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

import metarestore
from metarestore.config.base import Strict
from metarestore.degradations import DegradationDraw
from metarestore.errors import UserError
from metarestore.tasks.images import ImageSource
from metarestore.tasks.kinds import TaskSpec
from metarestore.tasks.spec import Scale
from metarestore.tasks.task import PatchRef, Split, TaskDraw

FILE = "params.jsonl"
"""Name of the file of parameters in a folder of samples."""

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""SHA-256 of an image's pixels: uint8 RGB, row by row, without the file's format around them."""


class Header(Strict):
    """The first line: everything that the pairs have in common, without references to other files of the project."""

    format: Literal["metarestore samples"] = "metarestore samples"
    version: Literal[1] = 1
    """Raised whenever the meaning of a key changes."""
    task: str
    """Name of the task distribution."""
    spec: TaskSpec
    """The whole task file, at the requested scale."""
    content: str
    """Hash of everything that determines the draws."""
    seed: NonNegativeInt
    scale: Scale
    """HR side over LR side."""
    patch: PositiveInt
    """Side of the HR images, in pixels."""
    data: ImageSource | None
    """Source of the photographs; null for real pairs, whose task file contains their folders."""
    columns: tuple[str, ...]
    """Names of the columns of every `vector`."""
    versions: dict[str, str]
    """Versions that the pixels may depend on."""


class DrawnOperation(Strict):
    """A drawn operation, with the names of `metarestore.degradations.DegradationDraw`."""

    op: str
    """Name of the operation."""
    position: tuple[int, ...]
    """Its position in the pipeline, one number per level of nesting."""
    params: dict[str, Any]
    """Its drawn parameters."""


class Record(Strict):
    """One line: a pair of images, with everything needed to recreate it."""

    index: NonNegativeInt
    """Number of the draw; the files are named after it."""
    image: str
    """Name of the photograph."""
    image_sha256: Sha256
    box: tuple[int, int, int, int]
    """Top, left, height, width of the HR image in the photograph, in pixels."""
    turn: Annotated[int, Field(ge=0, le=7)]
    """Number of the dihedral transform: quarter turns, plus 4 if mirrored first."""
    noise_seed: NonNegativeInt
    """Seed of the noise fields."""
    degradations: tuple[DrawnOperation, ...]
    """The drawn operations, in the order in which they are applied; none for real pairs."""
    vector: tuple[float | None, ...]
    """The drawn parameters in [0, 1], null where an operation is absent; see `metarestore.tasks.vectors`."""
    lr_sha256: Sha256
    hr_sha256: Sha256

    @property
    def name(self) -> str:
        """Name of both files, without `.png`."""
        return f"{self.index:06d}"

    def task_draw(self, header: Header) -> TaskDraw:
        """Returns the draw of this pair.

        Raises:
            UserError: This version of metarestore lacks an operation, or a parameter is not valid.
        """
        split: Split = "test" if header.data else "pairs"
        try:
            degradations = tuple(DegradationDraw.from_json(one.model_dump()) for one in self.degradations)
        except ValueError as error:
            version = header.versions.get("metarestore")
            raise UserError(f"{error}; the line was edited, or requires metarestore {version}") from error
        patch = PatchRef(split, self.image, self.box, self.turn, self.noise_seed)
        return TaskDraw(header.task, header.content, header.scale, degradations, (patch,), ())


def current_versions() -> dict[str, str]:
    """Returns the versions of everything that pixels may depend on, including the processor."""
    return {
        "metarestore": metarestore.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "torch": torch.__version__,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


def version_changes(recorded: Mapping[str, str]) -> str:
    """Returns differences from the versions of a header, e.g. `opencv 4.10.0 then, 4.12.0 now`; empty if none."""
    current = current_versions()
    changed = [name for name in current if recorded.get(name) != current[name]]
    return ", ".join(f"{name} {recorded.get(name, 'unknown')} then, {current[name]} now" for name in changed)


def to_line(entry: Header | Record) -> str:
    """Returns an entry as one line of JSON; numbers are written exactly."""
    return json.dumps(entry.model_dump(mode="json"), separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"


def read_samples(path: Path) -> tuple[Header, tuple[Record, ...]]:
    """Reads a file of parameters, or the `params.jsonl` of a folder.

    Raises:
        UserError: The file is missing, or a line is invalid.
    """
    file = path / FILE if path.is_dir() else path
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"{file}: cannot be read ({reason}); name the {FILE} of a folder of samples") from error
    if len(lines) < 2:
        raise UserError(f"{file}: holds no samples; name the {FILE} of a folder of samples")
    header = _parsed(Header, lines[0], f"{file}:1")
    return header, tuple(_parsed(Record, line, f"{file}:{n}") for n, line in enumerate(lines[1:], start=2))


Entry = TypeVar("Entry", Header, Record)


def _parsed(kind: type[Entry], line: str, position: str) -> Entry:
    # With Python's JSON parser, which reads numbers exactly.
    try:
        return kind.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        question = f"was it written by another version of metarestore than {metarestore.__version__}?"
        raise UserError(f"{position}: {key}: {first['msg']}; {question}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{position}: is not JSON ({error.msg}); use the file as `tasks sample` wrote it") from error
