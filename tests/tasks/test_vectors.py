"""Draws as vectors: one set of columns per distribution, numbers in [0, 1], NaN where an operation is absent."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarestore.degradations import DegradationDraw, Pipeline
from metarestore.project import Project
from metarestore.tasks.synthetic import PipelineSpec, SyntheticSpec
from metarestore.tasks.vectors import DrawSpace, draw_matrix, draw_vector

REPOSITORY = Path(__file__).parents[2]
DOWN: dict[str, Any] = {"op": "downsample", "method": "bicubic"}
NESTED: list[dict[str, Any]] = [
    {
        "op": "repeat",
        "times": [1, 3],
        "steps": [
            {
                "op": "one_of",
                "choices": [
                    {"op": "gamma", "exponent": {"log_uniform": [0.5, 2]}},
                    {"op": "group", "steps": [{"op": "jpeg", "quality": [30, 90]}]},
                ],
            },
            {"op": "gaussian_noise", "sigma": [0, 10], "probability": 0.5},
        ],
    },
    {"op": "shuffle", "steps": [{"op": "downsample", "method": ["area", "bicubic"]}, {"op": "gamma", "exponent": 1.2}]},
]


def spec(*steps: dict[str, Any], scale: int = 4) -> SyntheticSpec:
    return SyntheticSpec.model_validate({"kind": "synthetic", "scale": scale, "pipeline": steps})


def names(*steps: dict[str, Any], scale: int = 4) -> tuple[str, ...]:
    return DrawSpace.of(Pipeline.model_validate(steps), scale).names


def value(written: object, drawn: float, scale: int = 4) -> float:
    """The only number of a draw of `jpeg.quality` or `gamma.exponent`."""
    pipeline = Pipeline.model_validate([{"op": "gamma", "exponent": written}])
    [number] = draw_vector(pipeline, [DegradationDraw("gamma", (0,), {"exponent": drawn})], scale).values
    return float(number)


def test_a_column_for_every_parameter_that_may_differ() -> None:
    blur = {"op": "gaussian_blur", "sigma": [0.4, 2], "angle": 30}
    assert names(blur, DOWN, {"op": "jpeg", "quality": {"choice": [40, 60]}}) == (
        "0.gaussian_blur.sigma",
        "2.jpeg.quality",
    )
    assert names(DOWN) == ()


def test_numbers_are_places_in_the_range() -> None:
    assert value([1, 3], 1) == 0
    assert value([1, 3], 3) == 1
    assert value([1, 3], 2.5) == 0.75
    assert value({"log_uniform": [0.5, 2]}, 1) == pytest.approx(0.5)
    assert value({"choice": [1, 2, 5]}, 2) == 0.25
    assert value({"normal": [2, 1], "clip": [1, 3]}, 2) == 0.5
    assert value({"per_scale": {2: [1, 2], 4: [1, 5]}}, 2, scale=2) == 1
    assert value({"per_scale": {2: [1, 2], 4: [1, 5]}}, 2, scale=4) == 0.25


def test_a_parameter_may_differ_at_one_scale_only() -> None:
    step = {"op": "gamma", "exponent": {"per_scale": {2: 1, 4: [1, 2]}}}
    assert names(step, scale=2) == ()
    assert names(step, scale=4) == ("0.gamma.exponent",)


def test_an_operation_that_may_be_absent_says_whether_it_acts() -> None:
    one = spec({"op": "jpeg", "quality": [40, 90], "probability": 0.5}, DOWN)
    columns, matrix = draw_matrix(one.pipeline, [one.degradation("x", 0, index) for index in range(200)], 4)
    assert columns == ("0.jpeg", "0.jpeg.quality")
    assert 70 < matrix[:, 0].sum() < 130
    assert np.array_equal(np.isnan(matrix[:, 1]), matrix[:, 0] == 0)


def test_what_cannot_be_drawn_has_no_column() -> None:
    never = {"op": "gamma", "exponent": [1, 2], "probability": 0}
    jpeg = {"op": "jpeg", "quality": [40, 90]}
    assert names(never) == ()
    assert names({"op": "one_of", "choices": [jpeg, never | {"probability": 1}], "weights": [1, 0]}) == (
        "0.0.jpeg.quality",
    )


def test_structures_nest() -> None:
    columns = names(*NESTED)
    turns = [tuple(name.partition(".")[2] for name in columns if name.startswith(f"0.{turn}.")) for turn in range(3)]
    sometimes = ("0.0.gamma", "0.0.gamma.exponent", "0.1.0.jpeg", "0.1.0.jpeg.quality")
    assert turns[0] == tuple(f"0.{name}" for name in (*sometimes, "1.gaussian_noise", "1.gaussian_noise.sigma"))
    assert turns[1] == tuple(f"1.{name}" for name in (*sometimes, "1.gaussian_noise", "1.gaussian_noise.sigma"))
    assert columns[-2:] == ("1.0.downsample.method=area", "1.0.downsample.method=bicubic")
    sure = names({"op": "repeat", "times": [1, 2], "steps": [{"op": "jpeg", "quality": [40, 90]}]})
    assert sure == ("0.0.0.jpeg.quality", "0.1.0.jpeg", "0.1.0.jpeg.quality")


def test_draws_of_nested_structures() -> None:
    one = spec(*NESTED)
    draws = [one.degradation("x", 0, index) for index in range(300)]
    columns, matrix = draw_matrix(one.pipeline, draws, 4)
    known = matrix[~np.isnan(matrix)]
    assert known.min() >= 0
    assert known.max() <= 1
    at = {name: matrix[:, index] for index, name in enumerate(columns)}
    # Exactly one of the choices acts in the first turn, which is always there.
    assert np.array_equal(at["0.0.0.0.gamma"] + at["0.0.0.1.0.jpeg"], np.ones(300))
    assert np.array_equal(at["1.0.downsample.method=area"] + at["1.0.downsample.method=bicubic"], np.ones(300))
    assert set(at["0.2.0.0.gamma"]) == {0.0, 1.0}
    for place in DrawSpace.of(one.pipeline, 4).places:
        acts = [any(single.position == place.position for single in draw) for draw in draws]
        assert np.array_equal(at[place.name], acts) if place.optional else all(acts)


def test_a_row_of_the_table_is_the_vector_of_the_draw() -> None:
    one = spec(*NESTED)
    draws = [one.degradation("x", 0, index) for index in range(5)]
    columns, matrix = draw_matrix(one.pipeline, draws, 4)
    for draw, row in zip(draws, matrix, strict=True):
        single = draw_vector(one.pipeline, draw, 4)
        assert single.names == columns
        np.testing.assert_array_equal(single.values, row)
        assert [math.nan if number is None else number for number in single.to_json()] == pytest.approx(
            row.tolist(), nan_ok=True
        )
        assert None in single.to_json()


def test_a_draw_survives_json() -> None:
    one = spec(*NESTED)
    draw = one.degradation("x", 0, 0)
    again = [DegradationDraw.from_json(single.to_json()) for single in draw]
    np.testing.assert_array_equal(draw_vector(one.pipeline, again, 4).values, draw_vector(one.pipeline, draw, 4).values)


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        ([], "0.gamma is missing"),
        ([DegradationDraw("gamma", (0,), {"exponent": 5.0})], "outside the range"),
        ([DegradationDraw("gamma", (0,), {"exponent": "x"})], "must be a number"),
        ([DegradationDraw("gamma", (0,), {"exponent": 1.5}), DegradationDraw("jpeg", (1,), {})], "no jpeg at"),
    ],
)
def test_a_draw_of_another_distribution_is_refused(draws: list[DegradationDraw], message: str) -> None:
    pipeline = Pipeline.model_validate([{"op": "gamma", "exponent": [1, 2]}])
    with pytest.raises(ValueError, match=message):
        draw_vector(pipeline, draws, 4)


@pytest.mark.parametrize("name", Project(REPOSITORY).names("tasks"))
def test_every_task_of_the_catalogue_has_vectors(name: str) -> None:
    one = Project(REPOSITORY).task(name)
    assert isinstance(one, PipelineSpec)
    columns, matrix = draw_matrix(one.pipeline, [one.degradation(name, 0, index) for index in range(800)], one.scale)
    assert len(set(columns)) == len(columns)
    assert matrix.shape == (800, len(columns))
    constant = [column for column, numbers in zip(columns, matrix.T, strict=True) if np.nanstd(numbers) == 0]
    assert constant == []
