"""The laws that every operation and every synthetic distribution of the catalogue obeys.

A new operation costs one line of `EXAMPLES`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import jsonschema
import pytest
import torch
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from metarestore.degradations import OPERATIONS, DegradationDraw, Pipeline, register, replay

EXAMPLES = {
    "gaussian_blur": [{"sigma": [0.5, 2]}, {"sigma": [0.5, 1], "ratio": [2, 3], "angle": [0, 180]}, {"sigma": 0}],
    "defocus_blur": [{"radius": [0.5, 3]}],
    "downsample": [{"method": "bicubic"}, {"method": "bilinear"}, {"method": "area"}],
    "gaussian_noise": [{"sigma": [5, 25]}, {"sigma": 10, "gray": True}],
    "poisson_noise": [{"peak": {"log_uniform": [30, 300]}}],
    "sensor_noise": [{"shot": [1e-3, 1e-2], "read": {"choice": [1e-3, 2e-3]}}],
    "jpeg": [{"quality": [40, 90]}, {"quality": 30, "subsampling": 444}],
    "unsharp_mask": [{"amount": [0.5, 1.5], "radius": [0.6, 2]}],
    "colour_shift": [{"red": [0.8, 1.2], "blue": [0.8, 1.2], "brightness": {"normal": [1, 0.1], "clip": [0.8, 1.2]}}],
    "gamma": [{"exponent": [0.7, 1.4]}],
}
CATALOGUE = sorted((Path(__file__).parents[2] / "tasks").glob("*.yaml"))


@dataclass(frozen=True)
class Subject:
    """A pipeline under test, as it is written, with its scale."""

    written: list[dict[str, object]]
    scale: int

    @property
    def pipeline(self) -> Pipeline:
        return Pipeline.model_validate(self.written)

    @property
    def stochastic(self) -> bool:
        return any(operation.stochastic for operation in self.pipeline.operations)

    def draws(self, index: int = 0) -> tuple[DegradationDraw, ...]:
        return self.pipeline.draw((3, "test", index), self.scale)


def _subjects() -> Iterator[tuple[str, Subject]]:
    for op, configs in EXAMPLES.items():
        for number, config in enumerate(configs):
            yield f"{op}-{number}", Subject([{"op": op, **config}], 4 if op == "downsample" else 1)
    for path in CATALOGUE:
        task = YAML(typ="safe", pure=True).load(path)
        if task["kind"] == "synthetic":
            yield path.stem, Subject(task["pipeline"], task["scale"])


SUBJECTS = dict(_subjects())
SEEDS = [11, 22, 33, 44, 55, 66, 77, 88]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Eight images with flat black, flat white, edges and texture; no side is a multiple of a vector register."""
    images = torch.rand(8, 3, 44, 52, generator=torch.Generator().manual_seed(0))
    images[:, :, :10, :20], images[:, :, 10:20, 20:40] = 0, 1
    return images


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def test_every_operation_has_an_example():
    assert set(EXAMPLES) == set(OPERATIONS)


def test_the_catalogue_is_there():
    assert {"bicubic", "phone_camera"} <= {path.stem for path in CATALOGUE}


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
class TestEveryPipeline:
    def test_fits_its_scale(self, subject):
        subject.pipeline.check_scale(subject.scale)

    def test_shape_range_and_levels(self, subject, images):
        for index in range(3):
            lr = replay(images, subject.draws(index), SEEDS)
            assert lr.shape == (8, 3, 44 // subject.scale, 52 // subject.scale)
            assert lr.dtype == torch.float32
            assert lr.is_contiguous()
            assert 0 <= lr.min() <= lr.max() <= 1  # also false for NaN
            assert torch.equal(lr, (lr * 255).round().to(torch.uint8).float() / 255)

    def test_is_deterministic_and_leaves_its_input_alone(self, subject, images):
        before = images.clone()
        first = replay(images, subject.draws(), SEEDS)
        assert torch.equal(first, replay(images, subject.draws(), SEEDS))
        assert torch.equal(images, before)

    def test_image_does_not_depend_on_its_batch(self, subject, images):
        together = replay(images, subject.draws(), SEEDS)
        for index in range(8):
            alone = replay(images[index : index + 1], subject.draws(), SEEDS[index : index + 1])
            assert torch.equal(alone[0], together[index])
        order = [5, 2, 7, 0, 1]
        assert torch.equal(replay(images[order], subject.draws(), [SEEDS[i] for i in order]), together[order])

    def test_image_does_not_depend_on_memory_layout(self, subject, images):
        channels_last = images.contiguous(memory_format=torch.channels_last)
        assert torch.equal(replay(channels_last, subject.draws(), SEEDS), replay(images, subject.draws(), SEEDS))

    def test_image_does_not_depend_on_threads(self, subject, images):
        large = images.repeat(1, 1, 3, 3)
        with threads(1):
            one = replay(large, subject.draws(), SEEDS)
        with threads(2):
            assert torch.equal(replay(large, subject.draws(), SEEDS), one)

    def test_unrounded_values_do_not_depend_on_batch_or_threads(self, subject, images):
        for draw in subject.draws():
            operation = OPERATIONS[draw.op]
            with threads(1):
                together = operation.apply(images, draw.params, SEEDS)
            with threads(2):
                alone = [operation.apply(images[i : i + 1], draw.params, SEEDS[i : i + 1]) for i in range(8)]
            assert torch.equal(torch.cat(alone), together)

    def test_noise_is_each_images_own(self, subject, images):
        same = images[:1].expand(2, -1, -1, -1)
        first, second = replay(same, subject.draws(), [1, 2])
        assert torch.equal(first, second) != subject.stochastic

    def test_probability_zero_leaves_operations_out(self, subject, images):
        written = [{**entry, "probability": 0} for entry in subject.written if entry["op"] != "downsample"]
        draws = Pipeline.model_validate(written).draw((3,), subject.scale)
        assert draws == ()
        assert torch.equal(replay(images, draws, SEEDS), (images * 255).round() / 255)

    def test_replays_from_json(self, subject, images):
        draws = subject.draws()
        again = tuple(DegradationDraw.from_json(json.loads(json.dumps(draw.to_json()))) for draw in draws)
        assert again == draws
        assert torch.equal(replay(images, again, SEEDS), replay(images, draws, SEEDS))

    def test_draws_depend_on_content_and_seed_alone(self, subject):
        pipeline = subject.pipeline
        expected = subject.draws(4)
        for index in range(4):
            pipeline.draw((3, "test", index), subject.scale)
        assert pipeline.draw((3, "test", 4), subject.scale) == expected

    def test_draws_vary_with_the_seed_where_there_is_a_range(self, subject):
        content = [value for entry in subject.written for key, value in entry.items() if key != "op"]
        varies = any(isinstance(value, list | dict) for value in content)
        assert (len({json.dumps([draw.to_json() for draw in subject.draws(i)]) for i in range(5)}) > 1) == varies

    def test_draws_lie_within_the_ranges(self, subject):
        for index in range(20):
            for draw in subject.draws(index):
                operation = subject.pipeline.operations[draw.position]
                for name, value in draw.params.items():
                    limits = getattr(operation, name, None)
                    if hasattr(limits, "low"):
                        assert limits.low <= value <= limits.high

    def test_is_written_back_as_it_reads(self, subject):
        dumped = subject.pipeline.model_dump(mode="json")
        assert Pipeline.model_validate(json.loads(json.dumps(dumped))) == subject.pipeline

    def test_json_schema_accepts_it(self, subject):
        schema = Pipeline.model_json_schema()
        jsonschema.validate(subject.written, schema)
        without_op = [{k: v for k, v in entry.items() if k != "op"} for entry in subject.written]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(without_op, schema)


def test_changing_one_operation_does_not_change_what_the_others_draw():
    noise, jpeg = {"op": "gaussian_noise", "sigma": [1, 9]}, {"op": "jpeg", "quality": [10, 90]}
    plain = Pipeline.model_validate([noise, jpeg]).draw((0,), 1)
    without = Pipeline.model_validate([{**noise, "probability": 0}, jpeg]).draw((0,), 1)
    assert without == plain[1:]


def test_equal_operations_at_two_positions_draw_differently():
    first, second = Pipeline.model_validate([{"op": "gaussian_noise", "sigma": [1, 9]}] * 2).draw((0,), 1)
    assert first.params != second.params


def test_two_noises_of_a_pipeline_are_independent():
    pipeline = Pipeline.model_validate([{"op": "gaussian_noise", "sigma": 4}] * 2)
    gray = torch.full((1, 3, 96, 96), 0.5)
    first, second = ((replay(gray, (draw,), [0]) - 0.5) * 255 for draw in pipeline.draw((0,), 1))
    correlation = (first * second).mean() / (first.std() * second.std())
    assert abs(correlation) < 3 / gray.numel() ** 0.5


def test_probability_is_the_share_of_tasks():
    pipeline = Pipeline.model_validate([{"op": "gamma", "exponent": 2, "probability": 0.3}])
    share = sum(len(pipeline.draw((0, index), 1)) for index in range(2000)) / 2000
    assert abs(share - 0.3) < 3 * (0.3 * 0.7 / 2000) ** 0.5


class Task(BaseModel):
    pipeline: Pipeline


@pytest.mark.parametrize(
    ("entry", "loc", "kind", "message"),
    [
        ({"op": "jpeg", "quality": 130}, ("jpeg", "quality"), "range", "130 is above 100"),
        ({"op": "jpeg", "quality": [9, 1]}, ("jpeg", "quality"), "range", "upside down"),
        ({"op": "jpeg"}, ("jpeg", "quality"), "missing", "required"),
        ({"op": "jpeg", "quality": 9, "qality": 9}, ("jpeg", "qality"), "extra_forbidden", "not permitted"),
        ({"op": "jpeg", "quality": 9, "probability": 2}, ("jpeg", "probability"), "less_than_equal", "1"),
        ({"op": "downsample", "probability": 0.5}, ("downsample", "probability"), "downsample", "cannot be left out"),
        ({"op": "gausian_noise", "sigma": 2}, (), "union_tag_invalid", "gausian_noise"),
        ({"sigma": 2}, (), "union_tag_not_found", "op"),
    ],
)
def test_error_names_the_place(entry, loc, kind, message):
    with pytest.raises(ValidationError) as caught:
        Task.model_validate({"pipeline": [{"op": "gamma", "exponent": 2}, entry]})
    (error,) = caught.value.errors()
    assert error["loc"] == ("pipeline", 1, *loc)
    assert error["type"] == kind
    assert message in error["msg"]


@pytest.mark.parametrize(("count", "scale"), [(0, 4), (2, 4), (1, 1)])
def test_pipeline_must_shrink_once(count, scale):
    with pytest.raises(ValueError, match="downsample"):
        Pipeline.model_validate([{"op": "downsample"}] * count).check_scale(scale)


def test_replay_wants_a_seed_per_image(images):
    with pytest.raises(ValueError, match="got 1 seeds for 8 images"):
        replay(images, (), [0])


def test_unknown_operation_of_a_saved_draw():
    with pytest.raises(ValueError, match="unknown operation 'blur'; known are"):
        DegradationDraw.from_json({"op": "blur", "position": 0, "params": {}})


def test_an_operation_is_registered_once():
    with pytest.raises(ValueError, match="'jpeg' is registered twice"):
        register(OPERATIONS["jpeg"])
