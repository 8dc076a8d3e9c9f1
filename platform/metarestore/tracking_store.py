"""The MLflow store: its address, availability checks, error messages, and artifact location."""

from __future__ import annotations

import errno
import getpass
import os
import re
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import requests
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE, MLFLOW_USER
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from metarestore.revision import revision

UNAVAILABLE = (MlflowException, SQLAlchemyError, OSError)
"""Errors raised by MLflow if its database is locked or missing, its server is down, or artifacts cannot be written."""

_ARTIFACTS = "mlartifacts"
_PATIENCE = 5
"""Timeout of the first connection to a store, in seconds."""
_CONNECTION = {
    "sqlite": {"timeout": _PATIENCE},
    "postgresql": {"connect_timeout": _PATIENCE},
    "mysql": {"connect_timeout": _PATIENCE},
}
"""Arguments of database drivers for the timeout."""
_PORT = "http://127.0.0.1:5000"
"""Default address of `mlflow ui`."""


class GoneError(MlflowException):
    """Something was deleted in the store: waiting does not help; the message contains the remedy."""


def tracking_uri(root: Path) -> str:
    """Returns the address of the store: `MLFLOW_TRACKING_URI`, else `mlflow.db` in the project's folder.

    >>> tracking_uri(Path("/data/photos")), tracking_uri(Path("/data/50% off?"))
    ('sqlite:////data/photos/mlflow.db', 'sqlite+pysqlite:////data/50%25 off%3F/mlflow.db')
    """
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return given
    path = str(root.absolute() / "mlflow.db")
    uri = URL.create("sqlite", database=path).render_as_string(hide_password=False)
    # MLflow makes the folder of the path as it is quoted, beside the true one, unless the driver is named.
    return uri if uri == f"sqlite:///{path}" else uri.replace("sqlite:", "sqlite+pysqlite:", 1)


def shown(uri: str) -> str:
    """Returns an address with its password masked."""
    return re.sub(r"://([^/@:]*):[^/@]*@", r"://\1:***@", uri)


def database_file(uri: str) -> Path | None:
    """Returns the file of a SQLite store; None for other stores."""
    try:
        url = make_url(uri)
    except ArgumentError:
        return None
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def one_at_a_time(uri: str) -> AbstractContextManager[object]:
    """Locks a SQLite store against other metarestore processes while it may be created."""
    file = database_file(uri)
    return FileLock(f"{file}.lock") if file is not None else nullcontext()


def require_answer(uri: str) -> None:
    """Checks within seconds that a store answers; MLflow itself would retry a database for minutes.

    Raises:
        OSError, SQLAlchemyError, ImportError: The store does not answer, or its driver is missing.
    """
    if uri.startswith(("http://", "https://")):
        # Any answer is sufficient: not every server has this page.
        requests.get(f"{uri.rstrip('/')}/health", timeout=_PATIENCE)
        return
    try:
        backend = make_url(uri).get_backend_name()
    except ArgumentError:
        return  # a folder, or a service supported by MLflow
    file = database_file(uri)
    if backend not in _CONNECTION or (file is not None and not file.exists()):
        return
    engine = create_engine(uri, connect_args=_CONNECTION[backend])
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT count(*) FROM sqlite_master" if file else "SELECT 1"))
    finally:
        engine.dispose()


def artifact_location(root: Path) -> str | None:
    """Returns the artifact location of the project's store; None if `MLFLOW_TRACKING_URI` sets another store."""
    return None if os.environ.get("MLFLOW_TRACKING_URI") else (root.resolve() / _ARTIFACTS).as_uri()


def update_artifact_location(root: Path) -> None:
    """Updates the artifact locations in the store of a project that was moved or copied.

    MLflow stores absolute locations of experiments and runs; the artifacts of a project's store are beside it.
    """
    here = artifact_location(root)
    if here is None:
        return
    engine = create_engine(tracking_uri(root))
    try:
        with engine.connect() as connection:
            locations = connection.execute(text("SELECT DISTINCT artifact_location FROM experiments")).scalars()
            moved = [there for there in locations if there and there != here and there.endswith(f"/{_ARTIFACTS}")]
        if moved:
            with engine.begin() as connection:
                for there in moved:
                    for statement in _MOVES:
                        connection.execute(text(statement), {"here": here, "there": there})
    finally:
        engine.dispose()


_MOVES = (
    "UPDATE runs SET artifact_uri = :here || substr(artifact_uri, length(:there) + 1) "
    "WHERE substr(artifact_uri, 1, length(:there) + 1) = :there || '/'",
    "UPDATE experiments SET artifact_location = :here WHERE artifact_location = :there",
)


def source_tags(root: Path, command: str) -> dict[str, str]:
    """Returns the tags of every run: command, user and commit."""
    tags = {MLFLOW_SOURCE_NAME: command or "metarestore", MLFLOW_SOURCE_TYPE: "LOCAL"}
    with suppress(OSError, KeyError):  # a user without a name, as in some containers
        tags[MLFLOW_USER] = getpass.getuser()
    current = revision(root, Path.cwd())
    if current is not None:
        tags |= {MLFLOW_GIT_COMMIT: current.commit, "git.dirty": str(current.dirty).lower()}
    return tags


def restore_command(uri: str, what: str, identity: str) -> str:
    """Returns the command that restores a deleted experiment or run.

    >>> restore_command("sqlite:///a b.db", "experiment", "3")
    "MLFLOW_TRACKING_URI='sqlite:///a b.db' mlflow experiments restore --experiment-id 3"
    """
    return f"MLFLOW_TRACKING_URI={shlex.quote(uri)} mlflow {what}s restore --{what}-id {shlex.quote(identity)}"


def storing_errors() -> tuple[type[Exception], ...]:
    """Returns the errors that storing an artifact may raise, including those of the S3 client if it is in use."""
    errors: list[type[Exception]] = [*UNAVAILABLE, ImportError, ValueError]
    for module, name in (("botocore.exceptions", "BotoCoreError"), ("boto3.exceptions", "Boto3Error")):
        if module in sys.modules:
            errors.append(getattr(sys.modules[module], name))
    return tuple(errors)


def reason(error: Exception) -> str:
    """Returns the first line of an error."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def is_temporary(error: Exception) -> bool:
    """Returns whether a store may answer later without intervention: it is locked, unreachable, or full."""
    message = str(error).lower()
    if any(word in message for word in ("locked", "max retries exceeded", "failed with exception", "timed out")):
        return True
    if isinstance(error, requests.RequestException):
        return isinstance(error, requests.ConnectionError | requests.Timeout)
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH}
    return "connection" in message or "could not translate host name" in message


def what_is_wrong(error: Exception, uri: str) -> str:
    """Returns a short description of the problem of a store and its remedy."""
    if isinstance(error, GoneError):
        return str(error)
    address, why, message = shown(uri), reason(error), str(error).lower()
    if "locked" in message:
        return f"{address} is locked by another process ({why}); end that process, or wait for it"
    if "out-of-date database schema" in message or "can't locate revision" in message:
        return f"{address} was written by another version of MLflow ({why}); run: mlflow db upgrade {shlex.quote(uri)}"
    if "not a database" in message or "malformed" in message:
        file = database_file(uri) or address
        return f"{address} is not an MLflow database ({why}); move {file} away, or restore a copy of it"
    return f"no store answers at {address} ({why}); {_remedy(error)}"


def _remedy(error: Exception) -> str:
    if is_temporary(error):
        return "start its server, or wait for it"
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return "make the project's folder writable, or set MLFLOW_TRACKING_URI"
    return "correct MLFLOW_TRACKING_URI, or unset it to use mlflow.db in the project"


def ui_address(uri: str, experiment: str | None) -> tuple[str | None, str]:
    """Returns the command that starts the MLflow UI (None if a server provides it) and its address.

    The address selects the view: by default, MLflow 3 opens an empty one for language models.

    >>> ui_address("http://tracking:80", "2")
    (None, 'http://tracking:80/#/experiments/2/runs?workflowType=machine_learning')
    """
    served = uri.startswith(("http://", "https://"))
    page = f"/#/experiments/{experiment}/runs" if experiment else "/#/experiments"
    command = None if served else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
    return command, f"{uri.rstrip('/') if served else _PORT}{page}?workflowType=machine_learning"
