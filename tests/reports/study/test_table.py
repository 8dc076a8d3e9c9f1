"""The table holds means over photographs; a statement says "significant" exactly when the interval excludes zero."""

import io
import itertools
import re

import numpy as np
import pytest
import scipy.stats
from rich.console import Console

from metarestore.decibels import CAP
from metarestore.evaluation.results import StudyResult
from metarestore.reports.study.table import markdown_table, result_table, statements, summary_text, table_cells


def study_of(*arms):
    return StudyResult("small", arms, (), 1.0)


def printed(study, width=200):
    console = Console(file=io.StringIO(), width=width)
    console.print(result_table(study))
    return console.file.getvalue()


def test_the_table_has_every_arm_and_its_means(study):
    for text in (printed(study), markdown_table(study)):
        for arm in study.arms:
            [line] = [line for line in text.splitlines() if arm.name in line.split("|")[:2][-1].split()[:1]]
            assert f"{sum(arm.psnr_y) / len(arm.psnr_y):.2f} ± {scipy.stats.sem(arm.psnr_y):.2f}" in line
            assert f"{sum(arm.main.ssim_y) / len(arm.main.ssim_y):.4f}" in line
            for curve in arm.alternatives:
                assert f"{np.mean(curve.psnr_y[-1]):.2f} ±" in line


def test_gains_are_means_of_paired_differences(study):
    bicubic = study.arm("bicubic").psnr_y
    column = table_cells(study).headings.index("gain over bicubic, dB")
    for arm, row in zip(study.arms[1:], table_cells(study).rows[1:], strict=True):
        mean, error = np.mean(arm.psnr_y - bicubic), scipy.stats.sem(arm.psnr_y - bicubic)
        assert row[column].replace("−", "-") == f"{mean:+.2f} ± {error:.2f}"
    assert table_cells(study).rows[0][column] == "–"


def test_seven_arms_fit_a_terminal_of_80_columns(study):
    lines = printed(study, width=80).splitlines()
    for arm, row in zip(study.arms, table_cells(study).rows, strict=True):
        assert any(all(cell in line for cell in row) for line in lines), arm.name


def test_markup_in_a_name_is_shown_not_obeyed(invent):
    assert "[red]arm" in printed(study_of(invent.arm("[red]arm", [1, 2])))


def test_a_bar_in_a_name_keeps_the_markdown_columns(invent):
    lines = markdown_table(study_of(invent.arm("a|b", [1, 2]), invent.arm("c", [1, 3]))).splitlines()
    assert {line.replace("\\|", "").count("|") for line in lines if line.startswith("|")} == {4}


def test_without_a_baseline_there_is_no_gain(invent):
    study = study_of(invent.arm("pretrain_weighted", [25, 26]))
    assert not any("gain" in heading for heading in table_cells(study).headings)
    assert statements(study) == []


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("shift", "verdict"), [(2.9, ", significant"), (2.6, ", not significant")])
def test_the_verdict_is_that_of_the_t_interval(shift, sign, verdict, invent):
    # Differences 1, -1, 0, 2, -2 have standard error 1/sqrt(2); the quantile of t with 4 degrees of freedom is 2.776.
    pattern = np.array([1.0, -1, 0, 2, -2])
    gain = sign * shift / np.sqrt(2) + pattern
    study = study_of(
        invent.arm("bicubic", np.zeros(5)),
        invent.arm("maml_weighted", 20 + gain),
        invent.arm("maml_uniform", np.full(5, 20.0)),
    )
    [statement] = [line for line in statements(study) if line.startswith("maml_weighted − maml_uniform")]
    assert verdict in statement
    assert "n = 5 photographs" in statement
    assert (scipy.stats.ttest_1samp(gain, 0).pvalue < 0.05) == (verdict == ", significant")


@pytest.mark.parametrize("seed", range(12))
def test_the_printed_interval_excludes_zero_exactly_when_it_is_significant(seed, invent):
    rng = np.random.default_rng(seed)
    weighted, uniform = rng.normal(25.5, 0.5, 5), rng.normal(25, 0.5, 5)
    study = study_of(invent.arm("m_weighted", weighted), invent.arm("m_uniform", uniform))
    [statement] = statements(study)
    low, high = (float(x) for x in statement.replace("−", "-").split("[")[1].split("]")[0].split(","))
    mean = float(statement.replace("−", "-").split(": ")[1].split(" dB")[0])
    expected = scipy.stats.t.interval(0.95, 4, np.mean(weighted - uniform), scipy.stats.sem(weighted - uniform))
    assert (low, high) == pytest.approx(expected, abs=0.0051)
    assert mean == pytest.approx(np.mean(weighted - uniform), abs=0.0051)
    assert (", significant" in statement) == (low > 0 or high < 0)
    assert (", not significant" in statement) == (low <= 0 <= high)


def test_these_pairs_are_compared(study):
    best = max(study.arms[1:], key=lambda arm: arm.psnr_y.mean()).name
    expected = [f"{best} − bicubic:", f"{best} − target_only:"]
    pairs = itertools.product(("pretrain", "fomaml"), ("uniform", "inverted"))
    expected += [f"{learner}_weighted − {learner}_{control}:" for learner, control in pairs]
    assert [line.split(":")[0] + ":" for line in statements(study)] == expected


def test_the_target_alone_as_best_is_compared_with_the_runner_up(invent):
    figures = {"bicubic": [1, 2], "a": [2, 3], "b": [1, 3], "target_only": [5, 6]}
    arms = [invent.arm(name, values) for name, values in figures.items()]
    assert [line.split(":")[0] for line in statements(study_of(*arms))] == ["target_only − bicubic", "target_only − a"]


@pytest.mark.parametrize(
    ("first", "second"), [([25.0], [24.0]), ([CAP, 25.0], [24.0, 24.0]), ([CAP, 25.0, 26.0], [CAP, 24.0, 24.0])]
)
def test_every_text_is_finite(first, second, invent):
    study = study_of(invent.arm("bicubic", second), invent.arm("m", first))
    [statement] = statements(study)
    assert ("significance unknown" in statement) == (len(first) == 1)
    assert not re.search(r"\b(nan|inf|undefined)\b", statement + summary_text(study) + printed(study))


def test_arms_of_different_photographs_are_not_compared(invent):
    with pytest.raises(ValueError, match="same photographs"):
        statements(study_of(invent.arm("bicubic", [1, 2]), invent.arm("m", [1, 2, 3])))


def test_the_summary_names_the_best_arm_its_gain_and_the_verdict(study):
    best = max(study.arms[1:], key=lambda arm: arm.psnr_y.mean())
    gain = np.mean(best.psnr_y - study.arm("bicubic").psnr_y)
    assert f"{best.name} reached {best.psnr_y.mean():.2f} dB" in summary_text(study)
    assert f"+{gain:.2f} dB (significant) against bicubic" in summary_text(study)
