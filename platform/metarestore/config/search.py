"""What an experiment file may say about a parameter study: the space (`search:`) and how to go about it (`tuning:`)."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from metarestore.config.base import Strict
from metarestore.config.wording import shown


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    if low >= high:
        raise ValueError(f"the range must rise: write [low, high] with low below high, got [{low:g}, {high:g}]")
    if not math.isfinite(high - low):
        raise ValueError(f"the range [{low:g}, {high:g}] is too wide to draw from")
    return ends


def _exact(ends: tuple[int, int]) -> tuple[int, int]:
    if max(map(abs, ends)) > _LARGEST:
        raise ValueError(f"whole numbers may go from -2**53 to 2**53, got {shown(list(ends))}")
    return ends


Ends = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_rising)]
"""`[low, high]`."""

_LARGEST = 2**53
"""Up to here every whole number is also a float: what a searcher computes with is what a trial gets."""
_FORMS = ("uniform", "log_uniform", "int", "choice")


class ParameterSpec(Strict):
    """One parameter of a search: a range or a choice, and when it exists at all."""

    uniform: Ends | None = None
    """`[low, high]`, equally likely in between; `[low, high]` alone means the same."""
    log_uniform: Ends | None = None
    """`[low, high]`, equally likely in the logarithm: for rates, which matter by their order of magnitude."""
    whole: Annotated[tuple[int, int], AfterValidator(_exact), AfterValidator(_rising)] | None = Field(None, alias="int")
    """`[low, high]`, whole numbers, both ends included."""
    choice: tuple[Any, ...] | None = Field(None, min_length=1)
    """One of these; a value may be anything that can stand in the file, e.g. `{kind: maml, inner_steps: 2}`."""
    when: dict[str, Any] = Field({})
    """Other parameters of the search that must have this value (or one of these, in a list) for this one to exist."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = self.model_dump(by_alias=True, include={"uniform", "log_uniform", "whole", "choice"}, exclude_none=True)
        if len(given) != 1:
            found = f"got {' and '.join(given)}" if given else "got none of them"
            raise ValueError(f"write exactly one of {', '.join(_FORMS)}; {found}")
        if self.log_uniform is not None and self.log_uniform[0] <= 0:
            raise ValueError(f"log_uniform must start above 0, got {self.log_uniform[0]:g}")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest value of a range."""
        found = self.uniform or self.log_uniform or self.whole
        assert found is not None, "a choice has no ends"
        return found


SearchParameter = ParameterSpec | Ends


def as_parameter(written: SearchParameter) -> ParameterSpec:
    """Returns the parameter that a file's `[low, high]`, or its longer form, stands for."""
    return written if isinstance(written, ParameterSpec) else ParameterSpec(uniform=written)


class TuningSpec(Strict):
    """How `metarestore tune` goes about the search; training does not read it."""

    metric: Literal["held_out_shots", "validation"] = "held_out_shots"
    """What is maximised, in dB, without a look at test photographs. `held_out_shots`: PSNR-Y on shots of the target
    after adaptation to the others. `validation`: PSNR, without adaptation, on synthetic tasks of the validation
    photographs."""
    trials: int = Field(16, ge=1, le=10_000)
    """Number of trials; of a grid, the most that may be."""
    searcher: Literal["random", "grid", "optuna"] = "random"
    """Who chooses values: chance; every combination; or Optuna's TPE, which learns from finished trials."""
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    """Who stops trials: ASHA ends the worse ones early, PBT lets them continue from better ones with changed values."""
    seed: int = Field(0, ge=0)
    """Seed of the choices; the experiment's own seed is the same in all trials."""
    report_every: int | None = Field(None, ge=1)
    """Outer steps between two measurements, each with a checkpoint; a tenth of the training if left out."""
    grace: int | None = Field(None, ge=1)
    """Outer steps that every trial may take before ASHA may stop it; `report_every` if left out."""
    reduction: int = Field(3, ge=2)
    """ASHA lets one of this many trials past each halt."""
    perturb_every: int | None = Field(None, ge=1)
    """Outer steps between two exchanges of PBT; twice `report_every` if left out."""
    grid_points: int = Field(3, ge=2, le=1000)
    """Values that a grid takes from each range, both ends included."""
    workers_per_trial: int = Field(1, ge=1)
    """One: a trial computes in its own process. More: each trial has as many Ray workers, reserved together."""
    cpus_per_worker: float = Field(1.0, gt=0)
    gpus_per_worker: float = Field(0.0, ge=0)
    concurrent: int | None = Field(None, ge=1)
    """Most trials at a time; as many as fit the cluster if left out."""
    max_failures: int = Field(2, ge=0)
    """How often a trial whose process died goes on from its last checkpoint."""

    @model_validator(mode="after")
    def _pbt_draws_at_random(self) -> Self:
        if self.scheduler == "pbt" and self.searcher != "random":
            raise ValueError(f"scheduler pbt changes values itself; write searcher: random, not {self.searcher}")
        return self

    def interval(self, steps: int) -> int:
        """Returns the outer steps between two measurements of a training of `steps`."""
        return self.report_every or max(1, steps // 10)
