"""Contract tests of operations and pipelines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import cv2
import jsonschema
import pytest
import torch
from torch import Tensor

from metarestore.config.ranges import Range
from metarestore.config.schema import json_schema
from metarestore.degradations import (
    OPERATIONS,
    Context,
    Degradation,
    DegradationDraw,
    Pipeline,
    replay,
    replay_each,
)
from metarestore.degradations.base import Step, number
from metarestore.testing.contract import Contract

SEEDS = [11, 22, 33, 44, 55, 66, 77, 88]


@dataclass(frozen=True)
class Subject:
    """A pipeline under test, as written in YAML, and its scale."""

    written: list[dict[str, object]]
    scale: int

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline."""
        return Pipeline.model_validate(self.written)

    @property
    def stochastic(self) -> bool:
        """Whether the first draw contains noise; a choice or a probability may omit it."""
        return any(OPERATIONS[draw.op].stochastic for draw in self.draws())

    def entry(self, draw: DegradationDraw) -> Step:
        """Returns the step at the position of a draw; inside a repeat, the first number is the repetition."""
        first, *rest = draw.position
        step = self.pipeline.steps[first]
        while rest:
            rest = rest[1:] if step.op == "repeat" else rest
            step, rest = step.inner[rest[0]], rest[1:]
        return step

    def draws(self, index: int = 0) -> tuple[DegradationDraw, ...]:
        """Draws the degradation of a task."""
        return self.pipeline.draw((3, "test", index), self.scale)


def subjects_of(*operations: type[Degradation]) -> dict[str, Subject]:
    """Returns the `examples` of operations, each as a pipeline under test."""
    return dict(_subjects(operations))


def _subjects(operations: tuple[type[Degradation], ...]) -> Iterator[tuple[str, Subject]]:
    for operation in operations:
        op = operation.op_name()
        for index, example in enumerate(operation.examples):
            # `resize` changes the size, which only `downsample` brings to that of LR.
            after: list[dict[str, object]] = [{"op": "downsample"}] if op == "resize" else []
            yield f"{op}-{index}", Subject([{"op": op, **example}, *after], 4 if op in {"downsample", "resize"} else 1)


def sample_images() -> Tensor:
    """Returns eight images with flat areas, edges and texture; no side is a multiple of a vector register."""
    images = torch.rand(8, 3, 44, 52, generator=torch.Generator().manual_seed(0))
    images[:, :, :10, :20], images[:, :, 10:20, 20:40] = 0, 1
    return images


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Sets the number of threads of PyTorch and OpenCV."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


@cache
def _validator() -> Any:
    schema = json_schema(Pipeline, "pipeline")
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


class PipelineContract(Contract):
    """Tests pipelines; `subjects_of(MyOperation, ...)` returns the examples of operations."""

    examples: ClassVar[Mapping[str, Subject]]

    @pytest.fixture
    def images(self) -> Tensor:
        """The HR images (8, 3, 44, 52)."""
        return sample_images()

    @pytest.fixture
    def validator(self) -> Any:
        """The JSON schema of pipelines."""
        return _validator()

    def test_fits_its_scale(self, example: Subject) -> None:
        """Every range is defined for the scale."""
        example.pipeline.check_scale(example.scale)

    def test_shape_range_and_levels(self, example: Subject, images: Tensor) -> None:
        """LR has the size that the scale requires, and 8-bit levels in [0, 1]."""
        for index in range(3):
            lr = replay(images, example.draws(index), SEEDS)
            assert lr.shape == (8, 3, 44 // example.scale, 52 // example.scale)
            assert lr.dtype == torch.float32
            assert lr.is_contiguous()
            assert 0 <= lr.min() <= lr.max() <= 1  # also false for NaN
            assert torch.equal(lr, (lr * 255).round().to(torch.uint8).float() / 255)

    def test_is_deterministic_and_leaves_its_input_alone(self, example: Subject, images: Tensor) -> None:
        """The same draw gives the same bytes, and its input is not modified."""
        before = images.clone()
        first = replay(images, example.draws(), SEEDS)
        assert torch.equal(first, replay(images, example.draws(), SEEDS))
        assert torch.equal(images, before)

    def test_image_does_not_depend_on_its_batch(self, example: Subject, images: Tensor) -> None:
        """An image is degraded independently of the other images of its batch, bit for bit."""
        together = replay(images, example.draws(), SEEDS)
        for index in range(8):
            alone = replay(images[index : index + 1], example.draws(), SEEDS[index : index + 1])
            assert torch.equal(alone[0], together[index])
        halves = [replay(images[k : k + 4], example.draws(), SEEDS[k : k + 4]) for k in (0, 4)]
        assert torch.equal(torch.cat(halves), together)
        order = [5, 2, 7, 0, 1]
        assert torch.equal(replay(images[order], example.draws(), [SEEDS[i] for i in order]), together[order])

    def test_image_does_not_depend_on_memory_layout(self, example: Subject, images: Tensor) -> None:
        """Channels-last memory gives the same bytes."""
        channels_last = images.contiguous(memory_format=torch.channels_last)
        assert torch.equal(replay(channels_last, example.draws(), SEEDS), replay(images, example.draws(), SEEDS))

    def test_image_does_not_depend_on_threads(self, example: Subject, images: Tensor) -> None:
        """The number of threads changes nothing."""
        large = images.repeat(1, 1, 3, 3)
        with threads(1):
            one = replay(large, example.draws(), SEEDS)
        with threads(4):
            assert torch.equal(replay(large, example.draws(), SEEDS), one)

    def test_unrounded_values_do_not_depend_on_batch_or_threads(self, example: Subject, images: Tensor) -> None:
        """Every operation is independent of batch and threads, also before rounding."""
        size = (44 // example.scale, 52 // example.scale)
        for draw in example.draws():
            operation = OPERATIONS[draw.op]
            with threads(1):
                together = operation.apply(images, draw.params, Context(SEEDS, size))
            with threads(4):
                alone = [
                    operation.apply(images[i : i + 1], draw.params, Context(SEEDS[i : i + 1], size)) for i in range(8)
                ]
            assert torch.equal(torch.cat(alone), together)

    def test_each_image_of_a_batch_may_have_a_draw_of_its_own(self, example: Subject, images: Tensor) -> None:
        """A batch with one draw per image equals its images one by one."""
        draws = [example.draws(index) for index in range(8)]
        together = replay_each(images, draws, SEEDS)
        for index in range(8):
            assert torch.equal(together[index], replay(images[index : index + 1], draws[index], [SEEDS[index]])[0])

    def test_torch_backend_has_the_same_law(self, example: Subject, images: Tensor) -> None:
        """The backend `torch` agrees with `opencv` in values, or in moments for noise."""
        size = (44 // example.scale, 52 // example.scale)
        for draw in example.draws():
            operation = OPERATIONS[draw.op]
            exact = operation.apply(images, draw.params, Context(SEEDS, size))
            batched = operation.apply(images, draw.params, Context(SEEDS, size, "torch"))
            assert batched.shape == exact.shape
            assert batched.isfinite().all()
            if operation.stochastic:
                # Two fields of the same distribution: over all pixels, their effects have equal moments.
                assert batched.mean() == pytest.approx(float(exact.mean()), abs=0.01)
                errors = [
                    (noisy - images).std() if noisy.shape == images.shape else noisy.std() for noisy in (exact, batched)
                ]
                assert float(errors[0]) == pytest.approx(float(errors[1]), rel=0.05, abs=1e-4)
            elif draw.params.get("codec") == "auto":
                assert (batched - exact).abs().mean() < 0.05  # two codecs of the same standard, on images of noise
            else:
                assert (batched - exact).abs().max() < 1e-3

    def test_torch_backend_is_reproducible_and_ends_at_the_lr_size(self, example: Subject, images: Tensor) -> None:
        """The backend `torch` gives the same bytes twice, and the size of LR."""
        lr = replay(images, example.draws(), SEEDS, "torch")
        assert lr.shape == (8, 3, 44 // example.scale, 52 // example.scale)
        assert 0 <= lr.min() <= lr.max() <= 1
        assert torch.equal(lr, replay(images, example.draws(), SEEDS, "torch"))

    def test_noise_is_each_images_own(self, example: Subject, images: Tensor) -> None:
        """Noise differs between equal images, and nothing else does."""
        same = images[:1].expand(2, -1, -1, -1)
        first, second = replay(same, example.draws(), [1, 2])
        assert torch.equal(first, second) != example.stochastic

    def test_probability_zero_leaves_operations_out(self, example: Subject, images: Tensor) -> None:
        """With probability 0, no operation is applied."""
        entries = [{**entry, "probability": 0} for entry in example.written if "downsample" not in json.dumps(entry)]
        draws = Pipeline.model_validate(entries).draw((3,), example.scale)
        assert draws == ()
        assert torch.equal(replay(images, draws, SEEDS), (images * 255).round() / 255)

    def test_replays_from_json(self, example: Subject, images: Tensor) -> None:
        """A draw is unchanged by a round trip through JSON."""
        draws = example.draws()
        restored = tuple(DegradationDraw.from_json(json.loads(json.dumps(draw.to_json()))) for draw in draws)
        assert restored == draws
        assert torch.equal(replay(images, restored, SEEDS), replay(images, draws, SEEDS))

    def test_draws_depend_on_content_and_seed_alone(self, example: Subject) -> None:
        """A draw does not depend on earlier draws."""
        pipeline = example.pipeline
        expected = example.draws(4)
        for index in range(4):
            pipeline.draw((3, "test", index), example.scale)
        assert pipeline.draw((3, "test", 4), example.scale) == expected

    def test_draws_vary_with_the_seed_where_there_is_something_to_draw(self, example: Subject) -> None:
        """Draws differ if and only if there is a range or a choice."""
        varies = any(
            isinstance(value, Range) and value.at(example.scale).low < value.at(example.scale).high
            for operation in example.pipeline.operations
            for _, value in operation
        ) or any(word in json.dumps(example.written) for word in ("one_of", "shuffle", "probability", '"method": ["'))
        assert (len({json.dumps([draw.to_json() for draw in example.draws(i)]) for i in range(9)}) > 1) == varies

    def test_draws_lie_within_the_ranges(self, example: Subject) -> None:
        """Every drawn value lies in its range."""
        for index in range(20):
            for draw in example.draws(index):
                entry = example.entry(draw)
                assert entry.op == draw.op
                for name in draw.params:
                    limits = getattr(entry, name, None)
                    if isinstance(limits, Range):
                        assert (
                            limits.at(example.scale).low <= number(draw.params, name) <= limits.at(example.scale).high
                        )

    def test_is_written_back_as_it_reads(self, example: Subject) -> None:
        """A pipeline is unchanged by a round trip through JSON."""
        dumped = example.pipeline.model_dump(mode="json")
        assert Pipeline.model_validate(json.loads(json.dumps(dumped))) == example.pipeline

    def test_json_schema_accepts_it(self, example: Subject, validator: Any) -> None:
        """The JSON schema accepts the pipeline, and rejects it without `op`."""
        assert validator.is_valid(json.loads(json.dumps(example.written)))
        without_op = [{k: v for k, v in entry.items() if k != "op"} for entry in example.written]
        assert not validator.is_valid(without_op)
