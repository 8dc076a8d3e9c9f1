"""Closing words: adaptation that gains nothing is said to gain nothing, and every exact or spoilt result is named."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
import scipy.stats
from rich.console import Console

from metarestore.decibels import CAP
from metarestore.evaluation.colour import ColourMetrics
from metarestore.evaluation.results import ArmResult, Curve, StudyResult
from metarestore.reports.study.findings import findings, unmeasured
from metarestore.reports.study.html import render_report
from metarestore.reports.study.table import detail_cells, detail_table, markdown_table

NAMES = ("sea", "hill", "town", "sky", "page")
PATTERN = np.asarray([1.0, -1.0, 0.0, 2.0, -2.0])


def arm(name: str, unadapted: Any, adapted: Any, **curve: Any) -> ArmResult:
    values = np.asarray([unadapted, adapted], np.float64)
    names = NAMES[: values.shape[1]]
    return ArmResult(name, names, Curve("adam", values, np.full(len(names), 0.7), (0, 5), **curve))


def bicubic(values: Any) -> ArmResult:
    return ArmResult("bicubic", NAMES[: len(values)], Curve("bicubic", np.asarray([values]), np.full(len(values), 0.7)))


def study(*arms: ArmResult) -> StudyResult:
    return StudyResult("small", arms, (), 1.0)


@pytest.mark.parametrize("shift", [-2.9, -0.5, 0.0, 2.6, 2.9])
@pytest.mark.parametrize("against", ["unadapted", "bicubic"])
def test_adaptation_gains_nothing_exactly_where_its_interval_says_so(shift: float, against: str) -> None:
    """The pattern has standard error 1/sqrt(2); the quantile of t with 4 degrees of freedom is 2.776."""
    gain = shift / np.sqrt(2) + PATTERN
    base = np.full(5, 30.0)
    start, reference = (base, base - 50) if against == "unadapted" else (base - 50, base)
    lines = findings(study(bicubic(reference), arm("maml", start, base + gain)))
    other = "its unadapted network" if against == "unadapted" else "bicubic upscaling"
    low, high = scipy.stats.t.interval(0.95, 4, gain.mean(), scipy.stats.sem(gain))
    if low > 0:
        assert lines == []
    else:
        [line] = lines
        assert line.startswith("maml, adapted to the shots, ")
        assert ("is worse than" if high < 0 else "has no significant gain over") in line
        assert other in line


def test_both_are_said_in_one_line_and_for_each_arm() -> None:
    same = np.full(5, 30.0)
    lines = findings(study(bicubic(same), arm("a", same, same + PATTERN), arm("b", same, same - 50)))
    assert len(lines) == 2
    assert "over its unadapted network" in lines[0]
    assert "over bicubic upscaling" in lines[0]
    assert lines[1].count("is worse than") == 2


def test_a_single_photograph_and_no_adaptation() -> None:
    [line] = findings(study(bicubic([30.0]), arm("a", [30.0], [31.0])))
    assert "cannot be compared on a single test photograph" in line
    assert "inf" not in line
    still = dataclasses.replace(arm("a", [30.0], [30.0]), main=Curve("adam", np.full((1, 1), 30.0), np.ones(1)))
    assert findings(study(bicubic([30.0]), still)) == []


@pytest.mark.parametrize("exact", [["sky"], ["sea", "page"], list(NAMES)])
def test_exact_restorations_are_named(exact: list[str]) -> None:
    values = np.asarray([CAP if name in exact else 30.0 + k for k, name in enumerate(NAMES)])
    text = "\n".join(findings(study(bicubic(values), arm("a", values - 9, values))))
    assert f"bicubic: {', '.join(exact)}; a: {', '.join(exact)}" in text


def test_colour_shifts_stand_in_console_and_report() -> None:
    colour = ColourMetrics(np.full(5, 29.0), np.asarray([1, 1, 12.0, 1, 1]), np.full(5, 31.0))
    reference = dataclasses.replace(
        bicubic(np.full(5, 25.0)).main, colour=dataclasses.replace(colour, colour_error=np.ones(5))
    )
    first = dataclasses.replace(bicubic(np.full(5, 25.0)), main=reference)
    found = study(first, arm("a[/b]", np.full(5, 20.0), 30 + PATTERN, colour=colour))
    [line] = [line for line in findings(found) if "shifts the colour" in line]
    assert line.startswith("a[/b] shifts")
    assert "town (12.0, bicubic 1.0)" in line
    assert "town (12.0" in render_report(found, "seed: 0\n", "metarestore compare x.yaml")
    cells = detail_cells(found)
    assert cells is not None
    assert cells.rows[1][:4] == ("a[/b]", "29.00 ± 0.00", "3.2 ± 2.2", "31.00 ± 0.00")
    console = Console(file=io.StringIO(), width=120)
    console.print(detail_table(found))
    for text in (console.file.getvalue(), markdown_table(found)):  # type: ignore[attr-defined]
        assert "3.2 ± 2.2" in text


def test_a_study_without_colour_has_no_second_table() -> None:
    found = study(bicubic([30.0, 31.0]), arm("a", [30.0, 31.0], [31.0, 32.0]))
    assert detail_cells(found) is None
    assert detail_table(found) == ""
    assert "colour error" not in markdown_table(found)


def test_a_study_in_which_nothing_was_restored_is_an_error() -> None:
    spoilt = arm("a", np.zeros(5), np.zeros(5), undefined=NAMES)
    partly = arm("b", np.zeros(5), np.zeros(5), undefined=NAMES[:2])
    assert unmeasured(study(bicubic(np.full(5, 30.0)), partly, spoilt)) is None
    error = unmeasured(study(bicubic(np.full(5, 30.0)), spoilt))
    assert error is not None
    assert "lower adaptation.lr" in error
    assert any("sea, hill" in line and "NaN pixels" in line for line in findings(study(partly)))
