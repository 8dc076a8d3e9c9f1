"""Contract tests of operations, networks, learners, estimators and task kinds, for pytest.

A package that adds parts tests them by a subclass of each contract:

    from metarestore.testing import NetworkContract

    class TestNetworks(NetworkContract):
        examples = {"mine": {"kind": "mine"}, "mine, on luma": {"kind": "mine", "channels": "y"}}

The tests require pytest, jsonschema and, for `ReferenceContract`, learn2learn.
"""

import pytest

# Failing assertions show their values, as in a test file.
for _name in ("estimators", "learners", "networks", "operations", "task_kinds"):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")

from metarestore.testing.estimators import EstimatorContract  # noqa: E402
from metarestore.testing.learners import LearnerContract, ReferenceContract  # noqa: E402
from metarestore.testing.networks import NetworkContract  # noqa: E402
from metarestore.testing.operations import PipelineContract, Subject, subjects_of  # noqa: E402
from metarestore.testing.task_kinds import TaskFile, TaskKindContract  # noqa: E402

__all__ = [
    "EstimatorContract",
    "LearnerContract",
    "NetworkContract",
    "PipelineContract",
    "ReferenceContract",
    "Subject",
    "TaskFile",
    "TaskKindContract",
    "subjects_of",
]
