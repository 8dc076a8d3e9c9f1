"""A kind of task file."""

from __future__ import annotations

from typing import Literal

from metarestore.degradations.base import Drawn
from metarestore.tasks.synthetic import PipelineSpec


class SteadySpec(PipelineSpec):
    """A pipeline that is drawn once for all tasks."""

    kind: Literal["steady"]

    def degradation(self, content: str, seed: int, index: int) -> Drawn:
        """Draws the degradation of all tasks."""
        return self.pipeline.draw((content, "steady"), self.scale)
