"""MLflow: one parent run per experiment, one nested run per arm; the driver is the only writer, in batches.

The store is SQLite in the project's folder unless `MLFLOW_TRACKING_URI` says otherwise. The driver touches it before
any worker exists, and one process at a time, because several that create a new SQLite store at once break it.

Everything is noted in the run's folder first and sent from there. A store that is locked, unreachable or broken
costs a warning, never a training: what waits is sent with a later checkpoint, at the end, or on `--resume`.
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
    bring_artifacts_along,
    is_temporary,
    one_at_a_time,
    reason,
    require_answer,
    restore_command,
    source_tags,
    storing_errors,
    tracking_uri,
    what_is_wrong,
)

__all__ = ["Run", "Store", "ended", "flattened", "tracking_uri"]

_BATCH = 1000
"""Metrics that MLflow takes in one call."""
_PARAMS = 100
"""Parameters that MLflow takes in one call."""
_PAUSE = 30.0
"""Seconds to leave a store alone that did not answer; longer if it took long to fail (a locked SQLite takes 20 s)."""
_KEY_TAG = "metarestore.key"
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""What the pages of MLflow 3 show an experiment as: without it, as one of language models, with nothing in it."""
_SLOW = 5.0
"""Seconds after which a failure to store an artifact is not tried again with the next one of the same run."""
_REFUSED = {ErrorCode.Name(code) for code in (BAD_REQUEST, INVALID_PARAMETER_VALUE, RESOURCE_ALREADY_EXISTS)}
"""What MLflow answers to a record that it will never take."""

_Entry = TypeVar("_Entry")

_log = logging.getLogger(__name__)


class Store:
    """An MLflow experiment in a store.

    Args:
        root: The project's folder.
        name: Name of the experiment.
        warn: Is told, once, that the store does not answer.
        required: Whether the store has to answer now: a new run finds a wrong address before hours of work, while a
            resumed one can wait for its store.
        command: What started this: the source of its runs.

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
        # MLflow would wait for a lost server for minutes at every checkpoint; what waits here is tried again later.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self.uri = tracking_uri(root)
        self._root, self._name, self._warn, self._command = root, name, warn, command
        self._warned = False
        self._resting_until = 0.0
        try:
            _ = self.experiment
        except (*UNAVAILABLE, ImportError, ValueError) as error:
            # The last two: a database without its driver, an address that is none.
            if required or isinstance(error, ImportError | ValueError):
                raise UserError(f"MLflow: {what_is_wrong(error, self.uri)}") from error
            self.failed(error, 0.0)

    @cached_property
    def client(self) -> MlflowClient:
        """The connection."""
        require_answer(self.uri)
        return MlflowClient(tracking_uri=self.uri)

    @cached_property
    def experiment(self) -> str:
        """Id of the experiment, which is made if it does not exist."""
        with one_at_a_time(self.uri):
            found = self.client.get_experiment_by_name(self._name)
            bring_artifacts_along(self._root)
            if found is None:
                where = artifact_location(self._root)
                return str(self.client.create_experiment(self._name, where, tags=_EXPERIMENT_TAGS))
        identity = str(found.experiment_id)
        if found.lifecycle_stage != LifecycleStage.ACTIVE:
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
        """Starts a run, nested under `parent`, or takes up the one that `folder` remembers.

        Args:
            name: Name of the run.
            folder: The run's folder, where it keeps what it has to tell.
            parent: The run that it belongs to, or its id.
            run_id: The MLflow run of a folder that has no journal.
        """
        return Run(self, Journal(folder, run_id), name, parent)

    def running_children(self, parent: str) -> list[str]:
        """Returns the ids of the nested runs of `parent` marked as running; none if the store does not answer."""
        nested = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}' and attributes.status = 'RUNNING'"
        found: list[str] = []
        token = None
        while not self.resting:
            try:
                page = self.client.search_runs([self.experiment], filter_string=nested, page_token=token)
            except UNAVAILABLE as error:
                self.failed(error, 0.0)
                break
            found += [run.info.run_id for run in page]
            token = page.token
            if not token:
                break
        return found

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
        """Takes note of a failure that took `seconds`; the first one is told to the user."""
        self._resting_until = time.monotonic() + max(_PAUSE, 10 * seconds)
        if not self._warned:
            self._warned = True
            when = "and are sent later" if is_temporary(error) else "until that is mended and the run resumed"
            self._warn(
                f"MLflow: {what_is_wrong(error, self.uri)}; training goes on, its figures wait in the run's folder "
                f"{when}"
            )

    def unstored(self, paths: Sequence[Path], error: Exception) -> None:
        """Tells the user which files of a run the store did not take, though it took the rest."""
        files = ", ".join(map(str, paths))
        self._warn(
            f"MLflow: {files}: not stored with the run ({reason(error)}); all else has arrived; the files stay where "
            "they are, and --resume tries again"
        )

    def refused(self, what: str, error: Exception) -> None:
        """Tells the user of a record that the store will not take."""
        self._warn(f"MLflow: {self.uri} refuses {what} ({reason(error)}); it is left out there")


class Run:
    """One MLflow run. What it is told is noted at once and sent by `flush`; nothing here ever stops a training."""

    def __init__(self, store: Store, journal: Journal, name: str, parent: Run | str | None) -> None:
        self._store, self._journal, self._name, self._parent = store, journal, name, parent
        # Whether the run may have been made without its id being noted.
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
        """The file of what was noted."""
        return self._journal.path

    def params(self, values: Mapping[str, Any]) -> None:
        """Logs parameters; nested mappings become dotted keys."""
        entries = list(flattened(values).items())
        for first in range(0, len(entries), _PARAMS):
            self._journal.note({"kind": "params", "values": dict(entries[first : first + _PARAMS])})

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Notes metrics of a step; one that was noted before, by this or an earlier process, is not noted again.

        What is not finite is left out: MLflow would keep it as 1.8e308, which ruins its charts.
        """
        self._journal.note_metrics({k: v for k, v in values.items() if math.isfinite(v)}, step, int(time.time() * 1000))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Stores a file or a folder, as it is when it is sent."""
        self._journal.note({"kind": "artifact", "path": self._journal.portable(path), "folder": folder})

    def tag(self, key: str, value: str) -> None:
        """Sets a tag; a value that is too long for MLflow is cut off."""
        self._journal.note({"kind": "tag", "key": key, "value": value[:LONGEST_TAG]})

    def end(self, status: str = "FINISHED") -> bool:
        """Ends the run and returns whether everything has arrived."""
        self._journal.note({"kind": "status", "status": status, "time": int(time.time() * 1000)})
        arrived = self.flush(patient=True)
        if self._unstored:
            paths = [self._journal.located(record["path"]) for record, _ in self._unstored]
            self._store.unstored(list(dict.fromkeys(paths)), self._unstored[0][1])
        return arrived

    def flush(self, *, patient: bool = False) -> bool:
        """Sends what is noted and returns whether all of it arrived.

        Args:
            patient: Whether to try even a store that failed a moment ago.
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
        """Returns the id of the MLflow run, which is made if it does not exist: never two of them for one folder."""
        if not self._confirmed:
            client, journal = self._store.client, self._journal
            if journal.run_id is not None and not self._knows(journal.run_id):
                journal.assign(None)  # removed, or another store is in use: everything is told again
            if journal.run_id is None:
                experiment = self._store.experiment
                wanted = f"tags.`{_KEY_TAG}` = '{journal.key}'"
                found = client.search_runs([experiment], wanted) if self._doubtful else []
                journal.assign(found[0].info.run_id if found else self._create(experiment), experiment)
            self._confirmed = True
        return str(self._journal.run_id)

    def _create(self, experiment: str) -> str:
        tags = {**self._store.source_tags, _KEY_TAG: self._journal.key}
        if self._parent is not None:
            parent = self._parent if isinstance(self._parent, str) else self._parent.confirmed_id()
            tags[MLFLOW_PARENT_RUN_ID] = parent
        return str(self._store.client.create_run(experiment, run_name=self._name, tags=tags).info.run_id)

    def _knows(self, run_id: str) -> bool:
        """Tells whether the store still has a run."""
        try:
            return bool(self._store.client.get_run(run_id).info.lifecycle_stage == LifecycleStage.ACTIVE)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return False

    def _send(self) -> None:
        # What arrived without being noted as sent is sent again: MLflow keeps a record that it has as it is.
        run_id = self.confirmed_id()
        self._retry(run_id)
        for chunk, end in self._journal.chunks():
            metrics = [m for record in chunk if record["kind"] == "metrics" for m in metrics_of(record)]
            for first in range(0, len(metrics), _BATCH):
                self._offer(lambda some: self._store.client.log_batch(run_id, metrics=some), metrics[first:][:_BATCH])
            # A final state is in the last chunk, behind all metrics.
            for record in chunk:
                self._send_record(run_id, record)
            self._journal.acknowledge(end)

    def _offer(self, send: Callable[[Sequence[_Entry]], object], entries: Sequence[_Entry]) -> None:
        """Sends entries; one that is refused for good is left out, or nothing behind it would ever arrive."""
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
        """Stores, once in the life of a process, what an earlier one could not."""
        again, self._to_retry = self._to_retry, []
        if again:
            self._journal.set_aside([])
            for record in again:
                self._store_artifact(run_id, record)

    def _store_artifact(self, run_id: str, record: Record) -> None:
        """Stores a file or a folder; one that cannot be stored is set aside, and holds up nothing behind it."""
        path, started = self._journal.located(record["path"]), time.monotonic()
        try:
            if self._slow:
                raise OSError("the place of artifacts did not answer before")
            if not path.exists():
                raise OSError("there is no such file any more")
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
    """Gives a run its right final state, however what is done within ends.

    Args:
        run: The run.
        warn: Is told if figures could not be sent.
        stops: Exceptions by which the user's wish to stop arrives, besides Ctrl-C itself.
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
            warn(f"MLflow: figures still wait in {run.journal}; send them with --resume")
