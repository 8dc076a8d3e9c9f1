"""Pipelines: ordered degradations that are drawn as data and replayed on images."""

from __future__ import annotations

import importlib
import itertools
import math
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ConfigDict, RootModel, model_validator
from pydantic_core import PydanticCustomError

from metarestore.degradations.base import (
    MAX_CASES,
    OPERATIONS,
    Backend,
    Context,
    Degradation,
    DegradationDraw,
    Drawn,
    SeedPath,
    Step,
    error_at,
)

# Importing a file registers its operations; the model below accepts all of them.
for _file in pkgutil.iter_modules([str(Path(__file__).parent)]):
    if _file.name not in {"pipeline", "structure"}:
        importlib.import_module(f"metarestore.degradations.{_file.name}")

from metarestore.degradations.resample import resampled  # noqa: E402
from metarestore.degradations.structure import AnyStep, Structure  # noqa: E402
from metarestore.seeds import derived_seed  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

_MAX_OPERATIONS = 256
"""Largest number of operations in a draw: far more than in any camera, and still computed within seconds."""


class Pipeline(RootModel[tuple[Step, ...]]):
    """Ordered degradations; in YAML a list."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    root: tuple[AnyStep, ...]

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if (most := sum(step.max_operations() for step in self.root)) > _MAX_OPERATIONS:
            text = "a draw may have {most} operations, but at most {limit} are allowed; reduce the repetitions"
            raise PydanticCustomError("pipeline", text, {"most": most, "limit": _MAX_OPERATIONS})
        return self

    @property
    def steps(self) -> tuple[Step, ...]:
        """The entries, in the order in which they are applied."""
        return self.root

    @property
    def operations(self) -> tuple[Degradation, ...]:
        """All operations, including those inside structures, in the order of the file."""
        return tuple(entry for _, entry in self.entries() if isinstance(entry, Degradation))

    def entries(self) -> Iterator[tuple[tuple[str | int, ...], Step]]:
        """Yields the key path and the entry of all entries, including nested ones, in the order of the file."""
        for index, step in enumerate(self.root):
            yield from _walk(step, (index,))

    def rooted(self, root: Path) -> Pipeline:
        """Returns the pipeline with relative paths resolved against `root`, the project's folder."""
        return Pipeline(tuple(step.rooted(root) for step in self.root))

    def check_scale(self, scale: int) -> None:
        """Checks that every draw shrinks by `scale`; called by validators of models that have a scale.

        Raises:
            PydanticCustomError: A draw may have no downsample or several (or any at scale 1), or a parameter has no
                range for this scale; a `ValueError` whose `at` is the key path.
        """
        counts = [step.downsamples() for step in self.root]
        least, most = sum(low for low, _ in counts), sum(high for _, high in counts)
        if scale == 1 and most > 0:
            raise error_at("has a downsample, but scale is 1; remove the downsample, or set scale", "pipeline")
        if scale != 1 and not least == most == 1:
            count = least if least == most else f"{least} to {most}"
            raise error_at(f"must have exactly one downsample at scale {scale}, got {count}", "pipeline")
        self._check_entries(lambda entry: entry.check_scale(scale))

    def _check_entries(self, check: Callable[[Step], None]) -> None:
        """Checks every entry; errors are located relative to the model whose field `pipeline` this is."""
        for path, entry in self.entries():
            try:
                check(entry)
            except PydanticCustomError as error:
                at = (error.context or {}).get("at", ())
                raise error_at(error.message(), "pipeline", *path, *at) from error

    def content(self) -> list[dict[str, Any]]:
        """Returns everything that determines the draws, as JSON data (it enters the content hash)."""
        return [step.content() for step in self.root]

    def cases(self, scale: int) -> tuple[Drawn, ...]:
        """Returns every degradation that a protocol measures: all combinations of its choices.

        Raises:
            PydanticCustomError: Something is random, or there are more than 1000 cases; a `ValueError` whose `at` is
                the key path.
        """
        self._check_entries(lambda entry: entry.check_enumerable(scale))
        cases = [step.all_cases((index,), scale) for index, step in enumerate(self.root)]
        if math.prod(map(len, cases)) > MAX_CASES:
            raise error_at(f"a protocol may have at most {MAX_CASES} cases; shorten its choices", "pipeline")
        return tuple(tuple(itertools.chain.from_iterable(case)) for case in itertools.product(*cases))

    def draw(self, path: SeedPath, scale: int) -> tuple[DegradationDraw, ...]:
        """Draws the degradation of one task.

        Args:
            path: Name of the task's stream of random numbers, e.g. `(content, seed, "degradation", index)`.
            scale: The task's factor between HR and LR.

        Returns:
            The drawn operations in the order in which they are applied, without those that their probability left out.
        """
        return tuple(draw for index, step in enumerate(self.root) for draw in step.draws(path, (index,), scale))


def _walk(step: Step, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Step]]:
    yield path, step
    if isinstance(step, Structure):
        for index, inner in enumerate(step.inner):
            yield from _walk(inner, (*path, step.key, index))


def replay(
    images: Tensor, draws: Sequence[DegradationDraw], seeds: Sequence[int], backend: Backend | None = None
) -> Tensor:
    """Degrades HR images, all by the same draw. Values are clamped to [0, 1] after each operation.

    If the result does not have the LR size (a resize followed the downsample), it is resized with bicubic
    interpolation.

    Args:
        images: HR images (N, 3, H, W), RGB in [0, 1]; H and W are multiples of the scale.
        draws: Drawn operations, as returned by `Pipeline.draw`.
        seeds: One seed per image, for its noise fields.
        backend: `opencv` computes image by image on the CPU; `torch` on the device of the images, differentiably (with
            a straight-through gradient of the rounding), with different noise fields. Defaults to `opencv` for images
            on the CPU, `torch` otherwise.

    Returns:
        LR images (N, 3, H/scale, W/scale), float32 on the images' device, rounded to 8 bits as in LR files. With
        `opencv`, image i depends only on image i and seed i, bit for bit.

    Raises:
        ValueError: The number of seeds differs from the number of images.
    """
    if len(seeds) != len(images):
        raise ValueError(f"replay needs one seed per image, got {len(seeds)} seeds for {len(images)} images")
    import torch

    chosen: Backend = backend or ("opencv" if images.device.type == "cpu" else "torch")
    size = _lr_size(images, draws)
    images = images.to(torch.float32) if chosen == "torch" else images.detach().to("cpu", torch.float32)
    for draw in draws:
        operation = OPERATIONS[draw.op]
        context = Context(_field_seeds(operation, draw, seeds), size, chosen)
        images = operation.apply(images, draw.params, context).clamp(0, 1)
    if tuple(images.shape[-2:]) != size:  # a resize followed the downsample
        images = resampled(images, size, "bicubic", antialias=True, backend=chosen).clamp(0, 1)
    levels = (images.detach() * 255).round().div(255)
    return (images + (levels - images).detach() if images.requires_grad else levels).contiguous()


def replay_each(
    images: Tensor,
    draws: Sequence[Sequence[DegradationDraw]],
    seeds: Sequence[int],
    backend: Backend | None = None,
) -> Tensor:
    """Degrades each HR image by its own draw, as `replay` does.

    Args:
        images: HR images (N, 3, H, W).
        draws: One draw per image.
        seeds: One seed per image.
        backend: As for `replay`.

    Raises:
        ValueError: The numbers of draws, seeds and images differ.
    """
    if not len(draws) == len(seeds) == len(images):
        raise ValueError(
            f"replay_each needs one draw and one seed per image, got {len(draws)} draws and {len(seeds)} seeds "
            f"for {len(images)} images"
        )
    single = (replay(images[k : k + 1], draws[k], seeds[k : k + 1], backend) for k in range(len(images)))
    import torch

    return torch.cat(list(single))


def _lr_size(images: Tensor, draws: Sequence[DegradationDraw]) -> tuple[int, int]:
    """Returns the LR size: the HR size divided by the scale that `downsample` recorded."""
    scale = next((int(draw.params["scale"]) for draw in draws if draw.op == "downsample"), 1)  # type: ignore[arg-type]
    height, width = images.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"image size must be a multiple of scale {scale}, got {height}x{width}; crop it first")
    return height // scale, width // scale


def _field_seeds(operation: type[Degradation], draw: DegradationDraw, seeds: Sequence[int]) -> Sequence[int]:
    """Returns seeds for this position, so that two noise operations of a pipeline are independent."""
    return [derived_seed(seed, "operation", *draw.position) for seed in seeds] if operation.stochastic else seeds
