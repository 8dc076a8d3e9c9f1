"""The registry of kinds of task files: a new kind is a file beside this one and an entry here."""

from __future__ import annotations

from typing import Annotated

from metarestore.config.registry import Registered, Registry
from metarestore.tasks.pairs import PairsSpec
from metarestore.tasks.protocol import ProtocolSpec
from metarestore.tasks.single_image import SingleImageSpec
from metarestore.tasks.spec import DistributionSpec
from metarestore.tasks.synthetic import SyntheticSpec

TASK_KINDS: Registry[DistributionSpec] = Registry(
    "metarestore.task_kinds", DistributionSpec, (SyntheticSpec, ProtocolSpec, PairsSpec, SingleImageSpec)
)
"""The specifications of all kinds of task files, by their names."""

TaskSpec = Annotated[DistributionSpec, Registered(TASK_KINDS)]
"""What a task file may say; code that is about any kind takes `DistributionSpec`."""
