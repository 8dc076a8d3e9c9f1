"""Important findings of a study: adaptation without a gain, colour shifts, exact restorations, NaN pixels."""

from __future__ import annotations

import math

from metarestore.decibels import CAP, FLOOR
from metarestore.evaluation.colour import colour_shifts, exact_restorations
from metarestore.evaluation.results import ArmResult, StudyResult
from metarestore.evaluation.statistics import Difference, paired_difference
from metarestore.reports.study.table import baseline_arm, difference, learned_arms
from metarestore.reports.style import signed


def findings(study: StudyResult) -> list[str]:
    """Lists the important findings, those on the shots first and those on the gain of adaptation last."""
    exact = {
        arm.name: [name for name, psnr in zip(arm.photographs, arm.psnr_y.tolist(), strict=True) if psnr >= CAP]
        for arm in study.arms
    }
    arms = learned_arms(study)
    lines = [_undefined(arm) for arm in arms] + [exact_restorations(exact)]
    lines += [_shifted(study, arm) for arm in arms] + [_adaptation(study, arm) for arm in arms]
    return [*study.notes, *(line for line in lines if line is not None)]


def unmeasured(study: StudyResult) -> str | None:
    """Returns an error message if no arm of a study produced valid pixels; otherwise None."""
    arms = learned_arms(study)
    if not arms or any(len(arm.main.undefined) < len(arm.photographs) for arm in arms):
        return None
    return (
        f"{study.name}: no arm could be evaluated, because all restored pixels are NaN: adaptation or training "
        "diverged; lower adaptation.lr or training.optimizer.lr"
    )


def _undefined(arm: ArmResult) -> str | None:
    if not arm.main.undefined:
        return None
    return (
        f"{arm.name} restores NaN pixels, counted as {FLOOR:g} dB: {', '.join(arm.main.undefined)}; "
        "its adaptation or training diverged: lower the learning rate"
    )


def _shifted(study: StudyResult, arm: ArmResult) -> str | None:
    if arm.main.colour is None:
        return None
    baseline = baseline_arm(study)
    baseline_colour = baseline.main.colour if baseline is not None and baseline.photographs == arm.photographs else None
    reference = None if baseline_colour is None else baseline_colour.colour_error.tolist()
    return colour_shifts(arm.name, arm.photographs, arm.main.colour.colour_error.tolist(), reference)


def _adaptation(study: StudyResult, arm: ArmResult) -> str | None:
    """Reports an arm whose adaptation has no significant gain over its unadapted network or over the baseline."""
    if arm.main.steps[-1] == 0:
        return None
    baseline = baseline_arm(study)
    compared = [("its unadapted network", paired_difference(arm.psnr_y, arm.main.psnr_y[0]))]
    compared += [(f"{baseline.name} upscaling", difference(arm, baseline))] if baseline is not None else []
    parts = [f"{_verdict(result)} {other} ({_interval(result)})" for other, result in compared if not result.low > 0]
    source = "each photograph alone" if arm.main.label.startswith(("zero-shot", "teacher and student")) else "the shots"
    return f"{arm.name}, adapted to {source}, {' and '.join(parts)}" if parts else None


def _verdict(result: Difference) -> str:
    if not math.isfinite(result.low):
        return "cannot be compared on a single test photograph with"
    return "is worse than" if result.high < 0 else "has no significant gain over"


def _interval(result: Difference) -> str:
    if not math.isfinite(result.low):
        return f"{signed(result.mean)} dB"
    # An end close to 0 needs a third decimal to show its sign.
    decimals = 3 if min(abs(result.low), abs(result.high)) < 0.005 else 2
    return (
        f"{signed(result.mean, decimals)} dB, 95% CI {signed(result.low, decimals)} to {signed(result.high, decimals)}"
    )
