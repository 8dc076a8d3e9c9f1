"""Converts names, parameters and metrics to the form that MLflow accepts."""

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
"""Tag that the MLflow UI shows as the description of a run."""
NORMS = "zz_norm"
"""Prefix of gradient norms: the MLflow UI sorts metrics by name, and these should come last."""


def flattened(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flattens nested mappings to dotted keys; lists are not flattened."""
    flat: dict[str, str] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)[:LONGEST_PARAMETER]
    return flat


def allowed(key: str) -> str:
    """Replaces characters that MLflow does not allow in names."""
    return re.sub(r"[^\w\-. :/]", "_", key)


def metrics_of(record: Record) -> list[Metric]:
    """Returns the metrics of a record, with names that MLflow allows."""
    return [Metric(allowed(key), value, record["time"], record["step"]) for key, value in record["values"].items()]
