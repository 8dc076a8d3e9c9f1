"""A project's own MLflow store: any folder name, moved projects, deleted experiments, lost artifacts."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service import utils as service

from metarestore.errors import UserError
from metarestore.revision import revision
from metarestore.tracking import Run, Store, ended
from metarestore.tracking_records import NORMS
from metarestore.tracking_store import database_file, tracking_uri, ui_address, what_is_wrong

NAMES = ("plain", "50% off", "what?", "a#b", "日本 語", "[x] 'q' \"z\"", "a=b&c;d", "%2F%41", "-dash", "émoji 🐦")


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that is migrated once: that alone takes seconds."""
    file = tmp_path_factory.mktemp("own") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def project(folder: Path, migrated: Path) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(migrated, folder / "mlflow.db")
    return folder


def finished(root: Path, name: str, warnings: list[str], **options: bool) -> Run:
    """Runs something that leaves a file, and ends."""
    place = root / "runs" / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "report.html").write_text("x")
    run = Store(root, "e", warnings.append, **options).run(name, folder=place)
    with ended(run, warnings.append):
        run.artifact(place / "report.html")
        run.metrics({"loss": 1.0}, 1)
    return run


def artifacts(root: Path, run: Run) -> Path:
    uri = MlflowClient(tracking_uri=tracking_uri(root)).get_run(str(run.id)).info.artifact_uri
    return Path(unquote(urlsplit(uri).path))


@pytest.mark.parametrize("name", NAMES)
def test_any_folder_holds_a_store(tmp_path: Path, migrated: Path, name: str) -> None:
    root, warnings = project(tmp_path / name, migrated), list[str]()
    assert database_file(tracking_uri(root)) == root / "mlflow.db"
    run = finished(root, "a", warnings)
    assert warnings == []
    assert artifacts(root, run) == root / "mlartifacts" / str(run.id) / "artifacts"
    assert (artifacts(root, run) / "report.html").is_file()
    assert sqlite3.connect(root / "mlflow.db").execute("SELECT status FROM runs").fetchall() == [("FINISHED",)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize("name", NAMES[:5])
@pytest.mark.parametrize("how", ["moved", "copied"])
def test_artifacts_land_beside_the_store_that_is_used_now(tmp_path: Path, migrated: Path, name: str, how: str) -> None:
    old, new, warnings = project(tmp_path / "old", migrated), tmp_path / name, list[str]()
    first = finished(old, "a", warnings)
    (shutil.move if how == "moved" else shutil.copytree)(str(old), str(new))
    before = sorted(old.glob("**/*"))
    service._artifact_repos_cache.clear()  # of this process; a project is moved between two of them
    again = finished(new, "a", warnings)
    other = finished(new, "b", warnings)
    assert again.id == first.id
    for run in (again, other):
        assert (artifacts(new, run) / "report.html").is_file()
        assert artifacts(new, run).is_relative_to(new)
    assert sorted(old.glob("**/*")) == before
    assert old.exists() == (how == "copied")
    assert warnings == []


def test_a_journal_of_an_earlier_place_still_finds_its_files(tmp_path: Path, migrated: Path) -> None:
    root, warnings = project(tmp_path / "new", migrated), list[str]()
    place = root / "runs/a"
    place.mkdir(parents=True)
    (place / "report.html").write_text("x")
    run = Store(root, "e", warnings.append).run("a", folder=place)
    run._journal.note({"kind": "artifact", "path": "/gone/old/runs/a/report.html", "folder": None})
    assert run.end()
    assert (artifacts(root, run) / "report.html").is_file()


def deleted(root: Path) -> str:
    client = MlflowClient(tracking_uri=tracking_uri(root))
    identity = str(client.get_experiment_by_name("e").experiment_id)
    client.delete_experiment(identity)
    return identity


@pytest.mark.parametrize("name", ["plain", "50% off", "it's"])
def test_a_deleted_experiment_says_how_it_is_restored(tmp_path: Path, migrated: Path, name: str) -> None:
    root, warnings = project(tmp_path / name, migrated), list[str]()
    run = finished(root, "a", warnings)
    identity = deleted(root)
    with pytest.raises(UserError, match="rename the experiment's file") as found:
        finished(root, "b", warnings)
    text = str(found.value)
    assert f"mlflow experiments restore --experiment-id {identity}" in text
    assert len(text.splitlines()) == 1
    # A resumed run goes on, is told the same, and catches up once the experiment is back.
    finished(root, "a", warnings, required=False)
    assert f"mlflow experiments restore --experiment-id {identity}" in warnings[0]
    assert "sent later" not in warnings[0]
    MlflowClient(tracking_uri=tracking_uri(root)).restore_experiment(identity)
    warnings.clear()
    again = finished(root, "a", warnings)
    assert warnings == []
    assert again.id == run.id


def test_a_run_that_is_deleted_meanwhile_is_named_once(tmp_path: Path, migrated: Path) -> None:
    root, warnings = project(tmp_path / "p", migrated), list[str]()
    run = Store(root, "e", warnings.append).run("a", folder=root)
    MlflowClient(tracking_uri=tracking_uri(root)).delete_run(str(run.id))
    run.metrics({"loss": 1.0, "psnr": 2.0}, 1)
    assert not run.end()
    assert len(warnings) == 1
    assert f"mlflow runs restore --run-id {run.id}" in warnings[0]


@pytest.mark.parametrize("fault", ["a file", "not ours", "an error of the client", "missing"])
def test_an_artifact_that_cannot_be_stored_holds_up_nothing(
    tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    root, warnings = project(tmp_path / "p", migrated), list[str]()
    wrong = {"not ours": PermissionError(13, "Permission denied"), "an error of the client": MlflowException("no")}
    with monkeypatch.context() as patch:
        if fault == "a file":
            (root / "mlartifacts").write_text("in the way")
        elif fault in wrong:

            def refuse(*_: object) -> None:
                raise wrong[fault]

            patch.setattr(MlflowClient, "log_artifact", refuse)
        else:
            (root / "runs/a").mkdir(parents=True)
        if fault == "missing":
            run = Store(root, "e", warnings.append).run("a", folder=root / "runs/a")
            run.artifact(root / "runs/a/report.html")
            run.metrics({"loss": 1.0}, 1)
            assert run.end()
            (root / "runs/a/report.html").write_text("x")
        else:
            run = finished(root, "a", warnings)
    client = MlflowClient(tracking_uri=tracking_uri(root))
    assert client.get_run(str(run.id)).info.status == "FINISHED"
    assert client.get_run(str(run.id)).data.metrics == {"loss": 1.0}
    assert len(warnings) == 1
    assert "report.html: not stored with the run" in warnings[0]
    if fault == "a file":
        (root / "mlartifacts").unlink()
    # A later process tries again.
    assert Store(root, "e", warnings.append).run("a", folder=root / "runs/a").end()
    assert (artifacts(root, run) / "report.html").is_file()
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("uri", "error", "expected"),
    [
        (None, "file is not a database", "is not an MLflow database"),
        (None, "unable to open database file", "make the project's folder writable"),
        (None, "database is locked", "locked by another process"),
        ("http://127.0.0.1:9", "Max retries exceeded", "start its server"),
        ("foo://bar", "no such scheme", "correct MLFLOW_TRACKING_URI"),
        (None, "Detected out-of-date database schema", "mlflow db upgrade"),
    ],
)
def test_each_trouble_has_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str | None, error: str, expected: str
) -> None:
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert expected in what_is_wrong(MlflowException(error), tracking_uri(tmp_path))


@pytest.mark.parametrize("kind", ["no database", "no server", "locked"])
def test_the_first_word_comes_within_seconds(
    tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    root = project(tmp_path / "p", migrated)
    holder = sqlite3.connect(root / "mlflow.db", isolation_level=None)
    if kind == "no database":
        (root / "mlflow.db").write_text("no database, but a text that is long enough " * 9)
    elif kind == "locked":
        holder.execute("BEGIN EXCLUSIVE")
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(UserError, match="MLflow: "):
        Store(root, "e")
    assert time.monotonic() - started < 15
    holder.close()


def test_the_address_opens_the_view_of_runs() -> None:
    command, address = ui_address("sqlite:////a b/mlflow.db", "4")
    assert command == "mlflow ui --backend-store-uri 'sqlite:////a b/mlflow.db'"
    assert address == "http://127.0.0.1:5000/#/experiments/4/runs?workflowType=machine_learning"


def test_gradient_norms_come_last_by_name() -> None:
    names = [
        "gain",
        "loss",
        "psnr_y",
        "psnr_y_bicubic",
        "relation/a",
        "share/a",
        "ssim_y",
        "validation_psnr",
        "weight/a",
    ]
    assert sorted([f"{NORMS}/a", *names]) == [*names, f"{NORMS}/a"]


@pytest.mark.parametrize("dirty", [False, True])
def test_the_commit_is_known_and_tagged(tmp_path: Path, migrated: Path, dirty: bool) -> None:
    root = project(tmp_path / "p", migrated)
    (root / "file").write_text("a")
    for command in (
        ["init", "-q"],
        ["add", "file"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    if dirty:
        (root / "file").write_text("b")
    found = revision(tmp_path, root)
    assert found is not None
    assert found.dirty == dirty
    run = finished(root, "a", [])
    tags = MlflowClient(tracking_uri=tracking_uri(root)).get_run(str(run.id)).data.tags
    assert tags["mlflow.source.git.commit"] == found.commit
    assert tags["git.dirty"] == str(dirty).lower()
    assert tags["mlflow.source.type"] == "LOCAL"
    assert revision(tmp_path) is None
