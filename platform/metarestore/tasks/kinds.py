"""The registry of kinds of task files: a new kind is a file beside this one and an entry here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metarestore.tasks.pairs import PairsSpec
from metarestore.tasks.protocol import ProtocolSpec
from metarestore.tasks.synthetic import SyntheticSpec

TaskSpec = Annotated[SyntheticSpec | ProtocolSpec | PairsSpec, Field(discriminator="kind")]
"""The model of a task file; code for all kinds uses `DistributionSpec`."""
