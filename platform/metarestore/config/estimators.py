"""What a graph file may say of its relation estimator: one model per kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from metarestore.config.network_path import NetworkPath
from metarestore.config.registry import Implemented, Registered, Registry

CONTROLS = ("uniform", "random", "inverted", "best_single")
"""Kinds of estimators that estimate nothing of their own: what a real estimate is compared with."""


class EstimatorSpec(Implemented):
    """What the specifications of all estimators have in common.

    `implementation` is a function of the workspace, what runs jobs, the parameters (P,), the specification, the outer
    step and the relations of the refresh before; it returns `metarestore.graphs.relations.Relations`.
    """


class ResponseEstimator(EstimatorSpec):
    """Compares degradation responses: what a degradation does to the HR shots, band by band."""

    implementation: ClassVar[str] = "metarestore.graphs.response:estimate_response"

    kind: Literal["response"] = "response"
    draws: int = Field(20, ge=2)
    """Tasks drawn from each auxiliary distribution."""
    features: Literal["spectra", "identification"] = "spectra"
    """spectra: how near the mean spectra are, graded also where no distribution fits, as with real cameras;
    identification: which distributions the shots may come from, by blur, noise and compression told apart."""


class DescriptorEstimator(EstimatorSpec):
    """Compares KDSR descriptors of the shots with those of the same HR shots under each distribution.

    The network is not trained here; one whose estimator is a teacher's describes LR and HR together, a student's LR
    alone. It must be of the scale of the target.
    """

    implementation: ClassVar[str] = "metarestore.graphs.descriptor:estimate_descriptor"

    kind: Literal["descriptor"]
    network: NetworkPath = Path("kdsr_tiny_pairs")
    """Trained KDSR with an estimator: a run's folder or its weights (a relative path starts at the project's folder),
    or the name of a shipped network."""
    draws: int = Field(20, ge=2)
    """Tasks drawn from each auxiliary distribution."""


class LearnedEstimator(EstimatorSpec):
    """Trains a distortion relation network on the auxiliary distributions and asks it about the shots."""

    implementation: ClassVar[str] = "metarestore.graphs.learned:estimate_learned"

    kind: Literal["learned"]
    steps: int = Field(100, ge=1)
    """Steps of the relation network's own training."""
    draws: int = Field(12, ge=2)
    """Tasks drawn from each auxiliary distribution for its prototype."""
    dimension: int = Field(64, ge=2)
    """Length of an embedding."""
    memory: int = Field(8, ge=0)
    """Learnable relation vectors of the memory; 0: without memory."""
    message_passing: bool = True
    """Whether one graph convolution passes messages among distributions and memory."""
    joint: bool = False
    """Train the relation network along with the restoration network, a part of its steps at each refresh, instead of
    beforehand; needs `refresh`."""
    lr: float = Field(4e-3, gt=0)
    """Rate of its optimizer, Adam; it falls along half a cosine."""


class TransferEstimator(EstimatorSpec):
    """Trains briefly on each source, adapts on one half of the shots and scores on the other half."""

    implementation: ClassVar[str] = "metarestore.graphs.transfer:estimate_transfer"

    kind: Literal["transfer"]
    steps: int = Field(150, ge=1)
    """Outer steps of the short training on each source."""
    adaptation_steps: int = Field(20, ge=0)
    """Steps on one half of the shots, taken as `adaptation` says."""
    draws: int = Field(2, ge=1)
    """Ways in which the shots are halved; each half is scored once."""


class GradientEstimator(EstimatorSpec):
    """Compares task gradients by their cosine, on the same clean patches for every distribution."""

    implementation: ClassVar[str] = "metarestore.graphs.gradient:estimate_gradient"

    kind: Literal["gradient"]
    draws: int = Field(16, ge=2)
    """Tasks drawn from each auxiliary distribution."""
    compares: Literal["gradients", "adaptations"] = "gradients"
    """Gradients at the parameters as they are, or the directions in which a few steps on the images move them."""
    adaptation_steps: int = Field(5, ge=1)
    """Adam steps, at the rate of `adaptation.lr`, behind an adaptation's direction."""
    sketch: int = Field(1024, ge=16)
    """Size of the sketch that stands for a gradient."""
    memory: float = Field(0.0, ge=0, lt=1)
    """Share of the earlier estimates in a running mean over refreshes, along the trajectory."""


class ExpertEstimator(EstimatorSpec):
    """Takes the relations from `edges` alone; a distribution without an edge has relation 0."""

    implementation: ClassVar[str] = "metarestore.graphs.estimate:estimate_expert"

    kind: Literal["expert"]


class UniformControl(EstimatorSpec):
    """Relates every distribution equally: the 'no relation' control."""

    kind: Literal["uniform"]


class RandomControl(EstimatorSpec):
    """Draws relations at random, once per run: the 'any relation' control."""

    kind: Literal["random"]


Estimate = (
    ResponseEstimator | DescriptorEstimator | LearnedEstimator | TransferEstimator | GradientEstimator | ExpertEstimator
)
"""The estimators of this package that estimate something of their own."""

_GROUP = "metarestore.estimators"
ESTIMATES: Registry[EstimatorSpec] = Registry(_GROUP, EstimatorSpec, get_args(Estimate))
"""The specifications of all estimators but the controls, by their kinds."""
AnyEstimate = Annotated[Estimate, Registered(ESTIMATES)]


class InvertedControl(EstimatorSpec):
    """Turns the relations of another estimator around: if this does not hurt, the relation does no work."""

    kind: Literal["inverted"]
    of: AnyEstimate = ResponseEstimator()


class BestSingleControl(EstimatorSpec):
    """Learns from the nearest distribution alone."""

    kind: Literal["best_single"]
    of: AnyEstimate = ResponseEstimator()


AnyEstimator = Estimate | UniformControl | RandomControl | InvertedControl | BestSingleControl
"""The estimators of this package."""

ESTIMATORS: Registry[EstimatorSpec] = Registry(_GROUP, EstimatorSpec, get_args(AnyEstimator))
"""The specifications of all estimators, by their kinds."""

Estimator = Annotated[AnyEstimator, Registered(ESTIMATORS)]


def estimate_behind(estimator: Estimator) -> Estimator:
    """Returns the estimator that a control turns around or cuts down; any other is its own."""
    return estimator.of if isinstance(estimator, InvertedControl | BestSingleControl) else estimator


def network_key(estimator: Estimator) -> str:
    """Returns the key of an experiment under which the network of its `descriptor` estimator is named."""
    return f"graph.estimator.{'of.' * (estimator is not estimate_behind(estimator))}network"


def measure(estimator: Estimator) -> str:
    """Returns what an estimator's values mean; values of another measure are not to be compared with them."""
    match estimator:
        case ResponseEstimator():
            return f"response, {estimator.features}"
        case GradientEstimator():
            return f"gradient, {estimator.compares}"
        case DescriptorEstimator():
            return f"descriptor, {estimator.network.stem}"
    return estimator.kind


def takes_prior(estimator: Estimator) -> bool:
    """Returns whether a prior is combined with the relations: not where none are estimated."""
    return estimate_behind(estimator).kind not in {"uniform", "random", "expert"}
