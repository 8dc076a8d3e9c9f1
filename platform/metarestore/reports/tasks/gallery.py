"""The gallery: an HTML page with examples of every task distribution and every operation."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from metarestore.degradations import OPERATIONS, Degradation, Pipeline, replay
from metarestore.files import unwritable, write_atomically
from metarestore.project import read_task
from metarestore.reports.pages import page_templates
from metarestore.reports.pictures import png_bytes
from metarestore.reports.tasks.operation_reference import default_text, docstring
from metarestore.reports.tasks.preview import drawn_lines, opened, to_pixels
from metarestore.tasks.distribution import to_tensor
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.tasks.vectors import DrawSpace

_DRAWS = 6
"""Number of draws per task distribution, one row of the page."""
_EXAMPLE_DRAWS = 3
"""Number of draws for an operation's example with drawn parameters."""
_PATCH = ("chelsea", 84, 108, 96)
"""The patch for operations: photograph, top, left and side in pixels; a cat's eye with fur, black and a highlight."""
_SCALE = 4


@dataclass(frozen=True)
class Tile:
    """An image of the page.

    Attributes:
        source: Its file, relative to the page.
        lines: Caption: operations and parameters.
        clean: File of the clean image, shown on hover or touch.
    """

    source: str
    lines: Sequence[tuple[str, str]]
    clean: str


@dataclass(frozen=True)
class TaskCard:
    """A task distribution on the page."""

    name: str
    kind: str
    own_images: bool
    scale: int
    description: str
    yaml: str
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Example:
    """An operation in the syntax of a task file, with images of its effect."""

    yaml: str
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class OperationCard:
    """An operation on the page.

    Attributes:
        name: Its name in YAML.
        text: Description.
        source: Reference; may be empty.
        keys: Name, default and description of each key.
        examples: Examples.
    """

    name: str
    text: str
    source: str
    keys: Sequence[tuple[str, str, str]]
    examples: Sequence[Example]


def write_gallery(files: Iterable[Path], folder: Path) -> Path:
    """Writes `index.html`, and its images into `tiles`.

    Args:
        files: Task files.
        folder: Output folder, created if it does not exist.

    Returns:
        Path of the page.

    Raises:
        UserError: A task file is invalid, or the folder is not writable.
    """
    page = folder / "index.html"
    pictures = _Pictures(folder / "tiles")
    write_atomically(page, _render([_task_card(file, pictures) for file in files], _families(pictures)))
    return page


class _Pictures:
    """Writes images, and equal images only once.

    Args:
        folder: Output folder, created if it does not exist.

    Raises:
        UserError: The folder cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        self._folder = folder

    def add(self, pixels: NDArray[np.uint8]) -> str:
        """Writes an image and returns its file, relative to the page."""
        content = png_bytes(pixels)
        name = f"{hashlib.blake2b(content, digest_size=8).hexdigest()}.png"
        write_atomically(self._folder / name, content)
        return f"{self._folder.name}/{name}"


def _task_card(file: Path, pictures: _Pictures) -> TaskCard:
    spec = read_task(file)
    distribution, space = opened(file.stem, spec), spec.space
    tiles = []
    for index in range(_DRAWS):
        draw = distribution.draw(0, index)
        lr, hr = distribution.build_support(draw)
        lines = drawn_lines(space, draw.degradations)
        tiles.append(Tile(pictures.add(to_pixels(lr[0])), lines, pictures.add(to_pixels(hr[0]))))
    comment, yaml = _parts(file.read_text(encoding="utf-8"))
    return TaskCard(file.stem, spec.kind, spec.own_images is not None, spec.scale, comment, yaml, tiles)


def _parts(text: str) -> tuple[str, str]:
    """Splits a task file into its opening comment, without lines for editors and the shell, and the YAML."""
    lines = text.splitlines()
    comment = [line.lstrip("# ").rstrip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    prose = [line for line in comment if not line.startswith(("yaml-language-server", "Look:"))]
    return " ".join(prose), "\n".join(lines[len(comment) :]).strip()


def _families(pictures: _Pictures) -> dict[str, list[OperationCard]]:
    """Groups the operations by the module that defines them: blur, noise, ..."""
    image, top, left, side = _PATCH
    patch = ImageStore.open(ImageSource.embedded("test")).patch(image, top, left, side, side)
    families: dict[str, list[OperationCard]] = {}
    for name, operation in sorted(OPERATIONS.items(), key=lambda item: (item[1].__module__, item[0])):
        family = operation.__module__.rpartition(".")[2].replace("_", " ")
        families.setdefault(family, []).append(_operation_card(name, operation, patch, pictures))
    return families


def _operation_card(
    name: str, operation: type[Degradation], patch: NDArray[np.uint8], pictures: _Pictures
) -> OperationCard:
    text, source = docstring(operation)
    fields = {key: field for key, field in operation.model_fields.items() if key not in {"op", "probability"}}
    keys = [(key, default_text(field), field.description or "") for key, field in fields.items()]
    examples = [_example({"op": name, **entry}, patch, pictures) for entry in operation.examples]
    examples.sort(key=lambda example: len(example.tiles) == 1)  # single images share a row of the page
    return OperationCard(name, text, source[:1].upper() + source[1:], keys, examples)


def _example(entry: Mapping[str, object], patch: NDArray[np.uint8], pictures: _Pictures) -> Example:
    pipeline = Pipeline.model_validate([entry])
    space = DrawSpace.of(pipeline, _SCALE)
    varies = any(place.columns for place in space.places)
    tiles = []
    for index in range(_EXAMPLE_DRAWS if varies else 1):
        draws = pipeline.draw(("gallery", index), _SCALE)
        degraded = replay(to_tensor(patch)[None], draws, [index], "opencv")
        lines = [("", settings) for _, settings in drawn_lines(space, draws)]
        tiles.append(Tile(pictures.add(to_pixels(degraded[0])), lines, pictures.add(patch)))
    return Example(_flow(entry), tiles)


def _flow(value: object) -> str:
    """Formats plain data as one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def _render(tasks: Sequence[TaskCard], families: Mapping[str, Sequence[OperationCard]]) -> str:
    environment = page_templates()
    environment.filters["code"] = _code
    shared = next((task.tiles for task in tasks if not task.own_images), ())
    return environment.get_template("gallery.html.j2").render(tasks=tasks, families=families, shared=shared)


def _code(text: str) -> Markup:
    """Converts a docstring's text to HTML, with text in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
