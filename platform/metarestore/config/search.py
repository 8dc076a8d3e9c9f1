"""Options of hyperparameter tuning: the search space (`search:`) and its settings (`tuning:`)."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from metarestore.config.base import Strict
from metarestore.config.wording import shown


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    if low >= high:
        raise ValueError(f"low must be below high in [low, high], got [{low:g}, {high:g}]")
    if not math.isfinite(high - low):
        raise ValueError(f"the range [{low:g}, {high:g}] is too wide to draw from")
    return ends


def _exact(ends: tuple[int, int]) -> tuple[int, int]:
    if max(map(abs, ends)) > _LARGEST:
        raise ValueError(f"integers must be between -2**53 and 2**53, got {shown(list(ends))}")
    return ends


Ends = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_rising)]
"""`[low, high]`."""

_LARGEST = 2**53
"""Largest magnitude up to which every integer is exactly representable as a float, as which searchers handle it."""
_FORMS = ("uniform", "log_uniform", "int", "choice")


class ParameterSpec(Strict):
    """One parameter of the search space: a range or a choice, and optionally a condition."""

    uniform: Ends | None = None
    """`[low, high]`, uniform; `[low, high]` alone means the same."""
    log_uniform: Ends | None = None
    """`[low, high]`, uniform in the logarithm, e.g. for learning rates."""
    whole: Annotated[tuple[int, int], AfterValidator(_exact), AfterValidator(_rising)] | None = Field(None, alias="int")
    """`[low, high]`, integers, both ends included."""
    choice: tuple[Any, ...] | None = Field(None, min_length=1)
    """List of values; a value may be anything that is valid in the file, e.g. `{kind: maml, inner_steps: 2}`."""
    when: dict[str, Any] = Field({})
    """Condition: other parameters of the search that must have this value (or one of a list) for this one to exist."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = self.model_dump(by_alias=True, include={"uniform", "log_uniform", "whole", "choice"}, exclude_none=True)
        if len(given) != 1:
            got = " and ".join(given) if given else "none of them"
            raise ValueError(f"write exactly one of {', '.join(_FORMS)}; got {got}")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform must start above 0, got {self.log_uniform[0]:g}")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest value of a range."""
        ends = self.uniform or self.log_uniform or self.whole
        assert ends is not None, "a choice has no ends"
        return ends


SearchParameter = ParameterSpec | Ends


def as_parameter(written: SearchParameter) -> ParameterSpec:
    """Converts the short form `[low, high]` to a parameter; the long form is returned unchanged."""
    return written if isinstance(written, ParameterSpec) else ParameterSpec(uniform=written)


class TuningSpec(Strict):
    """Options of `metarestore tune`; not used by training."""

    metric: Literal["held_out_shots", "validation"] = "held_out_shots"
    """Metric to maximise, in dB; test photographs are never used. `held_out_shots`: PSNR-Y on shots of the target after
    adaptation to the others. `validation`: PSNR, without adaptation, on synthetic tasks of the validation
    photographs."""
    trials: int = Field(16, ge=1, le=10_000)
    """Number of trials; for a grid, the maximum."""
    searcher: Literal["random", "grid", "optuna"] = "random"
    """How values are chosen: at random; all combinations; or Optuna's TPE, which uses the results of finished
    trials."""
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    """How trials are scheduled: ASHA stops bad trials early; PBT continues them from better ones with perturbed
    values."""
    seed: int = Field(0, ge=0)
    """Seed of the search; the seed of the experiment is the same in all trials."""
    report_every: int | None = Field(None, ge=1)
    """Outer steps between measurements, each with a checkpoint; defaults to a tenth of the training."""
    grace: int | None = Field(None, ge=1)
    """Outer steps before ASHA may stop a trial; defaults to `report_every`."""
    reduction: int = Field(3, ge=2)
    """Reduction factor of ASHA: one of this many trials continues past each rung."""
    perturb_every: int | None = Field(None, ge=1)
    """Outer steps between perturbations of PBT; defaults to twice `report_every`."""
    grid_points: int = Field(3, ge=2, le=1000)
    """Number of grid values per range, both ends included."""
    workers_per_trial: int = Field(1, ge=1)
    """1: a trial runs in a single process. Above 1: each trial has this many Ray workers, reserved together."""
    cpus_per_worker: float = Field(1.0, gt=0)
    gpus_per_worker: float = Field(0.0, ge=0)
    concurrent: int | None = Field(None, ge=1)
    """Maximum number of concurrent trials; defaults to as many as fit the cluster."""
    max_failures: int = Field(2, ge=0)
    """How often a trial is resumed from its last checkpoint after its process died."""

    @model_validator(mode="after")
    def _pbt_draws_at_random(self) -> Self:
        if self.scheduler == "pbt" and self.searcher != "random":
            raise ValueError(f"scheduler pbt changes values itself; write searcher: random, not {self.searcher}")
        return self

    def interval(self, steps: int) -> int:
        """Returns the outer steps between measurements of a training of `steps` steps."""
        return self.report_every or max(1, steps // 10)
