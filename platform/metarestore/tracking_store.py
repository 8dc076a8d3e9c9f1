"""MLflow's store: its address, whether it answers, why it does not, and where its artifacts lie."""

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
"""What MLflow raises when its database is locked or gone, its server is down, or its artifacts cannot be written."""

_ARTIFACTS = "mlartifacts"
_PATIENCE = 5
"""Seconds that a store may take to answer at first."""
_CONNECTION = {
    "sqlite": {"timeout": _PATIENCE},
    "postgresql": {"connect_timeout": _PATIENCE},
    "mysql": {"connect_timeout": _PATIENCE},
}
"""How drivers of databases take the seconds."""
_PORT = "http://127.0.0.1:5000"
"""Where `mlflow ui` listens unless it is asked to listen elsewhere."""


class GoneError(MlflowException):
    """Something was deleted in the store: waiting does not help, and its message says what does."""


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
    """Returns an address without the password in it."""
    return re.sub(r"://([^/@:]*):[^/@]*@", r"://\1:***@", uri)


def database_file(uri: str) -> Path | None:
    """Returns the file of a SQLite store; None for other stores."""
    try:
        url = make_url(uri)
    except ArgumentError:
        return None
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def one_at_a_time(uri: str) -> AbstractContextManager[object]:
    """Locks a SQLite store against other processes of ours while it may be created."""
    file = database_file(uri)
    return FileLock(f"{file}.lock") if file is not None else nullcontext()


def require_answer(uri: str) -> None:
    """Makes sure within seconds that a store answers; MLflow itself tries a database for minutes before it gives up.

    Raises:
        OSError, SQLAlchemyError, ImportError: It does not answer, or its driver is missing.
    """
    if uri.startswith(("http://", "https://")):
        # Any answer will do: not every server has this page.
        requests.get(f"{uri.rstrip('/')}/health", timeout=_PATIENCE)
        return
    try:
        backend = make_url(uri).get_backend_name()
    except ArgumentError:
        return  # a folder, or a service that MLflow knows
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
    """Returns where the artifacts of a project's own store lie; None where `MLFLOW_TRACKING_URI` names another."""
    return None if os.environ.get("MLFLOW_TRACKING_URI") else (root.resolve() / _ARTIFACTS).as_uri()


def bring_artifacts_along(root: Path) -> None:
    """Corrects the addresses of artifacts in the store of a project that was moved or copied.

    MLflow keeps absolute addresses, of experiments and of runs; those of a project's own store lie beside it.
    """
    here = artifact_location(root)
    if here is None:
        return
    engine = create_engine(tracking_uri(root))
    try:
        with engine.connect() as connection:
            found = connection.execute(text("SELECT DISTINCT artifact_location FROM experiments")).scalars()
            moved = [there for there in found if there and there != here and there.endswith(f"/{_ARTIFACTS}")]
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
    """Returns the tags of every run: what started it, who did, and from which commit."""
    tags = {MLFLOW_SOURCE_NAME: command or "metarestore", MLFLOW_SOURCE_TYPE: "LOCAL"}
    with suppress(OSError, KeyError):  # a user without a name, as in some containers
        tags[MLFLOW_USER] = getpass.getuser()
    found = revision(root, Path.cwd())
    if found is not None:
        tags |= {MLFLOW_GIT_COMMIT: found.commit, "git.dirty": str(found.dirty).lower()}
    return tags


def restore_command(uri: str, what: str, identity: str) -> str:
    """Returns the command that restores a deleted experiment or run.

    >>> restore_command("sqlite:///a b.db", "experiment", "3")
    "MLFLOW_TRACKING_URI='sqlite:///a b.db' mlflow experiments restore --experiment-id 3"
    """
    return f"MLFLOW_TRACKING_URI={shlex.quote(uri)} mlflow {what}s restore --{what}-id {shlex.quote(identity)}"


def storing_errors() -> tuple[type[Exception], ...]:
    """Returns what storing an artifact may raise, with what the client of S3 raises where that is in use."""
    found: list[type[Exception]] = [*UNAVAILABLE, ImportError, ValueError]
    for module, name in (("botocore.exceptions", "BotoCoreError"), ("boto3.exceptions", "Boto3Error")):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def reason(error: Exception) -> str:
    """Returns the first line of an error."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def is_temporary(error: Exception) -> bool:
    """Tells whether a store may answer later without anybody's doing anything: it is locked, unreachable, or full."""
    said = str(error).lower()
    if any(word in said for word in ("locked", "max retries exceeded", "failed with exception", "timed out")):
        return True
    if isinstance(error, requests.RequestException):
        return isinstance(error, requests.ConnectionError | requests.Timeout)
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH}
    return "connection" in said or "could not translate host name" in said


def what_is_wrong(error: Exception, uri: str) -> str:
    """Says in a few words what a store lacks, and what to do: wait, or mend what waiting does not."""
    if isinstance(error, GoneError):
        return str(error)
    address, why, said = shown(uri), reason(error), str(error).lower()
    if "locked" in said:
        return f"{address} is locked by another process ({why}); end that process, or wait for it"
    if "out-of-date database schema" in said or "can't locate revision" in said:
        return f"{address} was written by another version of MLflow ({why}); run: mlflow db upgrade {shlex.quote(uri)}"
    if "not a database" in said or "malformed" in said:
        file = database_file(uri) or address
        return f"{address} is no MLflow database ({why}); move {file} away, or restore it from a copy"
    return f"no store answers at {address} ({why}); {_remedy(error)}"


def _remedy(error: Exception) -> str:
    if is_temporary(error):
        return "start its server, or wait for it"
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return "make the project's folder writable, or set MLFLOW_TRACKING_URI"
    return "correct MLFLOW_TRACKING_URI, or unset it to use mlflow.db in the project"


def ui_address(uri: str, experiment: str | None) -> tuple[str | None, str]:
    """Returns the command that starts MLflow's pages, None where a server shows them, and their address.

    The address names the view: without it, the pages of MLflow 3 open on one for language models, which is empty.

    >>> ui_address("http://tracking:80", "2")
    (None, 'http://tracking:80/#/experiments/2/runs?workflowType=machine_learning')
    """
    served = uri.startswith(("http://", "https://"))
    page = f"/#/experiments/{experiment}/runs" if experiment else "/#/experiments"
    command = None if served else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
    return command, f"{uri.rstrip('/') if served else _PORT}{page}?workflowType=machine_learning"
