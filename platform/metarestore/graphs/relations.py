"""The result of a relation estimator, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Relations:
    """Relations of N auxiliary distributions to one target.

    Attributes:
        target: Name of the target distribution.
        auxiliary: Names of the N auxiliary distributions.
        values: Relation of each to the target, (N,), in −1..1.
        standard_errors: Standard error of each value over draws and halves of the shots, (N,); NaN where not defined.
        estimator: Kind of the estimator.
        draws: Number of tasks (or splits of the shots) per value.
        reliability: Rank correlation of the values from two halves of the shots; NaN where not defined.
        matrix: Relations among the auxiliary distributions and the target (last), (N+1, N+1), or None.
        allowed: Mask of the distributions that may be used for training, (N,); None for all.
        stated: Mask of the relations given by an expert, (N,); None for none.
        attention: Attention of the distributions and the target (last) to the M entries of a memory, (N+1, M), or None.
        carried: State that the estimator carries over to its next estimate, or None.
        estimated: Values and standard errors before a prior was combined with them, (2, N); None without a prior.
    """

    target: str
    auxiliary: tuple[str, ...]
    values: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    estimator: str
    draws: int
    reliability: float = float("nan")
    matrix: NDArray[np.float64] | None = None
    allowed: NDArray[np.bool_] | None = None
    stated: NDArray[np.bool_] | None = None
    attention: NDArray[np.float64] | None = None
    carried: NDArray[np.float32] | None = None
    estimated: NDArray[np.float64] | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the relations as JSON data, without `carried`; the inverse is `from_json`."""
        return {
            "target": self.target,
            "auxiliary": list(self.auxiliary),
            "values": self.values.tolist(),
            "standard_errors": [_defined(error) for error in self.standard_errors],
            "estimator": self.estimator,
            "draws": self.draws,
            "reliability": _defined(self.reliability),
            "matrix": _listed(self.matrix),
            "allowed": _listed(self.allowed),
            "stated": _listed(self.stated),
            "attention": _listed(self.attention),
            "estimated": None if self.estimated is None else [[_defined(v) for v in row] for row in self.estimated],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Relations:
        """Reads relations written by `to_json`."""
        return cls(
            target=data["target"],
            auxiliary=tuple(data["auxiliary"]),
            values=np.asarray(data["values"], np.float64),
            standard_errors=np.asarray(data["standard_errors"], np.float64),
            estimator=data["estimator"],
            draws=data["draws"],
            reliability=float("nan") if data["reliability"] is None else data["reliability"],
            matrix=_array(data["matrix"], np.float64),
            allowed=_array(data.get("allowed"), np.bool_),
            stated=_array(data.get("stated"), np.bool_),
            attention=_array(data.get("attention"), np.float64),
            estimated=_array(data.get("estimated"), np.float64),
        )


def _listed(array: NDArray[Any] | None) -> list[Any] | None:
    values: list[Any] | None = None if array is None else array.tolist()
    return values


def _array(data: list[Any] | None, kind: type[np.generic]) -> NDArray[Any] | None:
    return None if data is None else np.asarray(data, kind)


def _defined(value: float) -> float | None:
    """Returns a number, or None for an undefined one: JSON has no NaN."""
    return float(value) if np.isfinite(value) else None
