"""MLflow: one parent run per experiment, one nested run per arm; the driver is the only writer, in batches.

The store is SQLite in the project's folder unless `MLFLOW_TRACKING_URI` says otherwise. The driver touches it before
any worker exists, because several processes that create a new SQLite store at once break it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from metarestore.errors import UserError

_BATCH = 1000
"""Metrics that MLflow takes in one call."""
_PARAMS = 100
"""Parameters that MLflow takes in one call."""
_LONGEST = 6000
"""Longest value of a parameter."""


def tracking_uri(root: Path) -> str:
    """Returns the address of the store: `MLFLOW_TRACKING_URI`, else `mlflow.db` in the project's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.absolute() / 'mlflow.db'}"


def flattened(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flattens nested mappings to dotted keys; lists stay in one value."""
    flat: dict[str, str] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)[:_LONGEST]
    return flat


class Store:
    """An MLflow experiment in a store.

    Args:
        root: The project's folder.
        name: Name of the experiment.
    """

    def __init__(self, root: Path, name: str) -> None:
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self.uri = tracking_uri(root)
        artifacts = None if os.environ.get("MLFLOW_TRACKING_URI") else (root.absolute() / "mlartifacts").as_uri()
        try:
            self.client = MlflowClient(tracking_uri=self.uri)
            found = self.client.get_experiment_by_name(name)
            self.experiment = found.experiment_id if found else self.client.create_experiment(name, artifacts)
        except MlflowException as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"MLflow: no store answers at {self.uri} ({reason}); "
                "correct MLFLOW_TRACKING_URI, or unset it to use mlflow.db in the project"
            ) from error

    def run(self, name: str, *, parent: str | None = None, run_id: str | None = None) -> Run:
        """Starts a run, nested under `parent`, or takes up the run `run_id` again."""
        if run_id is not None and self._knows(run_id):
            self.client.update_run(run_id, status="RUNNING")
            return Run(self.client, run_id)
        tags = {MLFLOW_PARENT_RUN_ID: parent} if parent else {}
        created = self.client.create_run(self.experiment, run_name=name, tags=tags)
        return Run(self.client, created.info.run_id)

    def running_children(self, parent: str) -> list[str]:
        """Returns the ids of the nested runs of `parent` that are marked as running."""
        nested = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}' and attributes.status = 'RUNNING'"
        found, token = [], None
        while True:
            page = self.client.search_runs([self.experiment], filter_string=nested, page_token=token)
            found += [run.info.run_id for run in page]
            token = page.token
            if not token:
                return found

    def _knows(self, run_id: str) -> bool:
        """Tells whether the store still has a run: it may have been removed, or another store be in use."""
        try:
            self.client.get_run(run_id)
        except MlflowException:
            return False
        return True


class Run:
    """One MLflow run; metrics are kept here until `flush`."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.id = run_id
        self._client = client
        self._waiting: list[Metric] = []

    def params(self, values: Mapping[str, Any]) -> None:
        """Logs parameters; nested mappings become dotted keys."""
        entries = [Param(key, value) for key, value in flattened(values).items()]
        for first in range(0, len(entries), _PARAMS):
            self._client.log_batch(self.id, params=entries[first : first + _PARAMS])

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Notes metrics of a step, to be written with the next `flush`."""
        now = int(time.time() * 1000)
        self._waiting += [Metric(key, float(value), now, step) for key, value in values.items()]

    def flush(self) -> None:
        """Writes the noted metrics."""
        for first in range(0, len(self._waiting), _BATCH):
            self._client.log_batch(self.id, metrics=self._waiting[first : first + _BATCH])
        self._waiting = []

    def last_step(self, metric: str) -> int:
        """Returns the last step that a metric was written at; 0 before the first."""
        return max((entry.step for entry in self._client.get_metric_history(self.id, metric)), default=0)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Stores a file."""
        self._client.log_artifact(self.id, str(path), folder)

    def tag(self, key: str, value: str) -> None:
        """Sets a tag."""
        self._client.set_tag(self.id, key, value)

    def end(self, status: str = "FINISHED") -> None:
        """Ends the run; what waits is written only if it finished, since a resumed run will find it again."""
        if status == "FINISHED":
            self.flush()
        self._client.set_terminated(self.id, status)
