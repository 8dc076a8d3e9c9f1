"""Laws of reading and checking a YAML file: what is read, and the exact line for each mistake."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import Field, InstanceOf, StringConstraints, TypeAdapter, field_validator, model_validator

from metarestore.config.base import Strict
from metarestore.config.bounds import Bounds
from metarestore.config.document import Document, read_document, validate
from metarestore.config.overrides import merge
from metarestore.config.ranges import Range
from metarestore.config.suggest import did_you_mean
from metarestore.errors import UserError


class Blur(Strict):
    op: Literal["gaussian_blur"]
    sigma: Annotated[Range, Bounds(ge=0, le=8)]
    kernel: Literal["wide", "narrow"] = "wide"
    gaussian_blur: int = 0
    """Named like the tag, which must not confuse the places."""


class Noise(Strict):
    op: Literal["gaussian_noise"]
    level: float = Field(1.0, gt=0)


class Jpeg(Strict):
    op: Literal["jpeg"]
    quality: Annotated[int, Field(ge=1, le=100)] | list[int]
    probability: float = Field(1.0, ge=0, lt=1.5)
    size: tuple[int, int] = (8, 8)


class Local(Strict):
    kind: Literal["local"]


class Ray(Strict):
    kind: Literal["ray"]
    workers: int | Literal["auto"] = "auto"

    @model_validator(mode="after")
    def _odd(self):
        if self.workers == 13:
            raise ValueError(f"workers must not be 13,\n got {self.workers}")
        return self


class Study(Strict):
    pipeline: list[Annotated[Blur | Noise | Jpeg, Field(discriminator="op")]] = Field([])
    engine: Annotated[Local | Ray, Field(discriminator="kind")] | None = None
    method: Literal["bicubic", "bilinear", "area"] = "area"
    scale: Literal[2, 3, 4] = 2
    steps: int = Field(1, ge=1, multiple_of=1)
    patch: int = Field(8, multiple_of=8)
    rate: float = 1.0
    name: str = Field("x", min_length=1)
    flag: bool = False
    data: Literal["embedded"] | dict[str, int] = "embedded"
    sizes: list[int] = Field([1], min_length=1, max_length=3)
    edges: dict[Annotated[str, StringConstraints(max_length=4)], float] = Field({})
    even: int = 0
    source: Path | None = None
    relation: Annotated[float | None, Field(alias="from")] = None

    @field_validator("even")
    @classmethod
    def _even(cls, value):
        if value % 2:
            raise ValueError(f"{value} is odd; write an even number")
        return value


class Far(Strict):
    c: int
    d: int


class Near(Strict):
    a: int
    b: int


class Late(Strict):
    value: int = 3

    @field_validator("value")
    @classmethod
    def _even(cls, value):
        if value % 2:
            raise ValueError(f"{value} is odd; write value: 2")
        return value


class Outer(Strict):
    late: Late


class Opaque:
    """Something that JSON has no schema for."""


class Holder(Strict):
    thing: InstanceOf[Opaque]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(text: str | bytes, name: str = "x.yaml") -> Document:
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    return read_document(name)


def problems(text: str | bytes, model: Any = Study) -> list[str]:
    with pytest.raises(UserError) as raised:
        validate(read(text), model)
    return list(raised.value.problems)


class TestLocate:
    TEXT = "pipeline:\n  - {op: jpeg, quality: 30}\n  - op: gaussian_blur\n    sigma: [1, 2]\n"

    @pytest.mark.parametrize(
        ("loc", "position"),
        [
            ((), (1, 1)),
            (("pipeline",), (2, 3)),
            (("pipeline", 0), (2, 5)),
            (("pipeline", 0, "jpeg", "quality"), (2, 25)),
            (("pipeline", 0, "jpeg", "quality", "constrained-int"), (2, 25)),
            (("pipeline", 1, "gaussian_blur", "sigma", "function-after[check(), list[float]]", 1), (4, 16)),
            (("pipeline", 1, "missing"), (3, 5)),
            (("pipeline", 7), (2, 3)),
            (("nothing", "here"), (1, 1)),
        ],
    )
    def test_finds_the_deepest_part_and_walks_past_labels(self, loc, position):
        assert read(self.TEXT).locate(loc) == position

    def test_a_patched_document_points_to_what_surrounds_the_patch(self):
        document = read("rate: 1\nengine: {kind: local}\n")
        patched = replace(document, data=merge(document.data, {"engine": {"kind": "ray", "workers": "x"}}))
        with pytest.raises(UserError, match=r"^x\.yaml:2:9: engine\.workers: must be a whole number"):
            validate(patched, Study)

    def test_points_to_the_key_on_demand(self):
        assert read(self.TEXT).locate(("pipeline", 1, "sigma"), key=True) == (4, 5)


class TestMistakes:
    """One line per kind of mistake; columns are counted by hand."""

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("stps: 3\n", "x.yaml:1:1: unknown key 'stps'; did you mean 'steps'?"),
            ("engine: {kind: ray, zzz: 1}\n", "x.yaml:1:21: engine: unknown key 'zzz'; known keys: kind, workers"),
            ("pipeline:\n  - {op: gausian_noise}\n",
             "x.yaml:2:5: pipeline[0]: unknown operation 'gausian_noise'; did you mean 'gaussian_noise'?"),
            ("pipeline:\n- op: 3\n",
             "x.yaml:2:3: pipeline[0]: unknown operation 3; known operations: gaussian_blur, gaussian_noise, jpeg"),
            ("engine: {kind: spark}\n", "x.yaml:1:9: engine: unknown kind 'spark'; known kinds: local, ray"),
            ("engine: {workers: 2}\n", "x.yaml:1:9: engine.kind: is missing; write one of local, ray"),
            ("pipeline: [jpeg]\n", "x.yaml:1:12: pipeline[0]: must be a mapping (key: value), got 'jpeg'"),
            ("pipeline: [{op: jpeg}]\n", "x.yaml:1:12: pipeline[0].quality: is missing"),
            ("pipeline: [{op: jpeg, quality: 130}]\n", "x.yaml:1:32: pipeline[0].quality: 130 is above 100"),
            ("pipeline: [{op: jpeg, quality: [1, a]}]\n",
             "x.yaml:1:36: pipeline[0].quality[1]: must be a whole number, got 'a'"),
            ("pipeline: [{op: jpeg, quality: high}]\n",
             "x.yaml:1:32: pipeline[0].quality: must be a whole number or a list, got 'high'"),
            ("pipeline: [{op: jpeg, quality: 1, probability: -0.5}]\n",
             "x.yaml:1:48: pipeline[0].probability: -0.5 is below 0"),
            ("pipeline: [{op: jpeg, quality: 1, probability: 2}]\n",
             "x.yaml:1:48: pipeline[0].probability: must be below 1.5, got 2"),
            ("pipeline: [{op: jpeg, quality: 1, size: [1]}]\n", "x.yaml:1:41: pipeline[0].size[1]: is missing"),
            ("pipeline: [{op: gaussian_noise, level: 0}]\n", "x.yaml:1:40: pipeline[0].level: must be above 0, got 0"),
            ("pipeline:\n  - op: gaussian_blur\n    sigma: 1\n    kernal: wide\n",
             "x.yaml:4:5: pipeline[0]: unknown key 'kernal'; did you mean 'kernel'?"),
            ("pipeline: [{op: gaussian_blur, sigma: 1, gaussian_blur: x}]\n",
             "x.yaml:1:57: pipeline[0].gaussian_blur: must be a whole number, got 'x'"),
            ("pipeline: [{op: gaussian_blur, sigma: [4, 1]}]\n",
             "x.yaml:1:39: pipeline[0].sigma: low is above high: [4, 1]; write [1, 4]"),
            ("pipeline: [{op: gaussian_blur, sigma: [4, 10]}]\n", "x.yaml:1:39: pipeline[0].sigma: 10 is above 8"),
            ("method: bicubc\n",
             "x.yaml:1:9: method: 'bicubc' is not one of bicubic, bilinear, area; did you mean 'bicubic'?"),
            ("scale: 5\n", "x.yaml:1:8: scale: 5 is not one of 2, 3, 4"),
            ("steps: 2.5\n", "x.yaml:1:8: steps: must be a whole number, got 2.5"),
            ("steps: 0\n", "x.yaml:1:8: steps: 0 is below 1"),
            ("steps:\nrate: 1\n", "x.yaml:1:6: steps: must be a whole number, got null"),
            ("patch: 12\n", "x.yaml:1:8: patch: must be a multiple of 8, got 12"),
            ("rate: abc\n", "x.yaml:1:7: rate: must be a number, got 'abc'"),
            ("rate: [1, {a: null}]\n", "x.yaml:1:7: rate: must be a number, got [1, {a: null}]"),
            ("name: 3\n", "x.yaml:1:7: name: must be text, got 3"),
            ("name: ''\n", "x.yaml:1:7: name: must have at least 1 character, got ''"),
            ("flag: maybe\n", "x.yaml:1:7: flag: must be true or false, got 'maybe'"),
            ("data: embeded\n",
             "x.yaml:1:7: data: must be 'embedded' or a mapping (key: value), got 'embeded'; did you mean 'embedded'?"),
            ("data: {a: b}\n", "x.yaml:1:11: data.a: must be a whole number, got 'b'"),
            ("engine: {kind: ray, workers: atuo}\n",
             "x.yaml:1:30: engine.workers: must be a whole number or 'auto', got 'atuo'; did you mean 'auto'?"),
            ("engine: {kind: ray, workers: 13}\n", "x.yaml:1:9: engine: workers must not be 13, got 13"),
            ("sizes: []\n", "x.yaml:1:8: sizes: must have at least 1 entry, got []"),
            ("sizes: [1, 2, 3, 4]\n", "x.yaml:1:8: sizes: must have at most 3 entries, got [1, 2, 3, 4]"),
            ("edges: {a.b: x}\n", "x.yaml:1:14: edges[\"a.b\"]: must be a number, got 'x'"),
            ("edges: {outer: 1}\n", "x.yaml:1:9: edges: key 'outer': must have at most 4 characters, got 'outer'"),
            ("even: 3\n", "x.yaml:1:7: even: 3 is odd; write an even number"),
            ("source: 3\n", "x.yaml:1:9: source: must be a path, got 3"),
            ("from: x\n", "x.yaml:1:7: from: must be a number, got 'x'"),
            ("relation: 1\n",
             "x.yaml:1:1: unknown key 'relation'; known keys: pipeline, engine, method, scale, steps, patch, "
             "rate, name, flag, data, sizes, edges, even, source, from"),
        ],
    )  # fmt: skip
    def test_line(self, text, line):
        assert problems(text) == [line]

    def test_all_at_once_in_the_order_of_the_file(self):
        text = "stps: 1\nrate: x\npipeline:\n  - op: jpeg\n    quality: 130\n    zzz: 1\n  - {op: jpg}\nscale: 5\n"
        assert problems(text) == [
            "x.yaml:1:1: unknown key 'stps'; did you mean 'steps'?",
            "x.yaml:2:7: rate: must be a number, got 'x'",
            "x.yaml:5:14: pipeline[0].quality: 130 is above 100",
            "x.yaml:6:5: pipeline[0]: unknown key 'zzz'; known keys: op, quality, probability, size",
            "x.yaml:7:5: pipeline[1]: unknown operation 'jpg'; did you mean 'jpeg'?",
            "x.yaml:8:8: scale: 5 is not one of 2, 3, 4",
        ]

    def test_what_was_given_is_cut_short(self):
        (line,) = problems(f"rate: {'x' * 500}\n")
        assert len(line) < 120

    def test_of_two_models_without_a_tag_the_nearer_one_is_meant(self):
        adapter = TypeAdapter(dict[str, Far | Near])
        assert problems("x: {a: 1, b: y}\n", adapter) == ["x.yaml:1:14: x.b: must be a whole number, got 'y'"]

    def test_a_field_that_is_not_in_the_file_is_named_and_located_around_it(self):
        assert problems("late: {}\n", Outer) == ["x.yaml:1:7: late.value: 3 is odd; write value: 2"]

    def test_any_type_can_be_checked(self):
        adapter = TypeAdapter(dict[str, Annotated[int, Field(ge=1)]])
        assert problems("a: 0\n", adapter) == ["x.yaml:1:4: a: 0 is below 1"]

    def test_a_model_without_a_schema_is_checked_without_suggestions(self):
        assert problems("thing: 1\nzzz: 2\n", Holder) == [
            "x.yaml:1:8: thing: must be an instance of Opaque, got 1",
            "x.yaml:2:1: unknown key 'zzz'",
        ]

    def test_a_correct_file_becomes_the_model(self):
        study = validate(read("pipeline: [{op: jpeg, quality: 30}]\nrate: 1e-4\nfrom: 0.5\n"), Study)
        assert isinstance(study, Study)
        assert (study.rate, study.relation, study.pipeline[0].quality) == (1e-4, 0.5, 30)


def test_suggestions_ignore_case_and_stay_silent_when_nothing_is_near():
    assert did_you_mean("FSRCNN", ["fsrcnn", "kdsr"]) == "; did you mean 'fsrcnn'?"
    assert did_you_mean("zzz", ["fsrcnn", "kdsr"]) == ""
    assert did_you_mean("zzz", ["fsrcnn", "kdsr"], noun="kinds") == "; known kinds: fsrcnn, kdsr"
    assert did_you_mean("zzz", [], noun="kinds") == ""


VALID = """\
# A study.
pipeline:
  - {op: gaussian_blur, sigma: [0.4, 2.0]}
  - op: jpeg
    quality: &q [40, 90]
engine: {kind: ray, workers: auto}
data: {a: 1}
rate: 1e-4
name: "x: y"
"""
PIECES = [
    *"abe:,-?[]{}#&*!|>'\"%@ \n\t\\09.~<=\r",
    "op",
    "!!int",
    "*q",
    "&q ",
    "<<: ",
    "\n- ",
    "\n  ",
    "---\n",
    "\\U",
    "null",
    "\x00",
]


@st.composite
def mutated(draw):
    text = VALID
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(0, 6)))
        text = text[:start] + draw(st.sampled_from(PIECES)) + text[stop:]
    return text


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutated())
@example(VALID)
def test_any_text_is_read_or_refused_with_located_lines(text):
    try:
        validate(read(text), Study)
    except UserError as error:
        refused = error.problems
    else:
        return
    assert refused
    for line in refused:
        found = re.fullmatch(r"x\.yaml:(\d+):(\d+): \S.*", line)
        assert found, line
        assert 1 <= int(found[1]) <= len(re.split(r"\r\n|\r|\n", text))
