"""What the system or a library raises is one line that says where, what, and what to do; mistakes are found fast."""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from ray.exceptions import ActorUnavailableError, RaySystemError, RayTaskError
from ray.tune.error import TuneError
from sqlalchemy.exc import OperationalError

import metarestore.scaffold
import metarestore.study.run
from metarestore.errors import system_problem

Cli = Callable[..., tuple[int, str, str]]

HEAVY = ("torch", "ray", "mlflow", "sklearn", "pandas", "scipy", "kornia", "optuna", "matplotlib", "skimage")
LIMIT = 2.0
"""Seconds of processor time that a mistake, `check`, `init` and `tasks list` may take."""


def raised(number: int, *paths: str) -> OSError:
    return OSError(number, os.strerror(number), *paths)


ERRORS = {
    "full disk": (raised(errno.ENOSPC, "runs/a"), r"runs/a: No space left on device; make room"),
    "loop": (raised(errno.ELOOP, "a"), r"a: Too many .*; its symbolic links form a loop"),
    "loop, in a path": (RuntimeError("Symlink loop from 'a/b'"), r"Symlink loop from 'a/b'; its symbolic links form"),
    "open files": (raised(errno.EMFILE, "x.png"), r"x.png: Too many open files; raise the limit"),
    "long name": (raised(errno.ENAMETOOLONG, "x" * 300), r"xx: File name too long; choose a shorter"),
    "sockets": (OSError("AF_UNIX path length cannot exceed 107 bytes: /a"), r"cannot exceed 107 .*; set RAY_TMPDIR"),
    "renaming": (OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"), r"a -> b: Invalid cross-device"),
    "memory": (MemoryError(), r"not enough memory; lower training.tasks_per_step"),
    "memory of a GPU": (RuntimeError("CUDA out of memory. Tried\nto allocate"), r"CUDA out of memory. Tried; lower"),
    "threads": (RuntimeError("can't start new thread"), r"can't start new thread; raise the limit on processes"),
    "anything": (RuntimeError("\nfirst\nsecond"), r"RuntimeError: first; for the traceback, .* --debug"),
    "nothing said": (RuntimeError(), r"RuntimeError; for the traceback"),
    "Ray": (RaySystemError("lost its\nhead"), r"RaySystemError: .*lost its; for the traceback"),
    "Ray, of an actor": (ActorUnavailableError("it was killed", None), r"ActorUnavailable.*was killed.*; for the"),
    "Ray Tune": (TuneError("no trial"), r"TuneError: no trial; for the traceback"),
    "MLflow": (MlflowException("no such run"), r"MlflowException: no such run; for the traceback"),
    "SQLAlchemy": (OperationalError("SELECT 1", {}, Exception("database is locked")), r"is locked; end the other"),
    "SQLAlchemy, full disk": (OperationalError("SELECT 1", {}, Exception("database or disk is full")), r"; make room"),
    "a worker": (RayTaskError("work", "", OSError(28, "no room")), r"; for the traceback"),
    "bytes for a path": (OSError(errno.EIO, "Input/output error", b"/d/\xff"), r"/d/.*: Input/output error; for"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_a_system_error_is_one_line_with_a_remedy(
    kind: str, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    error, expected = ERRORS[kind]
    assert re.search(expected, system_problem(error))

    def fails(folder: Path) -> None:
        raise error

    monkeypatch.setattr(metarestore.scaffold, "make_project", fails)
    code, out, err = cli("init", tmp_path / "new")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert re.search(expected, err)
    with pytest.raises(type(error)):
        cli("init", tmp_path / "new", "--debug")


def test_the_traceback_of_a_run_is_in_its_folder(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(experiment: object, root: Path, out: Path, *rest: object, **options: object) -> None:
        out.mkdir(parents=True)
        raise RuntimeError("the library gave up")

    monkeypatch.setattr(metarestore.study.run, "run_study", fails)
    assert cli("init", tmp_path)[0] == 0
    code, _, err = cli("train", tmp_path / "experiments/first.yaml", "--out", tmp_path / "run")
    log = tmp_path / "run" / "error.log"
    assert code == 2
    assert err.splitlines() == [
        "RuntimeError: the library gave up; for the traceback, repeat the command with --debug; "
        f"the traceback is in {log}"
    ]
    assert "Traceback" in log.read_text()
    assert "in fails" in log.read_text()
    assert f"--out {tmp_path / 'run'}" in log.read_text()


@pytest.mark.parametrize("place", ["here", "in a worker"])
def test_mistakes_of_our_own_stay_tracebacks(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    own = KeyError("a fault of the package")
    error = own if place == "here" else RayTaskError("work", "", own)

    def fails(folder: Path) -> None:
        raise error

    monkeypatch.setattr(metarestore.scaffold, "make_project", fails)
    with pytest.raises(type(error)):
        cli("init", tmp_path)


LIGHT = [
    ["check", "tasks", "graphs", "experiments/first.yaml"],
    ["tasks", "list"],
    ["tasks", "operations"],
    ["networks"],
    ["--version"],
    ["--help"],
    ["init", "other"],
    ["schema", "--out", "written"],
]
MISTAKES = [
    ["check"],
    ["check", "nowhere"],
    ["no-such-command"],
    ["init", "."],
    *([command, "nowhere.yaml"] for command in ("train", "compare", "tune", "ablate")),
    *([command, "experiments/lost.yaml"] for command in ("train", "compare", "tune", "ablate")),
    ["train", "experiments/first.yaml", "--set", "training.steps=many"],
    ["train", "experiments/first.yaml", "--set", "data={train: nowhere, test: tasks}"],
    ["train", "experiments/first.yaml", "--resume", "--out", "nowhere"],
    ["train", "experiments/first.yaml", "--resume"],
    ["train", "experiments/first.yaml", "--json", "nowhere/x.json"],
    ["train", "experiments/first.yaml", "--out", "finished"],
    ["ablate", "experiments/first.yaml", "--against", "nobody"],
    ["tune", "experiments/first.yaml", "--set", "search=null"],
    ["restore", "nowhere.png", "--model", "kdsr_tiny_mixed", "--out", "x.png"],
    ["restore", "tasks/night_phone.yaml", "--model", "kdsr_tiny_mixed", "--out", "x.png"],
    ["restore", "nowhere.png", "--model", "nobody", "--out", "x.png"],
    ["evaluate", "--bicubic", "--data", "nowhere"],
    ["evaluate", "--model", "nobody", "--data", "."],
    ["describe", "--model", "nobody", "--task", "jpeg", "--out", "x.json"],
    ["describe", "--model", "kdsr_tiny_mixed", "--images", "nowhere", "--out", "x.json"],
    ["tasks", "preview", "nobody"],
    ["tasks", "sample", "nobody", "--out", "x"],
    ["tasks", "gallery", "nobody", "--out", "x"],
    ["tasks", "fit", "--pairs", "nowhere", "--out", "tasks/x.yaml"],
    ["pairs", "check", "nowhere"],
    ["pairs", "align", "nowhere", "--out", "x"],
    *(["graph", command, "nowhere"] for command in ("show", "explain")),
]

SCRIPT = """
import contextlib, io, sys
from metarestore.cli import main
for line in sys.stdin.read().splitlines():
    sys.argv = ["metarestore", *line.split("\\t")]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    loaded = sorted({name.split(".")[0] for name in sys.modules} & set(%r))
    print(code, loaded, sys.argv[1:], err.getvalue())
    if loaded:
        break
"""


@pytest.fixture
def project(tmp_path: Path, cli: Cli) -> Path:
    assert cli("init", tmp_path)[0] == 0
    first = (tmp_path / "experiments/first.yaml").read_text()
    lost = "graph: {target: nobody, auxiliary: [bicubic], estimator: {kind: uniform}}"
    (tmp_path / "experiments/lost.yaml").write_text(first.replace("graph: night_phone", lost))
    (tmp_path / "finished").mkdir()
    (tmp_path / "finished/run.json").write_text("{}")
    return tmp_path


def test_nothing_light_loads_a_library_that_takes_seconds(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT % (HEAVY,)],
        input="\n".join("\t".join(words) for words in (*LIGHT, *MISTAKES)),
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if re.match(r"\d+ \[", line)]
    assert [line for line in lines if not line.split(" ", 1)[1].startswith("[] ")] == []
    assert [line[0] for line in lines] == ["0"] * len(LIGHT) + ["2"] * len(MISTAKES), done.stdout


@pytest.mark.parametrize(
    "words", [["check", "tasks"], ["tasks", "list"], ["init", "another"], ["train", "nowhere.yaml"], ["--version"]]
)
def test_small_commands_take_less_than_two_seconds_of_processor_time(project: Path, words: list[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "metarestore", *words], cwd=project, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < LIMIT
