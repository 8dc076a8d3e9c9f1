"""The page on networks has every kind, key, size and feature; its examples are right."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from metarestore.config.experiment import Experiment
from metarestore.config.model import AnyModelSpec, BaseModelSpec, ModelSpec, SpandrelSpec
from metarestore.models.build import build_model

PAGE = (Path(__file__).parents[2] / "docs/networks.md").read_text()


@pytest.mark.parametrize("spec", get_args(AnyModelSpec), ids=lambda spec: spec.__name__)
def test_every_kind_key_and_feature_is_on_the_page(spec: Any) -> None:
    kind = get_args(spec.model_fields["kind"].annotation)[0]
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{kind}` |"))
    own = [key for key in spec.model_fields if key != "kind" and key not in BaseModelSpec.model_fields]
    assert {f"`{key}`" for key in own} <= set(re.findall(r"`\w+`", row))
    if spec is SpandrelSpec:
        return  # its file determines the network
    network = build_model(TypeAdapter(ModelSpec).validate_python({"kind": kind}), 4, 0)
    assert row.split("|")[4].strip() == ", ".join(f"`{name}`" for name in network.feature_layers)
    if kind != "kdsr":
        assert f"{sum(parameter.numel() for parameter in network.parameters()):,}" in row


@pytest.mark.parametrize("key", BaseModelSpec.model_fields)
def test_keys_of_all_networks_are_on_the_page(key: str) -> None:
    assert f"`{key}`" in PAGE


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
def test_the_examples_of_the_page_are_right(small_experiment: Callable[..., Experiment], text: str) -> None:
    small_experiment(**YAML(typ="safe", pure=True).load(text))
