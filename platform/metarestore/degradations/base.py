"""What a degradation is: a checked YAML entry that draws its parameters, and a pure function that applies them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from metarestore.config.base import Strict
from metarestore.config.ranges import Range

Parameter = float | int | str | list[float]
Params = Mapping[str, Parameter]
"""Drawn parameters: plain data, the same after a round trip through JSON."""

Image = npt.NDArray[np.float32]
"""One RGB image (H, W, 3), in [0, 1]: the layout of OpenCV."""


def _require_op(schema: dict[str, Any]) -> None:
    schema["required"] = ["op", *schema.get("required", [])]


class Degradation(Strict, ABC):
    """One operation of a pipeline: its YAML keys are fields, of which those of type `Range` are drawn once per task."""

    model_config = ConfigDict(json_schema_extra=_require_op)

    stochastic: ClassVar[bool] = False
    """Whether `apply` draws a field of its own for each image."""

    op: str
    """The operation."""

    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    """How often a task has this operation at all, in [0, 1]."""

    def draw(self, rng: np.random.Generator, scale: int) -> dict[str, Parameter]:
        """Draws the parameters of one task.

        Args:
            rng: Source of the ranges' values, taken in the order of the fields.
            scale: The task's factor between HR and LR.
        """
        fields = ((name, value) for name, value in self if name not in {"op", "probability"})
        return {name: value.draw(rng) if isinstance(value, Range) else value for name, value in fields}

    @staticmethod
    @abstractmethod
    def apply(images: Tensor, params: Params, seeds: Sequence[int]) -> Tensor:
        """Degrades `images` (N, 3, H, W), float32 in [0, 1], on the CPU.

        Image i of the result depends on image i and seed i alone, bit for bit. It may leave [0, 1]; `replay` clamps.

        Args:
            images: RGB images (N, 3, H, W).
            params: What `draw` returned, or its copy out of JSON.
            seeds: One seed per image: noise fields differ, the degradation is the same.
        """


@dataclass(frozen=True)
class DegradationDraw:
    """One drawn operation, as plain data.

    Args:
        op: Name of the operation.
        position: Its place in the pipeline, which also names its random numbers.
        params: Its drawn parameters.
    """

    op: str
    position: int
    params: Params

    def to_json(self) -> dict[str, object]:
        """Returns the draw as JSON data."""
        return {"op": self.op, "position": self.position, "params": dict(self.params)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DegradationDraw:
        """Returns the draw that `to_json` wrote.

        Raises:
            ValueError: The operation is not known.
        """
        if data["op"] not in OPERATIONS:
            raise ValueError(f"unknown operation {data['op']!r}; known are {', '.join(sorted(OPERATIONS))}")
        return cls(data["op"], int(data["position"]), dict(data["params"]))


OPERATIONS: dict[str, type[Degradation]] = {}
"""Every operation, by the name it has in YAML."""

Operation = TypeVar("Operation", bound=Degradation)


def register(operation: type[Operation]) -> type[Operation]:
    """Makes a class known under the default of its field `op`; used as a decorator."""
    name = operation.model_fields["op"].default
    if name in OPERATIONS:
        raise ValueError(f"operation {name!r} is registered twice")
    OPERATIONS[name] = operation
    return operation


def number(params: Params, name: str) -> float:
    """Returns a parameter that is a number.

    Raises:
        TypeError: It is a text or a list.
    """
    value = params[name]
    if isinstance(value, str | list):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return value


def per_image(images: Tensor, change: Callable[[Image, int], Image]) -> Tensor:
    """Applies `change(image, index)` to each of `images` (N, 3, H, W).

    One image at a time is what makes results independent of the batch: vectorised kernels treat the last few elements
    of an array by other instructions, and convolutions choose their algorithm by the batch. It is also the fastest on
    the small images of tasks (OpenCV's separable filter needs 0.2 ms for ten patches of 64x64, conv2d 2 ms).

    Returns:
        The results (N, 3, H', W') in channels-last memory, which the next call reads without a copy.
    """
    arrays = images.detach().to("cpu", torch.float32).permute(0, 2, 3, 1).contiguous().numpy()
    changed = [np.asarray(change(image, index), dtype=np.float32) for index, image in enumerate(arrays)]
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2)
