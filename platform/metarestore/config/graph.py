"""What a relation-graph file may say: nodes, estimator, gradient weights, expert edges."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from metarestore.config.base import Strict

CONTROLS = ("uniform", "random", "inverted")
"""Kinds of estimators that estimate nothing: what a real estimate is compared with."""

RelationValue = Annotated[float, Field(ge=-1.0, le=1.0)]


class ResponseEstimator(Strict):
    """Compares degradation responses: log ratios of LR spectra to bicubic-LR spectra of the same HR patches."""

    kind: Literal["response"] = "response"
    draws: int = Field(20, ge=2)
    """Tasks drawn from each auxiliary distribution."""


class TransferEstimator(Strict):
    """Trains briefly on each source, adapts on one half of the shots and scores on the other half."""

    kind: Literal["transfer"]
    steps: int = Field(150, ge=1)
    """Outer steps of the short training on each source."""
    adaptation_steps: int = Field(20, ge=0)
    """Steps on one half of the shots, taken as `adaptation` says."""
    draws: int = Field(2, ge=1)
    """Ways in which the shots are halved; each half is scored once."""


class GradientEstimator(Strict):
    """Compares task gradients by their cosine, on the same clean patches for every distribution."""

    kind: Literal["gradient"]
    draws: int = Field(16, ge=2)
    """Tasks drawn from each auxiliary distribution."""


class ExpertEstimator(Strict):
    """Takes the relations from `edges` alone; a distribution without an edge has relation 0."""

    kind: Literal["expert"]


class UniformControl(Strict):
    """Relates every distribution equally: the 'no relation' control."""

    kind: Literal["uniform"]


class RandomControl(Strict):
    """Draws relations at random, once per run: the 'any relation' control."""

    kind: Literal["random"]


class InvertedControl(Strict):
    """Turns the relations of another estimator around: if this does not hurt, the relation does no work."""

    kind: Literal["inverted"]
    of: ResponseEstimator | TransferEstimator | GradientEstimator | ExpertEstimator = Field(
        ResponseEstimator(), discriminator="kind"
    )


Estimator = Annotated[
    ResponseEstimator
    | TransferEstimator
    | GradientEstimator
    | ExpertEstimator
    | UniformControl
    | RandomControl
    | InvertedControl,
    Field(discriminator="kind"),
]


class Weights(Strict):
    """How relations become gradient weights."""

    rule: Literal["softmax"] = "softmax"
    temperature: float = Field(0.5, gt=0)
    """τ of `w = N·softmax(z/τ)` over standardised relations z; large: uniform, small: the best alone."""
    acts_on: Literal["gradients", "sampling"] = "gradients"
    """Whether a weight scales its task's gradient or the probability of drawing the task (cheaper)."""
    balance: Literal["none", "unit", "ema"] = "none"
    """Gradient norms as they are; all scaled to the step's mean norm; or each divided by a running mean of its
    distribution's norms. Balancing keeps the scale of the step."""


class Edge(Strict):
    """An expert's statement about one auxiliary distribution; it replaces the estimate."""

    source: str = Field(alias="from")
    relation: RelationValue


class GraphSpec(Strict):
    """A relation graph: which synthetic distributions may help which real one, and who decides."""

    target: str
    """Name of the task distribution to be restored."""
    auxiliary: tuple[str, ...] = Field(min_length=1)
    """Names or glob patterns of task distributions to learn from."""
    estimator: Estimator = ResponseEstimator()
    weights: Weights = Weights()
    edges: tuple[Edge, ...] = ()
    refresh: int | None = Field(None, ge=1)
    """Outer steps between two estimates; leave it out to estimate once, before training."""

    @model_validator(mode="after")
    def _expert_has_edges(self) -> Self:
        if self.estimator.kind == "expert" and not self.edges:
            raise ValueError("the expert estimator needs edges; write e.g. edges: [{from: jpeg, relation: 0.5}]")
        return self
