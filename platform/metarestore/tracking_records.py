"""What MLflow is told, in the form that it takes: names, parameters, metrics; and how metrics are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Metric

from metarestore.journal import Record

LONGEST_PARAMETER = 6000
"""Longest value of a parameter that MLflow takes, in characters."""
LONGEST_TAG = 5000
"""Longest value of a tag that MLflow takes, in characters."""
NOTE = "mlflow.note.content"
"""Tag that MLflow's pages show as a run's description."""
NORMS = "zz_norm"
"""Prefix of gradient norms. MLflow's pages sort metrics by name, and these are what one looks at last."""


def flattened(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flattens nested mappings to dotted keys; lists stay in one value."""
    flat: dict[str, str] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)[:LONGEST_PARAMETER]
    return flat


def allowed(key: str) -> str:
    """Returns a name that MLflow takes: task files may have any name."""
    return re.sub(r"[^\w\-. :/]", "_", key)


def metrics_of(record: Record) -> list[Metric]:
    """Returns the metrics of a record, under names that MLflow takes."""
    return [Metric(allowed(key), value, record["time"], record["step"]) for key, value in record["values"].items()]
