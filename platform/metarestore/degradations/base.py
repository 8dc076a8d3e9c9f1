"""What a degradation is: a checked YAML entry that draws its parameters, and a pure function that applies them."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from metarestore.config.base import Strict
from metarestore.config.ranges import Choice, Range, Uniform
from metarestore.config.registry import Registry
from metarestore.seeds import generator

if TYPE_CHECKING:
    from torch import Tensor

Parameter = float | int | str | list[float]
Params = Mapping[str, Parameter]
"""Drawn parameters: plain data, the same after a round trip through JSON."""

Image = npt.NDArray[np.float32]
"""One RGB image (H, W, 3), in [0, 1]: the layout of OpenCV."""

Backend = Literal["opencv", "torch"]
"""opencv: image by image on the CPU, the same bits whatever the batch; torch: on any device, differentiable."""

SeedPath = Sequence[int | str]
"""Name of a stream of random numbers, e.g. `(content, seed, "degradation", index)`."""


@dataclass(frozen=True)
class Context:
    """What an operation may know besides the pixels and its parameters.

    Attributes:
        seeds: One seed per image: noise fields differ, the degradation is the same.
        size: Height and width of the LR images that the pipeline ends at.
        backend: How to compute.
    """

    seeds: Sequence[int]
    size: tuple[int, int]
    backend: Backend = "opencv"


@dataclass(frozen=True)
class DegradationDraw:
    """One drawn operation, as plain data.

    Attributes:
        op: Name of the operation.
        position: Its place in the pipeline, one number per level of nesting; it also names its random numbers.
        params: Its drawn parameters.
    """

    op: str
    position: tuple[int, ...]
    params: Params

    def to_json(self) -> dict[str, object]:
        """Returns the draw as JSON data."""
        return {"op": self.op, "position": list(self.position), "params": dict(self.params)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DegradationDraw:
        """Returns the draw that `to_json` wrote.

        Raises:
            ValueError: The operation is not known, or a parameter cannot be one of its.
        """
        if data["op"] not in OPERATIONS:
            raise ValueError(f"unknown operation {data['op']!r}; known are {', '.join(sorted(OPERATIONS))}")
        OPERATIONS[data["op"]].check_params(data["params"])
        return cls(data["op"], tuple(data["position"]), dict(data["params"]))


def misplaced(message: str, *at: str | int) -> PydanticCustomError:
    """Returns an error about the value `at` this key path from the model that reports it; it is a `ValueError`."""
    return PydanticCustomError("misplaced", "{problem}", {"problem": message, "at": at})


MOST_CASES = 1000
"""Largest number of cases of a protocol."""

Drawn = tuple[DegradationDraw, ...]
"""The degradation of one task: operations in the order in which they act."""


def _require_op(schema: dict[str, Any]) -> None:
    schema["required"] = ["op", *schema.get("required", [])]


class Step(Strict, ABC):
    """An entry of a pipeline: an operation, or a structure of other entries."""

    model_config = ConfigDict(json_schema_extra=_require_op)

    op: str
    """The operation or structure."""

    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    """How often a task has this entry at all, in [0, 1]."""

    @property
    def inner(self) -> tuple[Step, ...]:
        """The entries inside this one: empty for an operation."""
        return ()

    def draws(self, path: SeedPath, position: tuple[int, ...], scale: int) -> Iterator[DegradationDraw]:
        """Draws the operations of one task that this entry stands for, in the order in which they act.

        Each position has random numbers of its own: changing one entry does not change what the others draw.

        Args:
            path: Name of the task's random numbers.
            position: Place of this entry.
            scale: The task's factor between HR and LR.
        """
        rng = generator(*path, "operation", *position)
        if rng.random() < self.probability:
            yield from self.acting(rng, path, position, scale)

    @abstractmethod
    def acting(
        self, rng: np.random.Generator, path: SeedPath, position: tuple[int, ...], scale: int
    ) -> Iterator[DegradationDraw]:
        """Draws as `draws` does, for a task that has this entry; `rng` is this position's own."""

    @abstractmethod
    def most(self) -> int:
        """Returns how many operations a draw of this entry has at most."""

    def check_listed(self, scale: int) -> None:
        """Makes sure that a protocol can list all draws of this entry; what is inside it is checked by itself.

        Raises:
            PydanticCustomError: Something is left to chance; it is a `ValueError`, and `at` says where.
        """
        if self.probability != 1:
            raise misplaced("a protocol lists all its cases: leave probability out, or use one_of", "probability")

    def listed(self, position: tuple[int, ...], scale: int) -> list[Drawn]:
        """Returns every draw that this entry can make, for a protocol that measures all of them.

        Args:
            position: Place of this entry.
            scale: The factor between HR and LR.
        """
        # One more than allowed is enough to refuse; all combinations of a few long choices would take for ever.
        return list(itertools.islice(self.cases(position, scale), MOST_CASES + 1))

    @abstractmethod
    def cases(self, position: tuple[int, ...], scale: int) -> Iterator[Drawn]:
        """Yields what `listed` returns, without an end if need be."""

    def check_scale(self, scale: int) -> None:
        """Makes sure that every range is there for tasks of this scale.

        Raises:
            PydanticCustomError: One is not; it is a `ValueError`, and `at` says which.
        """
        for name, value in self:
            if isinstance(value, Range):
                try:
                    value.at(scale)
                except PydanticCustomError as error:
                    raise misplaced(error.message(), name) from error

    def rooted(self, root: Path) -> Self:
        """Returns the entry with the relative paths in it starting at `root`, the project's folder."""
        return self

    @abstractmethod
    def downsamples(self) -> tuple[int, int]:
        """Returns how often, at least and at most, this entry shrinks the image to the LR size."""

    def content(self) -> dict[str, Any]:
        """Returns what decides the draws, as JSON data.

        Keys at their defaults are left out, so that a key which an operation gains leaves old draws as they were.

        Raises:
            ValueError: A file that the entry names cannot be read.
        """
        return {"op": self.op, **self.model_dump(mode="json", exclude_defaults=True, exclude={"op"})}


class Degradation(Step):
    """One operation of a pipeline: its YAML keys are fields, of which those of type `Range` are drawn once per task.

    A new operation is one registered class in one file of this package; tests, documentation, schemas and previews
    find it there.
    """

    stochastic: ClassVar[bool] = False
    """Whether `apply` draws a field of its own for each image."""

    examples: ClassVar[tuple[Mapping[str, object], ...]]
    """Typical entries without `op`, as in YAML: the contract tests and the gallery apply them."""

    def draw(self, rng: np.random.Generator, scale: int) -> dict[str, Parameter]:
        """Draws the parameters of one task.

        Args:
            rng: Source of the ranges' values, taken in the order of the fields.
            scale: The task's factor between HR and LR.
        """
        fields = ((name, value) for name, value in self if name not in {"op", "probability"})
        return {name: value.at(scale).draw(rng) if isinstance(value, Range) else value for name, value in fields}

    def acting(
        self, rng: np.random.Generator, path: SeedPath, position: tuple[int, ...], scale: int
    ) -> Iterator[DegradationDraw]:
        """Draws the operation itself."""
        yield DegradationDraw(self.op, position, self.draw(rng, scale))

    def check_listed(self, scale: int) -> None:
        """Makes sure that every parameter is a number or a choice."""
        super().check_listed(scale)
        for name, value in self:
            drawn = value.at(scale) if isinstance(value, Range) else None
            if drawn and not isinstance(drawn, Choice) and drawn.low != drawn.high:
                raise misplaced("a protocol lists all its cases: write a number or {choice: [...]}", name)

    def cases(self, position: tuple[int, ...], scale: int) -> Iterator[Drawn]:
        """Yields every combination of the values of `choice`; all other parameters are fixed."""
        ranges = {name: value.at(scale) for name, value in self if isinstance(value, Range)}
        listed = [value.values if isinstance(value, Choice) else (value.low,) for value in ranges.values()]
        for values in itertools.product(*listed):
            fixed = {
                name: Uniform((value, value), integer=ranges[name].integer)
                for name, value in zip(ranges, values, strict=True)
            }
            yield (DegradationDraw(self.op, position, self.model_copy(update=fixed).draw(generator("fixed"), scale)),)

    def most(self) -> int:
        """Returns 1: an operation acts once."""
        return 1

    def downsamples(self) -> tuple[int, int]:
        """Returns that the operation does not shrink to the LR size; only `downsample` does."""
        return 0, 0

    @classmethod
    def check_params(cls, params: Params) -> None:
        """Makes sure that parameters, which may come from an edited file, are such as the operation could draw.

        Raises:
            ValueError: One is not.
        """
        known = {name: value for name, value in params.items() if name in cls.model_fields and value is not None}
        missing = [name for name, field in cls.model_fields.items() if field.is_required() and name not in known]
        if missing:
            raise ValueError(f"{cls.op_name()}: {', '.join(missing)} is missing")
        try:
            # A word or number that was drawn from a list is a right value of the field as well.
            cls.model_validate({"op": cls.op_name(), **known})
        except ValidationError as error:
            [first, *_] = error.errors()
            raise ValueError(f"{cls.op_name()}.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error

    @classmethod
    def op_name(cls) -> str:
        """Returns the name that the operation has in YAML."""
        return str(cls.model_fields["op"].default)

    @staticmethod
    @abstractmethod
    def apply(images: Tensor, params: Params, context: Context) -> Tensor:
        """Degrades `images` (N, 3, H, W), float32 in [0, 1].

        With the backend `opencv`, image i of the result depends on image i and seed i alone, bit for bit. The result
        may leave [0, 1]; `replay` clamps.

        Args:
            images: RGB images (N, 3, H, W).
            params: What `draw` returned, or its copy out of JSON.
            context: Seeds, LR size and backend.
        """


OPERATIONS: Registry[Degradation] = Registry("metarestore.operations", Degradation, key="op")
"""Every operation, by the name it has in YAML."""

Operation = TypeVar("Operation", bound=Degradation)


def register(operation: type[Operation]) -> type[Operation]:
    """Makes a class of this package known under the default of its field `op`; used as a decorator."""
    OPERATIONS.add(operation)
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
    """Applies `change(image, index)` to each of `images` (N, 3, H, W), on the CPU.

    One image at a time is what makes results independent of the batch: vectorised kernels treat the last few elements
    of an array by other instructions, and convolutions choose their algorithm by the batch. It is also the fastest on
    the small images of tasks (OpenCV's separable filter needs 0.2 ms for ten patches of 64x64, conv2d 2 ms).

    Returns:
        The results (N, 3, H', W') on the images' device, in channels-last memory, which the next call reads without a
        copy.
    """
    import torch

    arrays = images.detach().to("cpu", torch.float32).permute(0, 2, 3, 1).contiguous().numpy()
    changed = [np.asarray(change(image, index), dtype=np.float32) for index, image in enumerate(arrays)]
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).to(images.device)
