"""The page on learners speaks of every kind and key; its examples, and those of the page on KDSR, are right."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from ruamel.yaml import YAML

from metarestore.config.adaptation import AdaptationOptimizerSpec
from metarestore.config.experiment import Experiment, OptimizerSpec
from metarestore.config.learner import DistillationSpec, LearnerSpec, MultiStepSpec

DOCS = Path(__file__).parents[2] / "docs"
PAGE, KDSR_PAGE, PISR_PAGE = ((DOCS / name).read_text() for name in ("learners.md", "kdsr.md", "pisr.md"))
KINDS = get_args(get_args(LearnerSpec)[0])


@pytest.mark.parametrize(
    "spec", [*KINDS, MultiStepSpec, OptimizerSpec, AdaptationOptimizerSpec], ids=lambda spec: spec.__name__
)
def test_every_kind_and_key_is_on_the_page(spec: Any) -> None:
    words = set(re.findall(r"\w+", PAGE))
    assert set(spec.model_fields) <= words
    if spec in KINDS:
        assert f"| `{get_args(spec.model_fields['kind'].annotation)[0]}` |" in PAGE


def test_every_key_of_a_distillation_is_on_its_page() -> None:
    defaults = {name: field.default for name, field in DistillationSpec.model_fields.items() if not field.is_required()}
    assert set(defaults) <= set(re.findall(r"^\| `(\w+)` \|", PISR_PAGE, re.MULTILINE))
    assert f"| `weight` | {defaults['weight']:.0e} |".replace("e-0", "e-") in PISR_PAGE


@pytest.mark.parametrize(
    "text", re.findall(r"^```yaml\n(.*?)^```$", PAGE + KDSR_PAGE + PISR_PAGE, re.MULTILINE | re.DOTALL)
)
def test_the_examples_of_the_page_are_right(small_experiment: Callable[..., Experiment], text: str) -> None:
    small_experiment(**YAML(typ="safe", pure=True).load(text))
