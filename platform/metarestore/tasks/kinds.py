"""The registry of kinds of task files: a new kind is a file beside this one and an entry here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metarestore.tasks.pairs import PairsSpec
from metarestore.tasks.protocol import ProtocolSpec
from metarestore.tasks.single_image import SingleImageSpec
from metarestore.tasks.synthetic import SyntheticSpec

TaskSpec = Annotated[SyntheticSpec | ProtocolSpec | PairsSpec | SingleImageSpec, Field(discriminator="kind")]
"""What a task file may say; code that is about any kind takes `DistributionSpec`."""
