"""The log of a training: one row per outer step, and the observers that receive it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from metarestore.graphs.relations import Relations


@dataclass(frozen=True)
class LoggedRelations:
    """The relations that were estimated before a step, one entry per distribution."""

    values: Sequence[float]
    standard_errors: Sequence[float]


@dataclass(frozen=True)
class LogRow:
    """What one outer step computed; sequences have one entry per source that tasks are drawn from.

    Attributes:
        step: Number of the step, from 1.
        loss: Mean loss of the tasks.
        psnr: Mean PSNR of the tasks in dB.
        terms: Means of the parts of the loss that the learner reports, by name.
        weights: Gradient weight of each source.
        drawn: Number of tasks of each source; empty in logs that were written before it was recorded.
        norms: Mean gradient norm of each source; None if it was not drawn.
        shares: Fraction of the outer gradient's norm that each source contributes.
        agreement: Mean cosine between task gradients, if they are sketched.
        effective_tasks: Effective number of distributions.
        related: The relations, if they were estimated before this step.
        seconds: Seconds of all steps up to this one; not part of the saved log.
    """

    step: int
    loss: float
    psnr: float
    weights: Sequence[float]
    drawn: Sequence[int]
    norms: Sequence[float | None]
    shares: Sequence[float]
    effective_tasks: float
    terms: Mapping[str, float] = field(default_factory=dict)
    agreement: float | None = None
    related: LoggedRelations | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns the row as it is saved: terms are stored beside the other entries, and absent entries are omitted."""
        data: dict[str, Any] = {"step": self.step, "loss": self.loss, "psnr": self.psnr, **self.terms}
        data["weights"] = list(self.weights)
        if self.drawn:
            data["drawn"] = list(self.drawn)
        data |= {"norms": list(self.norms), "shares": list(self.shares)}
        if self.agreement is not None:
            data["agreement"] = self.agreement
        data["effective_tasks"] = self.effective_tasks
        if self.related is not None:
            values, errors = list(self.related.values), list(self.related.standard_errors)
            data["related"] = {"values": values, "standard_errors": errors}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LogRow:
        """Reads a saved row.

        Raises:
            KeyError: An entry is missing.
            TypeError: The row or its relations are not mappings with the expected entries.
        """
        rest = dict(data)
        related = rest.pop("related", None)
        return cls(
            step=rest.pop("step"),
            loss=rest.pop("loss"),
            psnr=rest.pop("psnr"),
            weights=rest.pop("weights"),
            drawn=rest.pop("drawn", ()),
            norms=rest.pop("norms"),
            shares=rest.pop("shares"),
            effective_tasks=rest.pop("effective_tasks"),
            agreement=rest.pop("agreement", None),
            related=None if related is None else LoggedRelations(**related),
            terms=rest,
        )


class Observer:
    """Base class of observers of a training, such as a progress display or tracking; its methods do nothing."""

    def step(self, row: LogRow) -> None:
        """Receives the row of an outer step."""

    def validated(self, step: int, psnr: float) -> None:
        """Receives a validation PSNR in dB."""

    def related(self, step: int, relations: Relations) -> None:
        """Receives newly estimated relations."""

    def saved(self, step: int) -> None:
        """Called after a checkpoint was written."""
