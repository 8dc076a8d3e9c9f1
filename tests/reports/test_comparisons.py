"""Arms are compared by what differs in their configuration, whatever they are called."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from metarestore.config.estimators import CONTROLS
from metarestore.evaluation.results import ArmResult, Curve
from metarestore.reports.comparisons import control_pairs, differing_keys, learns_from_target


def arm(name: str, kind: str, source: str = "auxiliary", **others: Any) -> ArmResult:
    configuration = {
        "learner": {"kind": others.pop("learner", "pretrain")},
        "training": {"source": source, "steps": others.pop("steps", 4)},
        "graph": {"estimator": {"kind": kind}, "weights": {"temperature": 0.5, "balance": "none"}, **others},
    }
    return ArmResult(name, ("a",), Curve("adam", np.zeros((1, 1)), np.zeros(1)), configuration=configuration)


def names(*arms: ArmResult) -> list[tuple[str, str]]:
    return [(first.name, second.name) for first, second in control_pairs(arms)]


@pytest.mark.parametrize("kind", CONTROLS)
@pytest.mark.parametrize(
    ("first", "second"), [("weighted", "uniform"), ("b", "a"), ("uniform", "weighted"), ("x_y", "z")]
)
def test_names_do_not_matter(kind: str, first: str, second: str) -> None:
    assert names(arm(second, kind), arm(first, "response")) == [(first, second)]


def test_every_estimate_is_compared_with_every_control() -> None:
    arms = [arm("u", "uniform"), arm("r", "response"), arm("i", "inverted"), arm("d", "descriptor")]
    assert names(*arms) == [("r", "u"), ("r", "i"), ("d", "u"), ("d", "i")]


@pytest.mark.parametrize(
    "other",
    [
        {"learner": "maml"},
        {"steps": 5},
        {"source": "target"},
        {"forbidden": ["jpeg"]},
        {"weights": {"temperature": 0.5, "balance": "ema"}},
    ],
)
def test_arms_that_differ_in_more_are_not_compared(other: dict[str, Any]) -> None:
    assert names(arm("u", "uniform", **other), arm("w", "response")) == []


@pytest.mark.parametrize(
    "shaping", [{"weights": {"temperature": 0.1, "balance": "none"}}, {"refresh": 100}, {"edges": [{"from": "jpeg"}]}]
)
def test_what_shapes_unequal_weights_may_differ_from_a_uniform_arm_only(shaping: dict[str, Any]) -> None:
    assert names(arm("u", "uniform"), arm("w", "response", **shaping)) == [("w", "u")]
    assert names(arm("i", "inverted"), arm("w", "response", **shaping)) == []


def test_arms_without_a_configuration_are_not_compared() -> None:
    bare = ArmResult("m_uniform", ("a",), Curve("adam", np.zeros((1, 1)), np.zeros(1)))
    assert names(bare, arm("m_weighted", "response")) == []
    assert not learns_from_target(bare)
    assert learns_from_target(arm("few", "response", source="target"))


def test_differing_keys_are_key_paths() -> None:
    first = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert differing_keys(first, first) == set()
    assert differing_keys(first, {"a": {"b": 1, "c": 3, "e": 0}, "d": [2]}) == {"a.c", "a.e", "d"}
