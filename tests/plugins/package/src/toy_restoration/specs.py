"""What YAML files may say about the network, the learner and the estimator; it imports no PyTorch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from metarestore.config.affects import Affects
from metarestore.config.estimators import EstimatorSpec
from metarestore.config.learner import BaseLearnerSpec
from metarestore.config.model import BaseModelSpec


class LinearSpec(BaseModelSpec):
    """One convolution and a pixel shuffle."""

    implementation: ClassVar[str] = "toy_restoration.network:Linear"

    kind: Literal["toy_linear"]
    channels: Literal["y", "rgb"] = "y"
    radius: int = Field(2, ge=0)
    """Radius of the kernel, in LR pixels."""


class QuerySpec(BaseLearnerSpec):
    """Learns from the query set alone."""

    implementation: ClassVar[str] = "toy_restoration.learner:QueryLearner"

    kind: Annotated[Literal["toy_query"], Affects.BUILDING]
    weight: float = Field(1.0, gt=0)
    """Weight of the loss."""
    backend: Literal["vectorised"] = "vectorised"


class BrightnessSpec(EstimatorSpec):
    """Compares the mean brightness of what distributions make of the HR shots."""

    implementation: ClassVar[str] = "toy_restoration.estimator:estimate_brightness"

    kind: Literal["toy_brightness"]
    draws: int = Field(4, ge=2)
    """Tasks drawn from each auxiliary distribution."""
