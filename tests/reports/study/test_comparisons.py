"""Arms are compared by what differs in their configuration, whatever they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarestore.config.estimators import CONTROLS
from metarestore.evaluation.results import ArmResult, Curve
from metarestore.project import arm_experiments, read_experiment
from metarestore.reports.study.comparisons import control_pairs, differing_keys, learns_from_target
from metarestore.scaffold import make_project
from metarestore.study.run import configuration

REPOSITORY = Path(__file__).parents[3]


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


@pytest.mark.parametrize("kind", ["inverted", "best_single"])
def test_a_control_of_one_estimator_is_none_of_another(kind: str) -> None:
    control = arm("i", kind)
    control.configuration["graph"]["estimator"]["of"] = {"kind": "response"}  # type: ignore[index]
    assert names(control, arm("r", "response"), arm("d", "descriptor")) == [("r", "i")]


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


def compared(path: Path) -> list[tuple[str, str]]:
    """Names the pairs that `metarestore compare` would compare."""
    curve = Curve("adam", np.zeros((1, 1)), np.zeros(1))
    experiments = arm_experiments(read_experiment(path)).items()
    return names(*(ArmResult(name, ("a",), curve, configuration=configuration(one)) for name, one in experiments))


def test_a_new_project_compares_weighted_with_uniform(tmp_path: Path) -> None:
    make_project(tmp_path)
    assert compared(tmp_path / "experiments" / "first.yaml") == [("weighted", "uniform")]


def test_the_demo_compares_what_its_readme_says() -> None:
    assert compared(REPOSITORY / "experiments" / "demo.yaml") == [
        ("pretrain_weighted", "pretrain_uniform"),
        ("maml_weighted", "maml_uniform"),
        ("maml_weighted", "maml_inverted"),
    ]


def test_shipped_estimators_are_compared_with_the_controls_of_the_same_weights() -> None:
    pairs = compared(REPOSITORY / "experiments" / "ablation.yaml")
    assert ("response", "uniform") in pairs
    assert ("response", "uniform_balanced") not in pairs
