"""The kind `protocol`: a pipeline of which all cases are measured."""

from __future__ import annotations

from functools import cached_property
from typing import Literal, Self

from pydantic import model_validator

from metarestore.degradations.base import Drawn, error_at
from metarestore.tasks.spec import Scale
from metarestore.tasks.synthetic import PipelineSpec


class ProtocolSpec(PipelineSpec):
    """An evaluation protocol: a pipeline of which all cases are measured, instead of random draws.

    Parameters are numbers or `{choice: [...]}`, structures are `one_of`, `group` and `repeat`; the cases are all
    combinations. Task i is case i, modulo the number of cases.
    """

    kind: Literal["protocol"]
    scales: tuple[Scale, ...] = (2, 3, 4)
    """Scales that the protocol is defined for."""

    @model_validator(mode="after")
    def _is_enumerable(self) -> Self:
        self._check_defined(self.scale)
        self.pipeline.cases(self.scale)
        return self

    def at_scale(self, scale: Scale) -> Self:
        """Returns the same protocol for another scale.

        Raises:
            PydanticCustomError: It is not defined for this scale; a `ValueError` whose `at` is the key path.
        """
        self._check_defined(scale)
        return super().at_scale(scale)

    def _check_defined(self, scale: Scale) -> None:
        if scale not in self.scales:
            defined = ", ".join(map(str, self.scales))
            raise error_at(f"the protocol is defined only for scale {defined}, not for {scale}", "scales")

    @cached_property
    def cases(self) -> tuple[Drawn, ...]:
        """The degradations to measure, in the order of the file."""
        return self.pipeline.cases(self.scale)

    def degradation(self, content: str, seed: int, index: int) -> Drawn:
        """Returns case `index`; the seed does not matter."""
        return self.cases[index % len(self.cases)]
