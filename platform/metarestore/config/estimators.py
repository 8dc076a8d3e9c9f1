"""Options of the relation estimators: one model per kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from metarestore.config.network_path import NetworkPath
from metarestore.config.registry import Implemented, Registered, Registry

CONTROLS = ("uniform", "random", "inverted", "best_single")
"""Kinds of controls, which estimate nothing themselves: baselines for real estimators."""


class EstimatorSpec(Implemented):
    """What the specifications of all estimators have in common.

    `implementation` is a function of the workspace, what runs jobs, the parameters (P,), the specification, the outer
    step and the relations of the refresh before; it returns `metarestore.graphs.relations.Relations`.
    """


class ResponseEstimatorSpec(EstimatorSpec):
    """Compares degradation responses: the effect of a degradation on the HR shots, per frequency band."""

    implementation: ClassVar[str] = "metarestore.graphs.response:estimate_response"

    kind: Literal["response"] = "response"
    draws: int = Field(20, ge=2)
    """Number of tasks drawn from each auxiliary distribution."""
    features: Literal["spectra", "identification"] = "spectra"
    """`spectra`: distance between mean spectra, informative even if no distribution matches, as with real cameras;
    `identification`: which distributions the shots may come from, using separate features of blur, noise and
    compression."""


class DescriptorEstimatorSpec(EstimatorSpec):
    """Compares KDSR descriptors of the shots with those of the same HR shots under each distribution.

    The network is not trained here. A teacher describes LR and HR together, a student LR alone. Its scale must be that
    of the target.
    """

    implementation: ClassVar[str] = "metarestore.graphs.descriptor:estimate_descriptor"

    kind: Literal["descriptor"]
    network: NetworkPath = Path("kdsr_tiny_pairs")
    """Trained KDSR with a degradation encoder: a run's folder or its weights (relative to the project's folder), or the
    name of a shipped network."""
    draws: int = Field(20, ge=2)
    """Number of tasks drawn from each auxiliary distribution."""


class LearnedEstimatorSpec(EstimatorSpec):
    """Trains a distortion relation network on the auxiliary distributions and applies it to the shots."""

    implementation: ClassVar[str] = "metarestore.graphs.learned:estimate_learned"

    kind: Literal["learned"]
    steps: int = Field(100, ge=1)
    """Training steps of the relation network."""
    draws: int = Field(12, ge=2)
    """Tasks drawn from each auxiliary distribution for its prototype."""
    dimension: int = Field(64, ge=2)
    """Dimension of the embeddings."""
    memory: int = Field(8, ge=0)
    """Number of learnable relation vectors in the memory bank; 0 disables it."""
    message_passing: bool = True
    """Whether a graph convolution passes messages between distributions and memory."""
    joint: bool = False
    """Whether the relation network is trained alongside the restoration network, with a fraction of its steps at each
    refresh, instead of beforehand; requires `refresh`."""
    lr: float = Field(4e-3, gt=0)
    """Learning rate of Adam; it decays to 0 by a half-cosine schedule."""


class TransferEstimatorSpec(EstimatorSpec):
    """Trains briefly on each source, adapts to one half of the shots and evaluates on the other half."""

    implementation: ClassVar[str] = "metarestore.graphs.transfer:estimate_transfer"

    kind: Literal["transfer"]
    steps: int = Field(150, ge=1)
    """Outer steps of the short training on each source."""
    adaptation_steps: int = Field(20, ge=0)
    """Adaptation steps on one half of the shots, with the optimizer of `adaptation`."""
    draws: int = Field(2, ge=1)
    """Number of random splits of the shots into halves; each half is evaluated once."""


class GradientEstimatorSpec(EstimatorSpec):
    """Compares task gradients by cosine similarity, on the same clean patches for every distribution."""

    implementation: ClassVar[str] = "metarestore.graphs.gradient:estimate_gradient"

    kind: Literal["gradient"]
    draws: int = Field(16, ge=2)
    """Number of tasks drawn from each auxiliary distribution."""
    compares: Literal["gradients", "adaptations"] = "gradients"
    """Gradients at the current parameters, or the parameter updates after a few steps on the images."""
    adaptation_steps: int = Field(5, ge=1)
    """Adam steps, with learning rate `adaptation.lr`, from which the direction of an adaptation is computed."""
    sketch: int = Field(1024, ge=16)
    """Dimension of the sketch of a gradient."""
    memory: float = Field(0.0, ge=0, lt=1)
    """Decay of the moving average over refreshes: the weight of the earlier estimates."""


class ExpertEstimatorSpec(EstimatorSpec):
    """Uses only the relations in `edges`; a distribution without an edge has relation 0."""

    implementation: ClassVar[str] = "metarestore.graphs.estimate:estimate_expert"

    kind: Literal["expert"]


class UniformControlSpec(EstimatorSpec):
    """Relates all distributions equally: the control without relations."""

    kind: Literal["uniform"]


class RandomControlSpec(EstimatorSpec):
    """Draws random relations once per run: the control with arbitrary relations."""

    kind: Literal["random"]


Estimate = (
    ResponseEstimatorSpec
    | DescriptorEstimatorSpec
    | LearnedEstimatorSpec
    | TransferEstimatorSpec
    | GradientEstimatorSpec
    | ExpertEstimatorSpec
)
"""The estimators of this package that estimate something of their own."""

_GROUP = "metarestore.estimators"
ESTIMATES: Registry[EstimatorSpec] = Registry(_GROUP, EstimatorSpec, get_args(Estimate))
"""The specifications of all estimators but the controls, by their kinds."""
AnyEstimate = Annotated[Estimate, Registered(ESTIMATES)]


class InvertedControlSpec(EstimatorSpec):
    """Negates the relations of another estimator: if this does not hurt, the relations have no effect."""

    kind: Literal["inverted"]
    of: AnyEstimate = ResponseEstimatorSpec()


class BestSingleControlSpec(EstimatorSpec):
    """Learns only from the most related distribution."""

    kind: Literal["best_single"]
    of: AnyEstimate = ResponseEstimatorSpec()


AnyEstimator = Estimate | UniformControlSpec | RandomControlSpec | InvertedControlSpec | BestSingleControlSpec
"""The estimators of this package."""

ESTIMATORS: Registry[EstimatorSpec] = Registry(_GROUP, EstimatorSpec, get_args(AnyEstimator))
"""The specifications of all estimators, by their kinds."""

Estimator = Annotated[AnyEstimator, Registered(ESTIMATORS)]


def estimate_behind(estimator: Estimator) -> Estimator:
    """Returns the estimator that a control modifies, or else the estimator itself."""
    return estimator.of if isinstance(estimator, InvertedControlSpec | BestSingleControlSpec) else estimator


def network_key(estimator: Estimator) -> str:
    """Returns the key of an experiment that holds the network of its `descriptor` estimator."""
    return f"graph.estimator.{'of.' * (estimator is not estimate_behind(estimator))}network"


def measure(estimator: Estimator) -> str:
    """Returns a name for the quantity that an estimator measures; only values of the same quantity are comparable."""
    match estimator:
        case ResponseEstimatorSpec():
            return f"response, {estimator.features}"
        case GradientEstimatorSpec():
            return f"gradient, {estimator.compares}"
        case DescriptorEstimatorSpec():
            return f"descriptor, {estimator.network.stem}"
    return estimator.kind


def takes_prior(estimator: Estimator) -> bool:
    """Returns whether a prior is combined with the relations: only if relations are estimated."""
    return estimate_behind(estimator).kind not in {"uniform", "random", "expert"}
