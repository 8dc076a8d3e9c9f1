"""What a reader must not miss in a study: adaptation that gains nothing, shifted colours, exact restorations."""

from __future__ import annotations

import math

from metarestore.decibels import CAP, FLOOR
from metarestore.evaluation.colour import colour_shifts, exact_restorations
from metarestore.evaluation.results import ArmResult, StudyResult
from metarestore.evaluation.statistics import Difference, paired_difference
from metarestore.reports.study.table import baseline_arm, difference, learned_arms
from metarestore.reports.style import signed


def findings(study: StudyResult) -> list[str]:
    """Lists what a reader must not miss, the shots first and the gain of adaptation last."""
    exact = {
        arm.name: [name for name, psnr in zip(arm.photographs, arm.psnr_y.tolist(), strict=True) if psnr >= CAP]
        for arm in study.arms
    }
    arms = learned_arms(study)
    lines = [_undefined(arm) for arm in arms] + [exact_restorations(exact)]
    lines += [_shifted(study, arm) for arm in arms] + [_adaptation(study, arm) for arm in arms]
    return [*study.notes, *(line for line in lines if line is not None)]


def unmeasured(study: StudyResult) -> str | None:
    """Returns the error of a study in which no arm restored anything; None if some arm did."""
    arms = learned_arms(study)
    if not arms or any(len(arm.main.undefined) < len(arm.photographs) for arm in arms):
        return None
    return (
        f"{study.name}: no arm could be measured, as all restored pixels are not numbers; adaptation or training "
        "diverged: lower adaptation.lr or training.optimizer.lr"
    )


def _undefined(arm: ArmResult) -> str | None:
    if not arm.main.undefined:
        return None
    return (
        f"{arm.name} restores pixels that are not numbers, counted as {FLOOR:g} dB: {', '.join(arm.main.undefined)}; "
        "its adaptation or training diverged: lower the learning rate"
    )


def _shifted(study: StudyResult, arm: ArmResult) -> str | None:
    if arm.main.colour is None:
        return None
    baseline = baseline_arm(study)
    own = baseline.main.colour if baseline is not None and baseline.photographs == arm.photographs else None
    given = None if own is None else own.colour_error.tolist()
    return colour_shifts(arm.name, arm.photographs, arm.main.colour.colour_error.tolist(), given)


def _adaptation(study: StudyResult, arm: ArmResult) -> str | None:
    """Says that adapting an arm gains nothing, over its unadapted network or over the baseline."""
    if arm.main.steps[-1] == 0:
        return None
    baseline = baseline_arm(study)
    compared = [("its unadapted network", paired_difference(arm.psnr_y, arm.main.psnr_y[0]))]
    compared += [(f"{baseline.name} upscaling", difference(arm, baseline))] if baseline is not None else []
    parts = [f"{_verdict(found)} {other} ({_interval(found)})" for other, found in compared if not found.low > 0]
    seen = "each photograph alone" if arm.main.label.startswith("zero-shot") else "the shots"
    return f"{arm.name}, adapted to {seen}, {' and '.join(parts)}" if parts else None


def _verdict(found: Difference) -> str:
    if not math.isfinite(found.low):
        return "cannot be judged on a single test photograph against"
    return "is worse than" if found.high < 0 else "gains nothing significant over"


def _interval(found: Difference) -> str:
    if not math.isfinite(found.low):
        return f"{signed(found.mean)} dB"
    # An end next to 0 needs a third decimal to be seen on its side of it.
    decimals = 3 if min(abs(found.low), abs(found.high)) < 0.005 else 2
    return f"{signed(found.mean, decimals)} dB, 95% CI {signed(found.low, decimals)} to {signed(found.high, decimals)}"
