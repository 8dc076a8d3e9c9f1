"""What a relation-graph file may say: nodes, estimator, gradient weights, expert edges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from metarestore.config.affects import Affects
from metarestore.config.base import Strict
from metarestore.config.estimators import Estimator, LearnedEstimatorSpec, ResponseEstimatorSpec, estimate_behind

RelationValue = Annotated[float, Field(ge=-1.0, le=1.0)]


class WeightsSpec(Strict):
    """How relations become gradient weights."""

    rule: Literal["softmax", "relu"] = "softmax"
    """softmax: `w = N·softmax(z/τ)` over standardised relations z; relu: in proportion to the relations above 0."""
    temperature: float = Field(0.5, gt=0)
    """τ of the softmax; large: uniform, small: the best alone."""
    final_temperature: float | None = Field(None, gt=0)
    """τ at the last step, reached geometrically; above `temperature` it fades to uniform, below it sharpens."""
    effective: float | None = Field(None, ge=1)
    """Chooses τ so that about so many distributions count: 1/Σp² of the weights."""
    top: int | None = Field(None, ge=1)
    """Only so many of the nearest distributions count; the others weigh 0."""
    shrink: bool = False
    """Pulls the weights towards uniform as far as the relations differ by their standard errors alone."""
    warmup_steps: int = Field(0, ge=0)
    """Outer steps over which the weights go from uniform to what the relations say."""
    acts_on: Literal["gradients", "sampling", "inner", "both"] = "gradients"
    """What a weight scales: its task's gradient; the probability of drawing the task (cheaper); the inner rate of the
    task, relative to the largest weight (meta-learners); or gradient and inner rate."""
    balance: Literal["none", "unit", "ema"] = "none"
    """Gradient norms as they are; all scaled to the step's mean norm; or each divided by a running mean of its
    distribution's norms. Balancing keeps the scale of the step."""

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        # A resolved configuration names every key, so a key counts as written where it differs from its default.
        fields = type(self).model_fields
        keys = ("temperature", "final_temperature", "effective")
        written = [key for key in keys if getattr(self, key) != fields[key].default]
        if self.rule == "relu" and written:
            raise ValueError(f"{written[0]} is for rule: softmax, not for relu; leave it out")
        if self.effective is not None and len(written) > 1:
            raise ValueError(f"effective chooses the temperature; leave out {written[0]}")
        return self


class EdgeSpec(Strict):
    """An expert's statement about one auxiliary distribution; it replaces the estimate."""

    source: str = Field(alias="from")
    relation: RelationValue


class PriorSpec(Strict):
    """What is known from before: a learned graph, of this or of other targets."""

    graph: Path
    """The folder of a run, or a `graph.json` that a training wrote or `metarestore graph merge` made; a relative path
    starts at the project's folder."""
    strength: float = Field(1.0, gt=0)
    """How much an earlier relation counts against an estimate of the same standard error."""


class GraphSpec(Strict):
    """A relation graph: which synthetic distributions may help which real one, and who decides."""

    target: Annotated[str, Affects.TRAINING | Affects.COMPARISON | Affects.OPENING]
    """Name of the task distribution to be restored."""
    auxiliary: Annotated[tuple[str, ...], Affects.TRAINING | Affects.OPENING] = Field(min_length=1)
    """Names or glob patterns of task distributions to learn from."""
    estimator: Annotated[Estimator, Affects.RELATIONS] = ResponseEstimatorSpec()
    weights: Annotated[WeightsSpec, Affects.TRAINING] = WeightsSpec()
    edges: Annotated[tuple[EdgeSpec, ...], Affects.RELATIONS | Affects.OPENING] = ()
    prior: Annotated[PriorSpec | None, Affects.RELATIONS] = None
    """Relations from before, combined with the estimate by their precisions; not for uniform, random and expert."""
    forbidden: Annotated[tuple[str, ...], Affects.RELATIONS | Affects.OPENING] = ()
    """Names or glob patterns of auxiliary distributions that stay in the graph and weigh 0."""
    refresh: Annotated[int | None, Affects.RELATIONS] = Field(None, ge=1)
    """Outer steps between two estimates; leave it out to estimate once, before training."""

    @model_validator(mode="after")
    def _expert_has_edges(self) -> Self:
        if estimate_behind(self.estimator).kind == "expert" and not self.edges:
            raise ValueError("the expert estimator needs edges; write e.g. edges: [{from: jpeg, relation: 0.5}]")
        return self

    @model_validator(mode="after")
    def _joint_is_refreshed(self) -> Self:
        behind = estimate_behind(self.estimator)
        if isinstance(behind, LearnedEstimatorSpec) and behind.joint and self.refresh is None:
            raise ValueError("estimator.joint learns at every refresh; write e.g. refresh: 100, or joint: false")
        return self
