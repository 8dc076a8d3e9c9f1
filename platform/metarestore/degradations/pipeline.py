"""Pipelines: ordered degradations that are drawn as data and replayed on images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import ConfigDict, GetCoreSchemaHandler, RootModel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema
from torch import Tensor

# Importing a family registers its operations; the union below is made of all of them.
from metarestore.degradations import blur, camera, compression, noise, resample  # noqa: F401
from metarestore.degradations.base import OPERATIONS, Degradation, DegradationDraw
from metarestore.seeds import derived_seed, generator


class _ByOperation:
    """Tells pydantic to choose among `OPERATIONS` by the key `op`."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {name: handler.generate_schema(operation) for name, operation in OPERATIONS.items()}
        return core_schema.tagged_union_schema(choices, discriminator="op")


AnyDegradation = Annotated[Degradation, _ByOperation()]
"""A field of this type is read as the operation that its `op` names."""


class Pipeline(RootModel[tuple[AnyDegradation, ...]]):
    """Ordered degradations; in YAML a list."""

    model_config = ConfigDict(frozen=True)

    @property
    def operations(self) -> tuple[Degradation, ...]:
        """The degradations, in the order in which they act."""
        return self.root

    def check_scale(self, scale: int) -> None:
        """Makes sure that the pipeline shrinks by `scale`; for the validator of the model that knows both.

        Raises:
            PydanticCustomError: There is not exactly one downsample (none at scale 1); it is a `ValueError`.
        """
        found = sum(operation.op == "downsample" for operation in self.operations)
        if found == (scale != 1):
            return
        if scale == 1:
            raise PydanticCustomError("pipeline", "pipeline has a downsample, but scale is 1; remove it or set scale")
        raise PydanticCustomError(
            "pipeline",
            "pipeline must have exactly one downsample at scale {scale}, got {found}",
            {"scale": scale, "found": found},
        )

    def draw(self, path: Sequence[int | str], scale: int) -> tuple[DegradationDraw, ...]:
        """Draws the degradation of one task.

        Each position has random numbers of its own: changing one operation does not change what the others draw.

        Args:
            path: Name of the seed, e.g. `(seed, "degradation", index)`.
            scale: The task's factor between HR and LR.

        Returns:
            The drawn operations in order, without those that their probability leaves out.
        """
        draws = []
        for position, operation in enumerate(self.operations):
            rng = generator(*path, "operation", position)
            if rng.random() < operation.probability:
                draws.append(DegradationDraw(operation.op, position, operation.draw(rng, scale)))
        return tuple(draws)


def replay(images: Tensor, draws: Sequence[DegradationDraw], seeds: Sequence[int]) -> Tensor:
    """Degrades HR images as drawn. Values are clamped to [0, 1] after each operation.

    Args:
        images: HR images (N, 3, H, W), RGB in [0, 1]; H and W are multiples of the scale.
        draws: What `Pipeline.draw` returned.
        seeds: One seed per image, for its noise fields.

    Returns:
        LR images (N, 3, H/scale, W/scale), float32 on the CPU, rounded to 8 bit as LR files are. Image i depends on
        image i and seed i alone, bit for bit.

    Raises:
        ValueError: The number of seeds is not the number of images.
    """
    if len(seeds) != len(images):
        raise ValueError(f"replay needs one seed per image, got {len(seeds)} seeds for {len(images)} images")
    images = images.detach().to("cpu", torch.float32)
    for draw in draws:
        operation = OPERATIONS[draw.op]
        images = operation.apply(images, draw.params, _field_seeds(operation, draw, seeds)).clamp(0, 1)
    return (images * 255).round().div(255).contiguous()


def _field_seeds(operation: type[Degradation], draw: DegradationDraw, seeds: Sequence[int]) -> Sequence[int]:
    """Returns seeds of this position's own, so that two noises of a pipeline are independent."""
    return [derived_seed(seed, "operation", draw.position) for seed in seeds] if operation.stochastic else seeds
