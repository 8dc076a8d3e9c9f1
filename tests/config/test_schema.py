"""Laws of the JSON schemas: they are valid, agree with the models, and are the same bytes each time."""

import json
from typing import Annotated, Literal

import jsonschema
import pytest
from pydantic import Field, TypeAdapter, ValidationError

from metarestore.config.base import Strict
from metarestore.config.schema import json_schema, write_schemas


class Blur(Strict):
    op: Literal["blur"]
    sigma: float = Field(1.0, ge=0)
    """Standard deviation, in pixels."""


class Jpeg(Strict):
    op: Literal["jpeg"]
    quality: int = Field(50, ge=1, le=100)


class Study(Strict):
    pipeline: list[Annotated[Blur | Jpeg, Field(discriminator="op")]]
    method: Literal["bicubic", "area"] = "area"


CASES = [
    ({"pipeline": []}, True),
    ({"pipeline": [{"op": "jpeg", "quality": 3}, {"op": "blur"}], "method": "area"}, True),
    ({}, False),
    ({"pipeline": [{"op": "jpeg", "quality": 101}]}, False),
    ({"pipeline": [{"op": "jpg"}]}, False),
    ({"pipeline": [{"op": "jpeg", "sigma": 1}]}, False),
    ({"pipeline": [], "mehtod": "area"}, False),
    ({"pipeline": [], "method": "x"}, False),
]


def accepts(data):
    try:
        Study.model_validate(data)
    except ValidationError:
        return False
    return True


def test_is_a_valid_schema_that_says_which_draft_it_is():
    schema = json_schema(Study, "A study")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "A study"


@pytest.mark.parametrize(("data", "good"), CASES)
def test_agrees_with_the_model(data, good):
    assert accepts(data) == jsonschema.Draft202012Validator(json_schema(Study, "x")).is_valid(data) == good


def test_carries_the_documentation_of_fields():
    assert (
        json_schema(Study, "x")["$defs"]["Blur"]["properties"]["sigma"]["description"]
        == "Standard deviation, in pixels."
    )


def test_files_are_the_same_bytes_each_time(tmp_path):
    models = {"study": Study, "blur": Blur, "sizes": TypeAdapter(list[int])}
    first = write_schemas(tmp_path / "a" / "b", models)
    second = write_schemas(tmp_path / "c", dict(reversed(models.items())))
    assert [file.name for file in first] == ["study.json", "blur.json", "sizes.json"]
    for file in second:
        assert file.read_bytes() == (tmp_path / "a" / "b" / file.name).read_bytes()
    assert json.loads(first[0].read_text()) == json_schema(Study, "study")
    assert first[0].read_text().count("\n") > 10
