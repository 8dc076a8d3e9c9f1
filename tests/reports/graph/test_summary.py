"""Every sentence about a graph follows from its numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from metarestore.graphs.relations import Relations
from metarestore.reports.graph.summary import explain

NAMES = ("blur", "jpeg", "noise", "clean")
WEIGHTS = {"blur": 2.5, "jpeg": 1.2, "noise": 0.3, "clean": 0.0}


def make(values: Any = (0.8, 0.7, 0.0, -0.5), errors: Any = 0.1, **rest: Any) -> Relations:
    spread = np.broadcast_to(np.asarray(errors, np.float64), 4).copy()
    given = {"estimator": "response", "draws": 12, "reliability": 0.9, **rest}
    return Relations("camera", NAMES, np.asarray(values, np.float64), spread, **given)


def said(relations: Relations, weights: dict[str, float] = WEIGHTS) -> str:
    return " ".join(explain(relations, weights))


def test_what_is_alike_is_within_two_errors_of_the_nearest() -> None:
    text = said(make())
    assert "camera resembles blur (+0.80 ± 0.10) most." in text
    assert "Not significantly different (within 2 standard errors): jpeg (+0.70 ± 0.10)." in text
    assert "The next is noise (+0.00 ± 0.10), 5.7 standard errors away." in text
    assert "It resembles clean (−0.50 ± 0.10) least." in text
    assert "Not significantly" not in said(make(errors=0.03))


def test_without_errors_nothing_is_said_of_them() -> None:
    text = said(make(errors=np.nan))
    assert "blur (+0.80) most" in text
    assert "standard error" not in text
    assert "±" not in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("reliability", "words", "advice"),
    [
        (0.81, "is reliable", False),
        (0.79, "is moderately reliable", True),
        (0.49, "is not reliable", True),
        (float("nan"), "is unknown", True),
    ],
)
def test_reliability_in_words(reliability: float, words: str, advice: bool) -> None:
    text = said(make(reliability=reliability))
    assert words in text
    assert ("more shots" in text) is advice


def test_noise_asks_for_draws() -> None:
    text = said(make(errors=0.6))
    assert ": mostly noise" in text
    assert "more draws than 12" in text
    assert "mostly noise" not in said(make())


def test_what_is_learned() -> None:
    text = said(make())
    assert "Gradient weight above the mean (1): blur (2.50), jpeg (1.20)." in text
    assert "The effective number of distributions is 2.1 of 4. Weight 0: clean." in text
    assert "All 4 distributions have the same gradient weight (1)." in said(make(), dict.fromkeys(NAMES, 1.0))


def test_what_was_stated_and_forbidden() -> None:
    allowed, stated = np.asarray([True, True, False, True]), np.asarray([True, False, False, False])
    relations = make(errors=[0.0, 0.1, 0.1, 0.1], allowed=allowed, stated=stated)
    text = said(relations)
    assert "Stated by an expert, not estimated: blur (+0.80)." in text
    assert "Not used for training (forbidden): noise." in text
    assert "excluded by this control" in said(make(allowed=np.arange(4) == 0, estimator="best_single"))


def test_a_prior_says_what_it_moved() -> None:
    own = np.stack([[0.8, 0.4, 0.0, -0.5], np.full(4, 0.1)])
    assert "A prior is combined with it; jpeg changes most, by +0.30." in said(make(estimated=own))


@pytest.mark.parametrize("control", ["uniform", "random"])
def test_a_control_says_nothing_of_the_camera(control: str) -> None:
    text = said(make(estimator=control, errors=np.nan))
    assert f"the control '{control}' and contain no information about camera" in text
    assert "resembles" not in text
