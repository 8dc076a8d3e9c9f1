"""MLflow: one parent run per experiment, one nested run per arm; the driver is the only writer, in batches.

The store is SQLite in the project's folder unless `MLFLOW_TRACKING_URI` is set. The driver touches it before
any worker exists, and one process at a time, because several that create a new SQLite store at once break it.

Everything is first recorded in the run's folder and sent from there. A store that is locked, unreachable or broken
causes a warning, but never stops a training: records are sent with a later checkpoint, at the end, or on `--resume`.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from mlflow.entities import LifecycleStage, Param
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    BAD_REQUEST,
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from metarestore.errors import UserError
from metarestore.journal import Journal, Record
from metarestore.tracking_records import LONGEST_TAG, allowed, flattened, metrics_of
from metarestore.tracking_store import (
    UNAVAILABLE,
    GoneError,
    artifact_location,
    is_temporary,
    one_at_a_time,
    reason,
    require_answer,
    restore_command,
    source_tags,
    storing_errors,
    tracking_uri,
    update_artifact_location,
    what_is_wrong,
)

__all__ = ["Run", "Store", "ended", "flattened", "tracking_uri"]

_BATCH = 1000
"""Maximum number of metrics in one MLflow call."""
_PARAMS = 100
"""Maximum number of parameters in one MLflow call."""
_PAUSE = 30.0
"""Minimum pause in seconds after a failure of the store; longer if it failed slowly (a locked SQLite takes 20 s)."""
_KEY_TAG = "metarestore.key"
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Experiment type for the UI of MLflow 3: without it, the UI shows an empty page for language models."""
_SLOW = 5.0
"""Seconds after which a failure to store an artifact is not tried again with the next one of the same run."""
_REFUSED = {ErrorCode.Name(code) for code in (BAD_REQUEST, INVALID_PARAMETER_VALUE, RESOURCE_ALREADY_EXISTS)}
"""Error codes for records that MLflow will never accept."""

_Entry = TypeVar("_Entry")

_log = logging.getLogger(__name__)


class Store:
    """An MLflow experiment in a store.

    Args:
        root: The project's folder.
        name: Name of the experiment.
        warn: Called, once, if the store does not answer.
        required: Whether the store must be available now: a new run detects a wrong address early, while a resumed one
            can wait for its store.
        command: The command that started the runs, recorded as their source.

    Raises:
        UserError: The store is required, and does not answer, or the experiment was deleted in it.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        warn: Callable[[str], None] = _log.warning,
        *,
        required: bool = True,
        command: str = "",
    ) -> None:
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        # MLflow would wait minutes for a lost server at every checkpoint; records are sent again later anyway.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self.uri = tracking_uri(root)
        self._root, self._name, self._warn, self._command = root, name, warn, command
        self._warned = False
        self._resting_until = 0.0
        try:
            _ = self.experiment
        except (*UNAVAILABLE, ImportError, ValueError) as error:
            # The last two: a missing database driver, an invalid address.
            if required or isinstance(error, ImportError | ValueError):
                raise UserError(f"MLflow: {what_is_wrong(error, self.uri)}") from error
            self.failed(error, 0.0)

    @cached_property
    def client(self) -> MlflowClient:
        """The MLflow client."""
        require_answer(self.uri)
        return MlflowClient(tracking_uri=self.uri)

    @cached_property
    def experiment(self) -> str:
        """Id of the experiment, which is created if it does not exist."""
        with one_at_a_time(self.uri):
            existing = self.client.get_experiment_by_name(self._name)
            update_artifact_location(self._root)
            if existing is None:
                where = artifact_location(self._root)
                return str(self.client.create_experiment(self._name, where, tags=_EXPERIMENT_TAGS))
        identity = str(existing.experiment_id)
        if existing.lifecycle_stage != LifecycleStage.ACTIVE:
            again = restore_command(self.uri, "experiment", identity)
            raise GoneError(
                f"the experiment '{self._name}' was deleted in the store; restore it with: {again} - or rename the "
                "experiment's file, so that a new one is made"
            )
        return identity

    @cached_property
    def source_tags(self) -> dict[str, str]:
        """Tags of every run: what started it, who did, and from which commit."""
        return source_tags(self._root, self._command)

    def run(self, name: str, *, folder: Path, parent: Run | str | None = None, run_id: str | None = None) -> Run:
        """Starts a run, nested under `parent`, or continues the one recorded in `folder`.

        Args:
            name: Name of the run.
            folder: The run's folder, which holds its journal.
            parent: The parent run, or its id.
            run_id: The MLflow run of a folder that has no journal.
        """
        return Run(self, Journal(folder, run_id), name, parent)

    def running_children(self, parent: str) -> list[str]:
        """Returns the ids of the nested runs of `parent` marked as running; none if the store does not answer."""
        nested = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}' and attributes.status = 'RUNNING'"
        running: list[str] = []
        token = None
        while not self.resting:
            try:
                page = self.client.search_runs([self.experiment], filter_string=nested, page_token=token)
            except UNAVAILABLE as error:
                self.failed(error, 0.0)
                break
            running += [run.info.run_id for run in page]
            token = page.token
            if not token:
                break
        return running

    def terminate(self, run_id: str, status: str) -> None:
        """Ends a run that has no folder; a store that does not answer costs a warning."""
        try:
            self.client.set_terminated(run_id, status)
        except UNAVAILABLE as error:
            self.failed(error, 0.0)

    @property
    def resting(self) -> bool:
        """Whether the store failed a moment ago and is left alone."""
        return time.monotonic() < self._resting_until

    def failed(self, error: Exception, seconds: float) -> None:
        """Records a failure that took `seconds`; the first one is reported to the user."""
        self._resting_until = time.monotonic() + max(_PAUSE, 10 * seconds)
        if not self._warned:
            self._warned = True
            when = "and are sent later" if is_temporary(error) else "until this is fixed and the run is resumed"
            self._warn(
                f"MLflow: {what_is_wrong(error, self.uri)}; training continues, and its metrics are kept in the run's "
                f"folder {when}"
            )

    def unstored(self, paths: Sequence[Path], error: Exception) -> None:
        """Warns about files of a run that the store rejected while it accepted the rest."""
        files = ", ".join(map(str, paths))
        self._warn(
            f"MLflow: {files}: not stored with the run ({reason(error)}); everything else was sent; the files are "
            "kept, and --resume tries again"
        )

    def refused(self, what: str, error: Exception) -> None:
        """Warns about a record that the store rejects."""
        self._warn(f"MLflow: {self.uri} refuses {what} ({reason(error)}); it is left out there")


class Run:
    """One MLflow run. Records go to its journal at once and are sent by `flush`; failures never stop a training."""

    def __init__(self, store: Store, journal: Journal, name: str, parent: Run | str | None) -> None:
        self._store, self._journal, self._name, self._parent = store, journal, name, parent
        # Whether the run may have been created without saving its id.
        self._doubtful = journal.reopened
        self._confirmed = False
        self._unstored: list[tuple[Record, Exception]] = []
        self._slow = False
        self._to_retry = list(journal.left)
        journal.note({"kind": "status", "status": "RUNNING"})
        self.flush()

    @property
    def id(self) -> str | None:
        """The id of the MLflow run; None if the store has not answered yet."""
        return self._journal.run_id

    @property
    def journal(self) -> Path:
        """The file of the journal."""
        return self._journal.path

    def params(self, values: Mapping[str, Any]) -> None:
        """Logs parameters; nested mappings become dotted keys."""
        entries = list(flattened(values).items())
        for first in range(0, len(entries), _PARAMS):
            self._journal.note({"kind": "params", "values": dict(entries[first : first + _PARAMS])})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Records the metrics of a step, except those already recorded by this or an earlier process.

        Non-finite values are skipped: MLflow would store them as 1.8e308, which ruins its charts.
        """
        self._journal.note_metrics({k: v for k, v in values.items() if math.isfinite(v)}, step, int(time.time() * 1000))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Stores a file or a folder, in its state at the time of sending."""
        self._journal.note({"kind": "artifact", "path": self._journal.portable(path), "folder": folder})

    def tag(self, key: str, value: str) -> None:
        """Sets a tag; a value that is too long for MLflow is cut off."""
        self._journal.note({"kind": "tag", "key": key, "value": value[:LONGEST_TAG]})

    def end(self, status: str = "FINISHED") -> bool:
        """Ends the run and returns whether everything was sent."""
        self._journal.note({"kind": "status", "status": status, "time": int(time.time() * 1000)})
        arrived = self.flush(patient=True)
        if self._unstored:
            paths = [self._journal.located(record["path"]) for record, _ in self._unstored]
            self._store.unstored(list(dict.fromkeys(paths)), self._unstored[0][1])
        return arrived

    def flush(self, *, patient: bool = False) -> bool:
        """Sends unsent records and returns whether all were sent.

        Args:
            patient: Whether to try even if the store failed a moment ago.
        """
        if self._store.resting and not patient:
            return False
        started = time.monotonic()
        try:
            self._send()
        except UNAVAILABLE as error:
            self._doubtful = True
            self._store.failed(error, time.monotonic() - started)
            return False
        self._doubtful = False
        return self._journal.complete

    def confirmed_id(self) -> str:
        """Returns the id of the MLflow run, which is created if it does not exist; there is only one per folder."""
        if not self._confirmed:
            client, journal = self._store.client, self._journal
            if journal.run_id is not None and not self._knows(journal.run_id):
                journal.assign(None)  # removed, or another store is in use: everything is sent again
            if journal.run_id is None:
                experiment = self._store.experiment
                wanted = f"tags.`{_KEY_TAG}` = '{journal.key}'"
                runs = client.search_runs([experiment], wanted) if self._doubtful else []
                journal.assign(runs[0].info.run_id if runs else self._create(experiment), experiment)
            self._confirmed = True
        return str(self._journal.run_id)

    def _create(self, experiment: str) -> str:
        tags = {**self._store.source_tags, _KEY_TAG: self._journal.key}
        if self._parent is not None:
            parent = self._parent if isinstance(self._parent, str) else self._parent.confirmed_id()
            tags[MLFLOW_PARENT_RUN_ID] = parent
        return str(self._store.client.create_run(experiment, run_name=self._name, tags=tags).info.run_id)

    def _knows(self, run_id: str) -> bool:
        """Returns whether the store still has a run."""
        try:
            return bool(self._store.client.get_run(run_id).info.lifecycle_stage == LifecycleStage.ACTIVE)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return False

    def _send(self) -> None:
        # Records that arrived without acknowledgement are sent again; MLflow ignores duplicates.
        run_id = self.confirmed_id()
        self._retry(run_id)
        for chunk, end in self._journal.chunks():
            metrics = [m for record in chunk if record["kind"] == "metrics" for m in metrics_of(record)]
            for first in range(0, len(metrics), _BATCH):
                self._offer(lambda some: self._store.client.log_batch(run_id, metrics=some), metrics[first:][:_BATCH])
            # A final state is in the last chunk, after all metrics.
            for record in chunk:
                self._send_record(run_id, record)
            self._journal.acknowledge(end)

    def _offer(self, send: Callable[[Sequence[_Entry]], object], entries: Sequence[_Entry]) -> None:
        """Sends entries; entries that MLflow rejects permanently are skipped, so that they do not block later ones."""
        try:
            send(entries)
        except MlflowException as error:
            if error.error_code not in _REFUSED:
                raise
            if "must be in the 'active' state" in str(error) and self._journal.run_id is not None:
                again = restore_command(self._store.uri, "run", self._journal.run_id)
                raise GoneError(f"the run '{self._name}' was deleted in the store; restore it with: {again}") from error
            if len(entries) == 1:
                self._store.refused(str(getattr(entries[0], "key", entries[0])), error)
                return
            for entry in entries:
                self._offer(send, [entry])

    def _retry(self, run_id: str) -> None:
        """Stores artifacts that an earlier process could not store, once per process."""
        again, self._to_retry = self._to_retry, []
        if again:
            self._journal.set_aside([])
            for record in again:
                self._store_artifact(run_id, record)

    def _store_artifact(self, run_id: str, record: Record) -> None:
        """Stores a file or a folder; one that cannot be stored is set aside, and does not block later records."""
        path, started = self._journal.located(record["path"]), time.monotonic()
        try:
            if self._slow:
                raise OSError("the artifact store did not answer before")
            if not path.exists():
                raise OSError("the file no longer exists")
            self._store.client.log_artifact(run_id, str(path), record["folder"])
        except storing_errors() as error:
            self._slow = self._slow or time.monotonic() - started > _SLOW
            self._unstored.append((record, error))
            self._journal.set_aside([one for one, _ in self._unstored])

    def _send_record(self, run_id: str, record: Record) -> None:
        client = self._store.client
        match record["kind"]:
            case "params":
                params = [Param(allowed(key), value) for key, value in record["values"].items()]
                self._offer(lambda some: client.log_batch(run_id, params=some), params)
            case "tag":
                key = allowed(record["key"])
                self._offer(lambda some: client.set_tag(run_id, some[0], record["value"]), [key])
            case "artifact":
                self._store_artifact(run_id, record)
            case "status" if record["status"] == "RUNNING":
                client.update_run(run_id, status="RUNNING")
            case "status":
                client.set_terminated(run_id, record["status"], record["time"])


@contextmanager
def ended(run: Run, warn: Callable[[str], None], *stops: type[Exception]) -> Iterator[None]:
    """Context manager that ends a run with the correct final state, also after exceptions.

    Args:
        run: The run.
        warn: Called if metrics could not be sent.
        stops: Exceptions that mean that the user stopped the run, in addition to Ctrl-C.
    """
    status = "FAILED"
    wished: tuple[type[BaseException], ...] = (KeyboardInterrupt, *stops)
    try:
        yield
        status = "FINISHED"
    except wished:
        status = "KILLED"
        raise
    finally:
        if not run.end(status):
            warn(f"MLflow: metrics are still unsent in {run.journal}; send them with --resume")
