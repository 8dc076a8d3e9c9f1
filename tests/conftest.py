"""Small studies on the embedded photographs, and a MLflow store that is migrated once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metarestore.config.experiment import Experiment
from metarestore.testing import study
from metarestore.workspace.process import prepare_process
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    prepare_process()


@pytest.fixture(scope="session", autouse=True)
def _image_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    import os

    os.environ.setdefault("METARESTORE_CACHE", str(tmp_path_factory.mktemp("images")))


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs the command line in this process; returns exit code, stdout and stderr."""
    from metarestore.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["metarestore", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def small_experiment() -> Callable[..., Experiment]:
    """Builds a small experiment; sections given as keywords change it."""
    return study.small_experiment


@pytest.fixture
def small_study() -> Callable[..., Study]:
    """Builds a small study of the catalogue's distributions."""
    return lambda **changes: study.small_study(REPOSITORY, **changes)


@pytest.fixture
def workspace(small_study: Callable[..., Study]) -> Workspace:
    """A small study, opened."""
    return Workspace(small_study())


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SQLite store that is migrated once for all tests: that alone takes seconds."""
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    MlflowClient(tracking_uri=uri).search_experiments()
    return uri
