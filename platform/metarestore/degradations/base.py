"""The base class of degradations: a YAML entry that draws parameters, and a pure function that applies them."""

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
"""`opencv` works image by image on the CPU, with bits that do not depend on the batch; `torch` works on any device and
is differentiable."""

SeedPath = Sequence[int | str]
"""Name of a stream of random numbers, e.g. `(content, seed, "degradation", index)`."""


@dataclass(frozen=True)
class Context:
    """Inputs of an operation besides the pixels and its parameters.

    Attributes:
        seeds: One seed per image: noise fields differ between images, the degradation does not.
        size: Height and width of the LR images that the pipeline produces.
        backend: Which implementation computes the result.
    """

    seeds: Sequence[int]
    size: tuple[int, int]
    backend: Backend = "opencv"


@dataclass(frozen=True)
class DegradationDraw:
    """One drawn operation, as plain data.

    Attributes:
        op: Name of the operation.
        position: Its position in the pipeline, one index per level of nesting; it also names the stream of random
            numbers.
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
            ValueError: The operation is not known, or a parameter is not valid for it.
        """
        if data["op"] not in OPERATIONS:
            raise ValueError(f"unknown operation {data['op']!r}; known operations: {', '.join(sorted(OPERATIONS))}")
        OPERATIONS[data["op"]].check_params(data["params"])
        return cls(data["op"], tuple(data["position"]), dict(data["params"]))


def error_at(message: str, *at: str | int) -> PydanticCustomError:
    """Returns a validation error (a `ValueError`) for the value at key path `at`, relative to the raising model."""
    return PydanticCustomError("misplaced", "{problem}", {"problem": message, "at": at})


MAX_CASES = 1000
"""Largest number of cases of a protocol."""

Drawn = tuple[DegradationDraw, ...]
"""The degradation of one task: operations in the order in which they are applied."""


def _require_op(schema: dict[str, Any]) -> None:
    schema["required"] = ["op", *schema.get("required", [])]


class Step(Strict, ABC):
    """An entry of a pipeline: an operation, or a structure of other entries."""

    model_config = ConfigDict(json_schema_extra=_require_op)

    op: str
    """The operation or structure."""

    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Probability that a task includes this entry, in [0, 1]."""

    @property
    def inner(self) -> tuple[Step, ...]:
        """The entries inside this one: empty for an operation."""
        return ()

    def draws(self, path: SeedPath, position: tuple[int, ...], scale: int) -> Iterator[DegradationDraw]:
        """Draws the operations that this entry contributes to one task, in the order in which they are applied.

        Each position has its own stream of random numbers: changing one entry does not change what the others draw.

        Args:
            path: Name of the task's stream of random numbers.
            position: Position of this entry.
            scale: The task's factor between HR and LR.
        """
        rng = generator(*path, "operation", *position)
        if rng.random() < self.probability:
            yield from self.draws_if_present(rng, path, position, scale)

    @abstractmethod
    def draws_if_present(
        self, rng: np.random.Generator, path: SeedPath, position: tuple[int, ...], scale: int
    ) -> Iterator[DegradationDraw]:
        """Draws the operations for a task that includes this entry; `rng` is the stream of this position."""

    @abstractmethod
    def max_operations(self) -> int:
        """Returns the largest number of operations that a draw of this entry can have."""

    def check_enumerable(self, scale: int) -> None:
        """Checks that all draws of this entry can be enumerated for a protocol; nested entries are checked separately.

        Raises:
            PydanticCustomError: Something is random; a `ValueError` whose `at` is the key path.
        """
        if self.probability != 1:
            raise error_at("a protocol enumerates all its cases: remove probability, or use one_of", "probability")

    def all_cases(self, position: tuple[int, ...], scale: int) -> list[Drawn]:
        """Returns every draw that this entry can produce, for a protocol that measures all of them.

        Args:
            position: Position of this entry.
            scale: The factor between HR and LR.
        """
        # One more than allowed is enough for the check; the product of a few long choices could be astronomically
        # large.
        return list(itertools.islice(self.cases(position, scale), MAX_CASES + 1))

    @abstractmethod
    def cases(self, position: tuple[int, ...], scale: int) -> Iterator[Drawn]:
        """Yields every draw lazily; there may be more than `MAX_CASES`."""

    def check_scale(self, scale: int) -> None:
        """Checks that every range is defined for tasks of this scale.

        Raises:
            PydanticCustomError: A range is not defined; a `ValueError` whose `at` is the key path.
        """
        for name, value in self:
            if isinstance(value, Range):
                try:
                    value.at(scale)
                except PydanticCustomError as error:
                    raise error_at(error.message(), name) from error

    def rooted(self, root: Path) -> Self:
        """Returns the entry with relative paths resolved against `root`, the project's folder."""
        return self

    @abstractmethod
    def downsamples(self) -> tuple[int, int]:
        """Returns the smallest and largest number of times that this entry shrinks the image to the LR size."""

    def content(self) -> dict[str, Any]:
        """Returns everything that determines the draws, as JSON data (it enters the content hash).

        Keys at their defaults are omitted, so that adding a key to an operation does not change existing draws.

        Raises:
            ValueError: A file that the entry refers to cannot be read.
        """
        return {"op": self.op, **self.model_dump(mode="json", exclude_defaults=True, exclude={"op"})}


class Degradation(Step):
    """One operation of a pipeline. Its YAML keys are fields; fields of type `Range` are drawn once per task.

    To add an operation, write one registered class in one file of this package; tests, documentation, schemas and
    previews pick it up from there.
    """

    stochastic: ClassVar[bool] = False
    """Whether `apply` draws a separate noise field for each image."""

    examples: ClassVar[tuple[Mapping[str, object], ...]]
    """Typical entries without `op`, as in YAML: the contract tests and the gallery apply them."""

    def draw(self, rng: np.random.Generator, scale: int) -> dict[str, Parameter]:
        """Draws the parameters of one task.

        Args:
            rng: Random numbers; ranges are drawn in the order of the fields.
            scale: The task's factor between HR and LR.
        """
        fields = ((name, value) for name, value in self if name not in {"op", "probability"})
        return {name: value.at(scale).draw(rng) if isinstance(value, Range) else value for name, value in fields}

    def draws_if_present(
        self, rng: np.random.Generator, path: SeedPath, position: tuple[int, ...], scale: int
    ) -> Iterator[DegradationDraw]:
        """Draws the operation itself."""
        yield DegradationDraw(self.op, position, self.draw(rng, scale))

    def check_enumerable(self, scale: int) -> None:
        """Checks that every parameter is a number or a choice."""
        super().check_enumerable(scale)
        for name, value in self:
            drawn = value.at(scale) if isinstance(value, Range) else None
            if drawn and not isinstance(drawn, Choice) and drawn.low != drawn.high:
                raise error_at("a protocol enumerates all its cases: write a number or {choice: [...]}", name)

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

    def max_operations(self) -> int:
        """Returns 1."""
        return 1

    def downsamples(self) -> tuple[int, int]:
        """Returns (0, 0): only `downsample` shrinks the image to the LR size."""
        return 0, 0

    @classmethod
    def check_params(cls, params: Params) -> None:
        """Checks that parameters, which may come from an edited file, are values that the operation could draw.

        Raises:
            ValueError: A parameter is missing or invalid.
        """
        known = {name: value for name, value in params.items() if name in cls.model_fields and value is not None}
        missing = [name for name, field in cls.model_fields.items() if field.is_required() and name not in known]
        if missing:
            raise ValueError(f"{cls.op_name()}: {', '.join(missing)} is missing")
        try:
            # A value that was drawn from a list is itself a valid value of the field.
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

        With the backend `opencv`, image i of the result depends only on image i and seed i, bit for bit. The result may
        leave [0, 1]; `replay` clamps it.

        Args:
            images: RGB images (N, 3, H, W).
            params: Parameters returned by `draw`, or read back from JSON.
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
    """Returns a numeric parameter.

    Raises:
        TypeError: The parameter is a string or a list.
    """
    value = params[name]
    if isinstance(value, str | list):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return value


def per_image(images: Tensor, change: Callable[[Image, int], Image]) -> Tensor:
    """Applies `change(image, index)` to each of `images` (N, 3, H, W), on the CPU.

    Processing one image at a time makes results independent of the batch: vectorised kernels use other instructions for
    the last few elements of an array, and convolutions choose their algorithm by batch size. It is also the fastest
    option for the small images of tasks (OpenCV's separable filter takes 0.2 ms for ten patches of 64x64, conv2d 2 ms).

    Returns:
        The results (N, 3, H', W') on the images' device, in channels-last memory format, which the next call reads
        without a copy.
    """
    import torch

    arrays = images.detach().to("cpu", torch.float32).permute(0, 2, 3, 1).contiguous().numpy()
    changed = [np.asarray(change(image, index), dtype=np.float32) for index, image in enumerate(arrays)]
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).to(images.device)
