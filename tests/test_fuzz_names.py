"""Projects, tasks and photographs of any name: no traceback, nothing outside the project, right names in all output."""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pytest
from sqlalchemy.engine import make_url

from metarestore.config import schema
from metarestore.project import Project, read_experiment, resolve
from metarestore.tasks.images import read_image, write_image
from metarestore.tracking import tracking_uri

Cli = Callable[..., tuple[int, str, str]]

PARTS = [
    *("a", "Z", "7", "_", ".", " ", "  ", "'", '"', "%", "%20", "%s", "?", "#", "[", "]", "[b]", "[red]", "[a-z]"),
    *(
        "夜",
        "景",
        "カメラ",
        "한국어",
        "🎉",
        "👩‍🔬",
        "é",
        "e\u0301",
        "Ж",
        "-",
        "--help",
        "&",
        ";",
        "$HOME",
        "`id`",
        "\\",
    ),
    *("\\", "{0}", "{name}", "(", ")", "*", "~", "!", "=", ",", ":", "|", "<b>", "@", "+", "^", "\u00a0", "\u3000"),
]
LONGEST = 200
"""Bytes of a name; file systems take 255, and endings and the names of temporary files need some."""


def random_names(count: int, seed: int = 0) -> list[str]:
    """Draws names of 1 to 200 bytes, none twice, none that file systems give a meaning."""
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        name = "-" if rng.random() < 0.1 else ""
        wanted = rng.choice([1, 5, 20, 60, LONGEST])
        while len((name + (part := rng.choice(PARTS))).encode()) <= wanted:
            name += part
        if name.strip(".") and name.casefold() not in {each.casefold() for each in found}:
            found[name] = None
    return list(found)


NAMES = random_names(200)
EIGHT = [
    "two  words",
    'it\'s "quoted" `id` $HOME',
    "50%25 off%s",
    "what? #1&x=y",
    "bird[final][b]",
    "夜景 カメラ 🎉",
    "-rf --help",
    ("夜[x]%?# " * 40).encode()[: LONGEST - 2].decode(errors="ignore") + "é",
]

EXPERIMENT = """\
seed: 0
graph: {{target: {name}, auxiliary: [{name} too, bicubic], estimator: {{kind: uniform}}}}
model: {{kind: fsrcnn, channels: y, d: 8, s: 4, m: 1}}
learner: {{kind: pretrain}}
training: {{steps: 2, tasks_per_step: 2, shard_size: 2, patch: 32}}
adaptation: {{shots: 1, shot_size: 32, steps: 1}}
evaluation: {{crop: 32, crops: 1}}
engine: {{kind: local}}
"""


def test_the_names_are_hostile_enough() -> None:
    joined = "".join(NAMES)
    assert all(part in joined for part in ("'", '"', "%", "?", "#", "[b]", "夜", "🎉", "$HOME", " "))
    assert sum(name.startswith("-") for name in NAMES) >= 10
    assert max(len(name.encode()) for name in (*NAMES, *EIGHT)) > 190
    assert max(len(name.encode()) for name in (*NAMES, *EIGHT)) <= LONGEST


def test_two_hundred_projects_are_made_and_checked(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(schema, "json_schema", cache(schema.json_schema))  # takes 0.2 s, and names have no part in it
    for number, name in enumerate(NAMES):
        code, out, err = cli("init", "--", name)
        assert (code, err) == (0, ""), (name, err)
        lines = out.splitlines()
        assert lines[0] == f"{name}/tasks/night_phone.yaml"
        assert Path(shlex.split(lines[-1])[-1]) == Path(name) / "experiments" / "first.yaml"
        assert cli("check", "--", name) == (0, "all 3 files are valid\n", ""), name
        root = tmp_path / name
        assert make_url(tracking_uri(root)).database == str(root / "mlflow.db")
        if number % 8:
            continue
        (root / "experiments" / "first.yaml").write_text("sede: 0")
        code, out, err = cli("check", "--", f"{name}/experiments/first.yaml")
        assert (code, out) == (2, "")
        assert all(line.startswith(f"{name}/experiments/first.yaml:1:1: ") for line in err.splitlines()), err
    assert sorted(os.listdir(tmp_path)) == sorted(NAMES)


def test_a_task_of_any_name_is_found(tmp_path: Path) -> None:
    """As a target and among others; a name with brackets or a star is itself before it is a pattern."""
    task = (Project(tmp_path).path("tasks", "bicubic")).read_text()
    (tmp_path / "tasks").mkdir()
    (tmp_path / "experiments").mkdir()
    for name in NAMES:
        (tmp_path / "tasks" / f"{name}.yaml").write_text(task)
    for first, second in zip(NAMES[::8], NAMES[1::8], strict=True):
        path = tmp_path / "experiments" / f"{first}.yaml"
        graph = {"target": first, "auxiliary": [second], "estimator": {"kind": "uniform"}}
        path.write_text(json.dumps({"graph": graph, "learner": {"kind": "pretrain"}}, ensure_ascii=False))
        study = resolve(read_experiment(path), tmp_path)
        assert list(study.auxiliary) == [second]


SERVER = """
import json, os, sys, traceback
import torch._dynamo, metarestore.study.run, metarestore.evaluation.folder, metarestore.evaluation.protocol
import metarestore.descriptors.file
from metarestore.cli import main

print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(job["folder"])
        for number, name, path in ((1, "stdout", job["out"]), (2, "stderr", job["err"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            setattr(sys, name, os.fdopen(os.dup(number), "w", encoding="utf-8"))
        sys.argv = ["metarestore", *job["words"]]
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Shell:
    """Runs commands in processes of their own, forked from one that has imported what takes seconds."""

    def __init__(self, place: Path) -> None:
        self.work, self._place = place / "work", place
        for folder in ("work", "home", "temporary"):
            (place / folder).mkdir()
        variables = {"HOME": place / "home", "TMPDIR": place / "temporary"}
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            env=environment | {key: str(value) for key, value in variables.items()} | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._output.readline() == "ready\n"

    @property
    def _output(self) -> IO[str]:
        assert self._server.stdout is not None
        return self._server.stdout

    def __call__(self, *words: object) -> Done:
        out, err = self._place / "stdout", self._place / "stderr"
        job = {"words": [str(word) for word in words], "folder": str(self.work), "out": str(out), "err": str(err)}
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        code = int(self._output.readline())
        return Done(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))

    def close(self) -> None:
        """Ends the process that is forked from."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(60)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    shell = Shell(tmp_path_factory.mktemp("shell"))
    yield shell
    shell.close()


def values(out: str) -> dict[str, str]:
    """Returns the closing lines of a command, `Report: ...`, by their first word."""
    return {key: value.strip() for key, found, value in (line.partition(":") for line in out.splitlines()) if found}


@pytest.mark.parametrize("name", EIGHT)
def test_a_study_of_any_name_from_the_command_line(name: str, shell: Shell, mlflow_store: str) -> None:
    """Project, experiment, task, run and photographs have the name."""
    before = {path.name for path in shell.work.iterdir()}
    root, run = Path(name), Path(name) / "runs" / name
    done = shell("init", "--", name)
    assert done == (0, done.out, "")
    task = (shell.work / root / "tasks" / "night_phone.yaml").read_text()
    for file in (name, f"{name} too"[:LONGEST]):
        (shell.work / root / "tasks" / f"{file}.yaml").write_text(task)
    quoted = json.dumps(name, ensure_ascii=False)
    text = EXPERIMENT.format(name="NAME").replace("NAME too", json.dumps(f"{name} too", ensure_ascii=False))
    experiment = root / "experiments" / f"{name}.yaml"
    (shell.work / experiment).write_text(text.replace("NAME", quoted))
    # A store that is migrated already saves seconds; the address, which is what a name could break, is the project's.
    (shell.work / root / "mlflow.db").write_bytes(Path(str(make_url(mlflow_store).database)).read_bytes())
    assert shell("check", "--", name) == (0, "all 6 files are valid\n", "")

    for resume in ([], ["--resume"]):
        done = shell("train", "--out", run, *resume, "--", experiment)
        assert done.code == 0, done.err
        assert "Traceback" not in done.err
        closing = values(done.out)
        assert done.out.startswith(f"{name}: 1 model, ")
        assert (closing["Report"], closing["Everything"]) == (str(run / "report.html"), str(run))
        command, _, page = closing["Tracking"].rpartition(", then open ")
        address = shlex.split(command)[-1]
        assert page.endswith("?workflowType=machine_learning")
        assert make_url(address).database == str(shell.work / root / "mlflow.db")
        assert (shell.work / run / "report.html").is_file()

    photos = root / "photos"
    (shell.work / photos).mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    write_image(shell.work / photos / f"{name}.png", pixels)
    done = shell("evaluate", "--model", run, "--data", photos)
    assert (done.code, done.err) == (0, ""), done.err
    assert f"\n{name} " in done.out
    assert done.out.startswith(f"Network: the adapted network of {run}\n")
    restored = root / f"{name}.png"
    done = shell("restore", "--model", run, "--out", restored, "--keep-colours", "--", photos / f"{name}.png")
    assert (done.code, done.err) == (0, ""), done.err
    assert str(restored) in done.out
    assert read_image(shell.work / restored).pixels.shape == (128, 128, 3)

    assert {path.name for path in shell.work.iterdir()} == before | {name}
    assert not [path for path in (shell.work.parent / "home").rglob("*") if name in path.name]
    assert {path.name for path in (shell.work / root).iterdir()} >= {"mlartifacts", "mlflow.db", "runs"}
