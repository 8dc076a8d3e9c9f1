"""The laws that every operation and every synthetic distribution of the catalogue obeys.

Operations and catalogue are found by themselves: a new operation brings its `examples`, and needs no test of its own to
be held to these laws.
"""

import json
import os
import subprocess
import sys
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

from metarestore.config.ranges import Range
from metarestore.config.schema import json_schema
from metarestore.degradations import OPERATIONS, Context, DegradationDraw, Pipeline, register, replay, replay_each
from metarestore.degradations.base import Step

CATALOGUE = sorted((Path(__file__).parents[2] / "tasks").glob("*.yaml"))

STRUCTURED = {
    "group": [{"op": "group", "steps": [{"op": "gamma", "exponent": [0.8, 1.2]}, {"op": "downsample"}]}],
    "one_of": [
        {"op": "downsample"},
        {
            "op": "one_of",
            "weights": [1, 2],
            "choices": [
                {"op": "gaussian_noise", "sigma": [5, 9]},
                {"op": "group", "steps": [{"op": "speckle_noise", "sigma": [5, 9]}, {"op": "jpeg", "quality": 30}]},
            ],
        },
    ],
    "shuffle": [
        {
            "op": "shuffle",
            "steps": [
                {"op": "downsample", "method": "area"},
                {"op": "gaussian_blur", "sigma": [0.5, 1]},
                {"op": "jpeg", "quality": [30, 90]},
            ],
        }
    ],
    "second order": [
        {
            "op": "repeat",
            "times": [1, 2],
            "steps": [
                {"op": "gaussian_blur", "sigma": [0.5, 1]},
                {"op": "resize", "factor": [0.5, 1.2], "method": ["area", "bilinear", "bicubic"]},
                {"op": "gaussian_noise", "sigma": [1, 9]},
                {"op": "jpeg", "quality": [30, 90]},
            ],
        },
        {"op": "downsample"},
    ],
}


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
        """Whether the first draw has noise: a choice or a probability may have left it out."""
        return any(OPERATIONS[draw.op].stochastic for draw in self.draws())

    def entry(self, draw: DegradationDraw) -> Step:
        """Follows the position of a draw down the pipeline; a repetition's first number is its turn."""
        first, *rest = draw.position
        step = self.pipeline.steps[first]
        while rest:
            rest = rest[1:] if step.op == "repeat" else rest
            step, rest = step.inner[rest[0]], rest[1:]
        return step

    def draws(self, index: int = 0) -> tuple[DegradationDraw, ...]:
        return self.pipeline.draw((3, "test", index), self.scale)


def _subjects() -> Iterator[tuple[str, Subject]]:
    for op, operation in OPERATIONS.items():
        for number, example in enumerate(operation.examples):
            # `resize` leaves a size of its own behind, which only `downsample` brings to that of LR.
            after = [{"op": "downsample"}] if op == "resize" else []
            yield f"{op}-{number}", Subject([{"op": op, **example}, *after], 4 if op in {"downsample", "resize"} else 1)
    for name, written in STRUCTURED.items():
        yield name, Subject(written, 4)
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


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema(Pipeline, "pipeline")
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


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
    without = {op for op, operation in OPERATIONS.items() if not operation.examples}
    assert without == {"kernel_file"}  # it needs a file; its own tests apply the same laws to one


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
        halves = [replay(images[k : k + 4], subject.draws(), SEEDS[k : k + 4]) for k in (0, 4)]
        assert torch.equal(torch.cat(halves), together)
        order = [5, 2, 7, 0, 1]
        assert torch.equal(replay(images[order], subject.draws(), [SEEDS[i] for i in order]), together[order])

    def test_image_does_not_depend_on_memory_layout(self, subject, images):
        channels_last = images.contiguous(memory_format=torch.channels_last)
        assert torch.equal(replay(channels_last, subject.draws(), SEEDS), replay(images, subject.draws(), SEEDS))

    def test_image_does_not_depend_on_threads(self, subject, images):
        large = images.repeat(1, 1, 3, 3)
        with threads(1):
            one = replay(large, subject.draws(), SEEDS)
        with threads(4):
            assert torch.equal(replay(large, subject.draws(), SEEDS), one)

    def test_unrounded_values_do_not_depend_on_batch_or_threads(self, subject, images):
        size = (44 // subject.scale, 52 // subject.scale)
        for draw in subject.draws():
            operation = OPERATIONS[draw.op]
            with threads(1):
                together = operation.apply(images, draw.params, Context(SEEDS, size))
            with threads(4):
                alone = [
                    operation.apply(images[i : i + 1], draw.params, Context(SEEDS[i : i + 1], size)) for i in range(8)
                ]
            assert torch.equal(torch.cat(alone), together)

    def test_each_image_of_a_batch_may_have_a_draw_of_its_own(self, subject, images):
        draws = [subject.draws(index) for index in range(8)]
        together = replay_each(images, draws, SEEDS)
        for index in range(8):
            assert torch.equal(together[index], replay(images[index : index + 1], draws[index], [SEEDS[index]])[0])

    def test_torch_backend_has_the_same_law(self, subject, images):
        size = (44 // subject.scale, 52 // subject.scale)
        for draw in subject.draws():
            operation = OPERATIONS[draw.op]
            exact = operation.apply(images, draw.params, Context(SEEDS, size))
            batched = operation.apply(images, draw.params, Context(SEEDS, size, "torch"))
            assert batched.shape == exact.shape
            assert batched.isfinite().all()
            if operation.stochastic:
                # Two fields of one law: over all pixels, their effects have equal moments.
                assert batched.mean() == pytest.approx(float(exact.mean()), abs=0.01)
                errors = [
                    (noisy - images).std() if noisy.shape == images.shape else noisy.std() for noisy in (exact, batched)
                ]
                assert float(errors[0]) == pytest.approx(float(errors[1]), rel=0.05, abs=1e-4)
            elif draw.params.get("codec") == "auto":
                assert (batched - exact).abs().mean() < 0.05  # two codecs of one standard, on images of noise
            else:
                assert (batched - exact).abs().max() < 1e-3

    def test_torch_backend_is_reproducible_and_ends_at_the_lr_size(self, subject, images):
        lr = replay(images, subject.draws(), SEEDS, "torch")
        assert lr.shape == (8, 3, 44 // subject.scale, 52 // subject.scale)
        assert 0 <= lr.min() <= lr.max() <= 1
        assert torch.equal(lr, replay(images, subject.draws(), SEEDS, "torch"))

    def test_noise_is_each_images_own(self, subject, images):
        same = images[:1].expand(2, -1, -1, -1)
        first, second = replay(same, subject.draws(), [1, 2])
        assert torch.equal(first, second) != subject.stochastic

    def test_probability_zero_leaves_operations_out(self, subject, images):
        entries = [{**entry, "probability": 0} for entry in subject.written if "downsample" not in json.dumps(entry)]
        draws = Pipeline.model_validate(entries).draw((3,), subject.scale)
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

    def test_draws_vary_with_the_seed_where_there_is_something_to_draw(self, subject):
        varies = any(
            isinstance(value, Range) and value.at(subject.scale).low < value.at(subject.scale).high
            for operation in subject.pipeline.operations
            for _, value in operation
        ) or any(word in json.dumps(subject.written) for word in ("one_of", "shuffle", "probability", '"method": ["'))
        assert (len({json.dumps([draw.to_json() for draw in subject.draws(i)]) for i in range(9)}) > 1) == varies

    def test_draws_lie_within_the_ranges(self, subject):
        for index in range(20):
            for draw in subject.draws(index):
                entry = subject.entry(draw)
                assert entry.op == draw.op
                for name, value in draw.params.items():
                    limits = getattr(entry, name, None)
                    if isinstance(limits, Range):
                        assert limits.at(subject.scale).low <= value <= limits.at(subject.scale).high

    def test_is_written_back_as_it_reads(self, subject):
        dumped = subject.pipeline.model_dump(mode="json")
        assert Pipeline.model_validate(json.loads(json.dumps(dumped))) == subject.pipeline

    def test_json_schema_accepts_it(self, subject, validator):
        assert validator.is_valid(json.loads(json.dumps(subject.written)))
        without_op = [{k: v for k, v in entry.items() if k != "op"} for entry in subject.written]
        assert not validator.is_valid(without_op)


PROCESS = """
import hashlib, json, sys, torch
from metarestore.degradations import Pipeline, replay
images = torch.rand(4, 3, 44, 52, generator=torch.Generator().manual_seed(0))
for written, scale in json.load(sys.stdin):
    pipeline = Pipeline.model_validate(written)
    lr = replay(images, pipeline.draw((3, "test", 0), scale), [11, 22, 33, 44])
    print(hashlib.sha256(lr.numpy().tobytes()).hexdigest())
"""


def test_another_process_makes_the_same_bytes():
    subjects = json.dumps([(subject.written, subject.scale) for subject in SUBJECTS.values()])
    hashes = [
        subprocess.run(
            [sys.executable, "-c", PROCESS],
            input=subjects,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": count, "PYTHONHASHSEED": count},
        ).stdout.split()
        for count in ("1", "4")
    ]
    assert len(hashes[0]) == len(SUBJECTS)
    assert hashes[0] == hashes[1]


def test_changing_one_operation_does_not_change_what_the_others_draw():
    noise, jpeg = {"op": "gaussian_noise", "sigma": [1, 9]}, {"op": "jpeg", "quality": [10, 90]}
    plain = Pipeline.model_validate([noise, jpeg]).draw((0,), 1)
    without = Pipeline.model_validate([{**noise, "probability": 0}, jpeg]).draw((0,), 1)
    assert without == plain[1:]


def test_equal_operations_at_two_positions_draw_differently():
    first, second = Pipeline.model_validate([{"op": "gaussian_noise", "sigma": [1, 9]}] * 2).draw((0,), 1)
    assert first.params != second.params


NOISE = {"op": "gaussian_noise", "sigma": 4}


@pytest.mark.parametrize(
    "written",
    [
        [NOISE, NOISE],
        [{"op": "repeat", "times": 2, "steps": [NOISE]}],
        [{"op": "group", "steps": [NOISE, NOISE]}],
        [{"op": "shuffle", "steps": [NOISE, NOISE]}],
        [{"op": "repeat", "times": 1, "steps": [NOISE, {"op": "group", "steps": [NOISE]}]}],
    ],
)
def test_two_noises_of_a_pipeline_are_independent(written):
    pipeline = Pipeline.model_validate(written)
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
        ({"op": "jpeg", "quality": [9, 1]}, ("jpeg", "quality"), "range", "low is above high"),
        ({"op": "jpeg"}, ("jpeg", "quality"), "missing", "required"),
        ({"op": "jpeg", "quality": 9, "qality": 9}, ("jpeg", "qality"), "extra_forbidden", "not permitted"),
        ({"op": "jpeg", "quality": 9, "probability": 2}, ("jpeg", "probability"), "less_than_equal", "1"),
        (
            {"op": "downsample", "probability": 0.5},
            ("downsample", "probability"),
            "downsample",
            "always be applied",
        ),
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
    with pytest.raises(ValueError, match="unknown operation 'blur'; known operations:"):
        DegradationDraw.from_json({"op": "blur", "position": [0], "params": {}})


def test_an_operation_is_registered_once():
    with pytest.raises(ValueError, match="'jpeg' is registered twice"):
        register(OPERATIONS["jpeg"])
