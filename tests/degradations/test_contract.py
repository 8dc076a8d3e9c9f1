"""The contract that every operation and every synthetic distribution of the catalogue meets.

Operations and catalogue are found by themselves: a new operation brings its `examples`, and needs no test of its own to
be tested by this contract.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from metarestore.degradations import OPERATIONS, DegradationDraw, Pipeline, register, replay
from metarestore.testing.operations import PipelineContract, Subject, sample_images, subjects_of

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


def _subjects() -> Iterator[tuple[str, Subject]]:
    yield from subjects_of(*OPERATIONS.values()).items()
    for name, written in STRUCTURED.items():
        yield name, Subject(written, 4)
    for path in CATALOGUE:
        task = YAML(typ="safe", pure=True).load(path)
        if task["kind"] == "synthetic":
            yield path.stem, Subject(task["pipeline"], task["scale"])


SUBJECTS = dict(_subjects())


def test_every_operation_has_an_example():
    without = {op for op, operation in OPERATIONS.items() if not operation.examples}
    assert without == {"kernel_file"}  # it needs a file; its own tests apply the same contract to one


def test_the_catalogue_is_there():
    assert {"bicubic", "phone_camera"} <= {path.stem for path in CATALOGUE}


class TestEveryPipeline(PipelineContract):
    examples = SUBJECTS


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


def test_replay_wants_a_seed_per_image():
    with pytest.raises(ValueError, match="got 1 seeds for 8 images"):
        replay(sample_images(), (), [0])


def test_unknown_operation_of_a_saved_draw():
    with pytest.raises(ValueError, match="unknown operation 'blur'; known operations:"):
        DegradationDraw.from_json({"op": "blur", "position": [0], "params": {}})


def test_an_operation_is_registered_once():
    with pytest.raises(ValueError, match="'jpeg' is registered twice"):
        register(OPERATIONS["jpeg"])
