"""The contracts of metarestore, on the parts of this package."""

from typing import ClassVar

from toy_restoration.falloff import Falloff

from metarestore.testing import (
    EstimatorContract,
    LearnerContract,
    NetworkContract,
    PipelineContract,
    TaskFile,
    TaskKindContract,
    subjects_of,
)


class TestOperations(PipelineContract):
    examples: ClassVar = subjects_of(Falloff)


class TestTaskKinds(TaskKindContract):
    examples: ClassVar = {
        "steady": TaskFile(
            "kind: steady\nscale: 4\npipeline:\n  - {op: toy_falloff, strength: 0.3}\n  - {op: downsample}\n",
            "strength: 0.3",
            "strength: 0.4",
        )
    }


class TestNetworks(NetworkContract):
    examples: ClassVar = {
        "luma": {"kind": "toy_linear"},
        "rgb": {"kind": "toy_linear", "channels": "rgb", "radius": 1},
    }


class TestLearners(LearnerContract):
    examples: ClassVar = {
        "query": {"kind": "toy_query"},
        "weighted": {"kind": "toy_query", "weight": 3.0, "loss": "mse"},
    }


class TestEstimators(EstimatorContract):
    examples: ClassVar = {"brightness": {"estimator": {"kind": "toy_brightness", "draws": 4}}}
