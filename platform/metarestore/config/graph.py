"""The model of a relation-graph file: nodes, estimator, gradient weights, expert edges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from metarestore.config.affects import Affects
from metarestore.config.base import Strict
from metarestore.config.estimators import Estimator, LearnedEstimatorSpec, ResponseEstimatorSpec, estimate_behind

RelationValue = Annotated[float, Field(ge=-1.0, le=1.0)]


class WeightsSpec(Strict):
    """How relations are converted to gradient weights."""

    rule: Literal["softmax", "relu"] = "softmax"
    """`softmax`: `w = N·softmax(z/τ)` of standardised relations z; `relu`: proportional to the positive relations."""
    temperature: float = Field(0.5, gt=0)
    """τ of the softmax: large values approach uniform weights, small values select the most related distribution."""
    final_temperature: float | None = Field(None, gt=0)
    """τ at the last step, reached by geometric interpolation; above `temperature` the weights become more uniform,
    below it sharper."""
    effective: float | None = Field(None, ge=1)
    """Effective number of distributions, 1/Σp² of the normalised weights, for which τ is chosen."""
    top: int | None = Field(None, ge=1)
    """Number of most related distributions to use; the others get weight 0."""
    shrink: bool = False
    """Whether to shrink the weights towards uniform as far as the differences between relations are explained by their
    standard errors."""
    warmup_steps: int = Field(0, ge=0)
    """Outer steps over which the weights change from uniform to those of the relations."""
    acts_on: Literal["gradients", "sampling", "inner", "both"] = "gradients"
    """What a weight scales: the gradient of the task; the probability of drawing the task (cheaper); the inner learning
    rate of the task, relative to the largest weight (meta-learners); or both gradient and inner learning rate."""
    balance: Literal["none", "unit", "ema"] = "none"
    """`none` leaves gradient norms unchanged; `unit` scales all to the mean norm of the step; `ema` divides each by the
    moving average of its distribution's norms. Balancing preserves the scale of the step."""

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        # A resolved configuration has every key, so a key counts as written if it differs from its default.
        fields = type(self).model_fields
        keys = ("temperature", "final_temperature", "effective")
        written = [key for key in keys if getattr(self, key) != fields[key].default]
        if self.rule == "relu" and written:
            raise ValueError(f"{written[0]} is only valid for rule: softmax, not for relu; remove it")
        if self.effective is not None and len(written) > 1:
            raise ValueError(f"effective determines the temperature; remove {written[0]}")
        return self


class EdgeSpec(Strict):
    """A relation of one auxiliary distribution given by an expert; it replaces the estimate."""

    source: str = Field(alias="from")
    relation: RelationValue


class PriorSpec(Strict):
    """Prior knowledge: an earlier graph, of this or of other targets."""

    graph: Path
    """The folder of a run, or a `graph.json` written by a training or by `metarestore graph merge`; a relative path is
    resolved against the project's folder."""
    strength: float = Field(1.0, gt=0)
    """Weight of an earlier relation relative to an estimate with the same standard error."""


class GraphSpec(Strict):
    """A relation graph: the target, the auxiliary distributions, and how they are related."""

    target: Annotated[str, Affects.TRAINING | Affects.COMPARISON | Affects.OPENING]
    """Name of the target task distribution."""
    auxiliary: Annotated[tuple[str, ...], Affects.TRAINING | Affects.OPENING] = Field(min_length=1)
    """Names or glob patterns of task distributions to learn from."""
    estimator: Annotated[Estimator, Affects.RELATIONS] = ResponseEstimatorSpec()
    weights: Annotated[WeightsSpec, Affects.TRAINING] = WeightsSpec()
    edges: Annotated[tuple[EdgeSpec, ...], Affects.RELATIONS | Affects.OPENING] = ()
    prior: Annotated[PriorSpec | None, Affects.RELATIONS] = None
    """Earlier relations, combined with the estimate by precision weighting; not for uniform, random and expert."""
    forbidden: Annotated[tuple[str, ...], Affects.RELATIONS | Affects.OPENING] = ()
    """Names or glob patterns of auxiliary distributions that stay in the graph with weight 0."""
    refresh: Annotated[int | None, Affects.RELATIONS] = Field(None, ge=1)
    """Outer steps between estimates; if omitted, relations are estimated once, before training."""

    @model_validator(mode="after")
    def _expert_has_edges(self) -> Self:
        if estimate_behind(self.estimator).kind == "expert" and not self.edges:
            raise ValueError("the expert estimator requires edges; write e.g. edges: [{from: jpeg, relation: 0.5}]")
        return self

    @model_validator(mode="after")
    def _joint_is_refreshed(self) -> Self:
        behind = estimate_behind(self.estimator)
        if isinstance(behind, LearnedEstimatorSpec) and behind.joint and self.refresh is None:
            raise ValueError("estimator.joint trains at every refresh; write e.g. refresh: 100, or joint: false")
        return self
