"""Laws of ranges: what is drawn, what is refused and with which words, how they are written back."""

import json
import math
from typing import Annotated

import jsonschema
import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import kstest

from metarestore.config.base import Strict
from metarestore.config.bounds import Bounds
from metarestore.config.ranges import Choice, LogUniform, Normal, Range, Uniform, parse
from metarestore.seeds import generator


class Free(Strict):
    value: Range


class Quality(Strict):
    value: Annotated[Range, Bounds(ge=1, le=100, integer=True)] = Uniform((40, 90))


class Open(Strict):
    value: Annotated[Range, Bounds(gt=0, lt=1)]


FORMS = {
    "number": (4, Uniform((4.0, 4.0))),
    "pair": ([1, 4], Uniform((1.0, 4.0))),
    "equal pair": ([4, 4], Uniform((4.0, 4.0))),
    "log_uniform": ({"log_uniform": [1, 100]}, LogUniform((1.0, 100.0))),
    "choice": ({"choice": [3, 1, 2]}, Choice((3.0, 1.0, 2.0))),
    "weighted choice": ({"choice": [1, 50], "weights": [1, 3]}, Choice((1.0, 50.0), (1.0, 3.0))),
    "normal": ({"normal": [5, 4], "clip": [3, 9]}, Normal(5.0, 4.0, (3.0, 9.0))),
}


def sample(written: object, count: int, model: type[Free] | type[Quality] = Free) -> np.ndarray:
    value = model.model_validate({"value": written}).value
    rng = generator(7, "test")
    return np.array([value.draw(rng) for _ in range(count)])


@pytest.mark.parametrize(("written", "expected"), FORMS.values(), ids=FORMS)
class TestEveryForm:
    def test_reads_as_its_class(self, written, expected):
        assert Free(value=written).value == expected

    def test_draws_between_its_extremes_and_reaches_both_halves(self, written, expected):
        drawn = sample(written, 500)
        assert drawn.min() >= expected.low
        assert drawn.max() <= expected.high
        middle = (expected.low + expected.high) / 2
        assert drawn.min() <= middle <= drawn.max()

    def test_draw_depends_on_the_generator_only(self, written, expected):
        assert np.array_equal(sample(written, 20), sample(written, 20))

    def test_whole_numbers_are_drawn_where_asked_for(self, written, expected):
        drawn = Quality(value=written).value
        values = [drawn.draw(generator(index)) for index in range(100)]
        assert all(type(value) is int and drawn.low <= value <= drawn.high for value in values)

    def test_is_written_back_as_it_reads(self, written, expected):
        model = Quality(value=written)
        dumped = model.model_dump(mode="json")
        assert Quality.model_validate(dumped) == model
        assert Quality.model_validate_json(model.model_dump_json()) == model

    def test_equal_spellings_have_one_serialisation(self, written, expected):
        again = Free(value=expected)
        assert again.model_dump_json() == Free(value=written).model_dump_json()

    @pytest.mark.parametrize("model", [Free, Quality], ids=["free", "bounded"])
    def test_json_schema_accepts_it(self, written, expected, model):
        jsonschema.validate({"value": written}, model.model_json_schema())


def test_uniform_mean_and_variance():
    drawn = sample([2, 8], 4000)
    assert abs(drawn.mean() - 5) < 3 * np.sqrt(3 / len(drawn))  # variance 6²/12 = 3
    # The fourth central moment of a uniform of variance v is 9v²/5, so its variance estimate has variance 0.8 v²/n.
    assert abs(drawn.var() - 3) < 3 * 3 * np.sqrt(0.8 / len(drawn))


def test_log_uniform_median_is_the_geometric_mean():
    drawn = np.log(sample({"log_uniform": [1, 10_000]}, 4001))
    # The median of n uniform draws has standard error width / (2 sqrt(n)).
    assert abs(np.median(drawn) - np.log(100)) < 3 * np.log(10_000) / (2 * np.sqrt(4001))


def test_choice_follows_its_weights():
    drawn = sample({"choice": [1, 2, 3], "weights": [1, 0, 3]}, 4000)
    assert not (drawn == 2).any()
    assert abs((drawn == 3).mean() - 0.75) < 3 * np.sqrt(0.75 * 0.25 / len(drawn))


def test_normal_piles_up_at_its_clip():
    drawn = sample({"normal": [0, 1], "clip": [0, 5]}, 4000)
    assert abs((drawn == 0).mean() - 0.5) < 3 * 0.5 / np.sqrt(len(drawn))


def test_whole_numbers_include_both_ends_equally():
    drawn = sample([1, 4], 4000, Quality)
    shares = [(drawn == value).mean() for value in (1, 2, 3, 4)]
    assert np.allclose(shares, 0.25, atol=3 * np.sqrt(0.25 * 0.75 / len(drawn)))


def test_default_draws_whole_numbers_too():
    assert isinstance(Quality().value.draw(generator(0)), int)


def test_default_is_written_as_yaml_in_the_schema():
    assert Quality.model_json_schema()["properties"]["value"]["default"] == [40, 90]


@pytest.mark.parametrize(
    ("model", "written", "message"),
    [
        (Free, [4, 1], "low is above high: [4, 1]; write [1, 4]"),
        (Free, {"log_uniform": [4, 1]}, "low is above high: [4, 1]; write [1, 4]"),
        (Free, {"log_uniform": [0, 1]}, "log_uniform must start above 0, got 0"),
        (Free, [1, 2, 3], "expected two numbers, got [1, 2, 3]; write [low, high]"),
        (Free, {"log_uniform": 3}, "expected a list, got 3; write log_uniform: [low, high]"),
        (Free, {"choice": []}, "choice is empty; write choice: [a, b, ...]"),
        (Free, {"choice": [1, 2], "weights": [1]}, "got 1 weights for 2 values; write one weight per value"),
        (Free, {"choice": [1], "weights": [0]}, "weights must be 0 or more, and not all 0, got [0]"),
        (Free, {"normal": [1, 2]}, "normal needs a clip; write {normal: [mean, std], clip: [low, high]}"),
        (Free, {"normal": [1, -2], "clip": [0, 1]}, "the standard deviation of normal must be 0 or more, got -2"),
        (Free, {"normal": [1, 2], "clip": [1, 0]}, "low is above high: [1, 0]; write [0, 1]"),
        (Free, float("nan"), "nan is not a finite number"),
        (Free, [0, float("inf")], "inf is not a finite number"),
        (Quality, 130, "130 is above 100"),
        (Quality, [0, 50], "0 is below 1"),
        (Quality, {"choice": [1, 500, 2]}, "500 is above 100"),
        (Quality, {"normal": [50, 9], "clip": [0, 50]}, "0 is below 1"),
        (Quality, [1.5, 50], "1.5 is not a whole number"),
        (Open, 0, "0 is too small; it must be above 0"),
        (Open, [0.5, 1], "1 is too large; it must be below 1"),
    ],
)
def test_one_clear_message_per_error(model, written, message):
    with pytest.raises(ValidationError) as caught:
        model(value=written)
    assert [(error["loc"], error["msg"]) for error in caught.value.errors()] == [(("value",), message)]


@pytest.mark.parametrize("written", ["10", True, None, {"uniform": [1, 2]}, {"choice": [1], "clip": [0, 1]}, ["a", 2]])
def test_what_is_no_range_is_told_the_forms(written):
    with pytest.raises(ValidationError, match=r"write a number, \[low, high\], \{log_uniform: \[low, high\]\}"):
        Free(value=written)


@pytest.mark.parametrize("written", ["10", [1, 2, 3], {"uniform": [1, 2]}, {"normal": [1, 2]}, 130, [1.5, 3]])
def test_json_schema_refuses_what_the_model_refuses(written):
    with pytest.raises(ValidationError):
        Quality(value=written)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"value": written}, Quality.model_json_schema())


def test_ranges_cannot_be_changed():
    with pytest.raises(AttributeError):
        Uniform((0.0, 1.0)).ends = (0.0, 2.0)


@pytest.mark.parametrize(
    "written", [[1, 3], {"log_uniform": [1, 9]}, {"square_uniform": [1, 3]}, {"inverse_uniform": [1, 8]}]
)
def test_the_place_within_the_range_is_uniform(written):
    drawn, rng = parse(written), np.random.default_rng(0)
    assert kstest([drawn.unit(drawn.draw(rng)) for _ in range(2000)], "uniform").pvalue > 1e-3


def test_square_uniform_is_uniform_in_the_square():
    drawn = parse({"square_uniform": [1, 3]})
    rng = np.random.default_rng(0)
    squares = np.array([drawn.draw(rng) for _ in range(4000)]) ** 2
    assert abs(squares.mean() - 5) < 3 * 8 / math.sqrt(12 * 4000)
    assert 1 <= squares.min() <= squares.max() <= 9


@pytest.mark.parametrize(
    ("written", "middle"),
    [
        ([1, 3], 2),
        ({"log_uniform": [1, 100]}, 10),
        ({"square_uniform": [0, 4]}, 8**0.5),
        ({"inverse_uniform": [1, 3]}, 0.5),
        ({"choice": [1, 2, 5]}, 3),
        ({"normal": [0, 1], "clip": [-2, 4]}, 1),
    ],
)
def test_unit_is_the_place_within_the_range(written, middle):
    found = parse(written)
    assert [found.unit(value) for value in (found.low, middle, found.high)] == pytest.approx([0, 0.5, 1])
    assert parse(4).unit(4) == 0


def test_per_scale_is_a_range_for_each_scale():
    found = parse({"per_scale": {2: [0, 1], 4: {"log_uniform": [1, 4]}}})
    assert found.at(2) == parse([0, 1])
    assert found.at(4) == parse({"log_uniform": [1, 4]})
    assert (found.low, found.high) == (0, 4)
    assert parse(json.loads(json.dumps(found.plain()))) == found
    assert parse([1, 2]).at(3) == parse([1, 2])
    with pytest.raises(ValueError, match="no range for scale 3, only for 2, 4"):
        found.at(3)
    with pytest.raises(TypeError):
        found.draw(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"per_scale": {}}, "must be a mapping"),
        ({"per_scale": [1, 2]}, "must be a mapping"),
        ({"per_scale": {5: 1}}, "has the scale '5'"),
        ({"per_scale": {2: {"per_scale": {2: 1}}}}, "has the scale '2'"),
        ({"per_scale": {2: [2, 1]}}, "low is above high"),
        ({"square_uniform": [-1, 1]}, "must not start below 0"),
        ({"inverse_uniform": [0, 1]}, "must start above 0"),
        (10**400, "not a finite number"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_forms_of_new_ranges(written, message):
    with pytest.raises(ValueError, match=message):
        parse(written)
