"""A package outside of the project adds one part of each sort; it is installed for these tests alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import metarestore

PACKAGE = Path(__file__).parent / "package"
REPOSITORY = Path(__file__).parents[2]

TASK = "kind: steady\nscale: 4\npipeline:\n  - {op: toy_falloff, strength: [0.2, 0.5]}\n  - {op: downsample}\n"
EXPERIMENT = """\
seed: 0
graph:
  target: corners
  auxiliary: [bicubic, noise_gaussian]
  estimator: {kind: toy_brightness, draws: 2}
model: {kind: toy_linear, radius: 1}
learner: {kind: toy_query, weight: 2}
training: {steps: 2, tasks_per_step: 2, shard_size: 1, support: 1, query: 1, patch: 32}
adaptation: {shots: 2, shot_size: 64, steps: 1}
evaluation: {crop: 64, crops: 1}
engine: {kind: local}
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the path of Python into which the package is installed, without a network."""
    source, site = (tmp_path_factory.mktemp(name) for name in ("source", "site"))
    shutil.copytree(PACKAGE, source, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", site, source], check=True)
    return site


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose files name the parts of the package."""
    for folder in ("tasks", "experiments"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tasks/corners.yaml").write_text(TASK)
    (tmp_path / "experiments/toy.yaml").write_text(EXPERIMENT)
    return tmp_path


@pytest.fixture
def python(site: Path, project: Path) -> Run:
    """Runs Python in the project, with the package installed or without it."""

    def run(*arguments: object, installed: bool = True) -> subprocess.CompletedProcess[str]:
        path = [str(Path(metarestore.__file__).parents[1]), *([str(site)] if installed else [])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def command(python: Run) -> Run:
    """Runs a command of metarestore."""
    return lambda *arguments, **options: python("-m", "metarestore", *arguments, **options)


def test_its_parts_are_checked_and_shown_as_those_of_metarestore(command: Run, project: Path) -> None:
    done = command("check")
    assert done.returncode == 0, done.stderr
    done = command("tasks", "preview", "corners", "--out", "sheet.png")
    assert done.returncode == 0, done.stderr
    assert (project / "sheet.png").stat().st_size > 0


def test_mistakes_in_its_parts_are_located(command: Run, project: Path) -> None:
    (project / "tasks/corners.yaml").write_text(TASK.replace("toy_falloff", "toy_fallof"))
    wrong = EXPERIMENT.replace("toy_linear", "toy_liner").replace("toy_query, weight: 2", "toy_query, weight: 0")
    (project / "experiments/toy.yaml").write_text(wrong.replace("toy_brightness, draws", "toy_brightness, drwas"))
    done = command("check")
    assert done.returncode == 2
    for line in (
        "tasks/corners.yaml:4:5: pipeline[0]: unknown operation 'toy_fallof'; did you mean 'toy_falloff'?",
        "experiments/toy.yaml:5:37: graph.estimator: unknown key 'drwas'; did you mean 'draws'?",
        "experiments/toy.yaml:6:8: model: unknown kind 'toy_liner'; did you mean 'toy_linear'?",
        "experiments/toy.yaml:7:36: learner.weight: must be above 0, got 0",
    ):
        assert line in done.stderr
    (project / "experiments/toy.yaml").write_text(EXPERIMENT)
    (project / "tasks/corners.yaml").write_text(TASK)
    done = command("train", "experiments/toy.yaml", "--set", "learner.weigth=3")
    assert "--set learner.weigth=3: learner: unknown key 'weigth'; did you mean 'weight'?" in done.stderr


def test_without_the_package_its_names_are_unknown(command: Run) -> None:
    done = command("check", installed=False)
    assert done.returncode == 2
    for problem in ("unknown kind 'steady'", "unknown kind 'toy_linear'", "unknown kind 'toy_query'"):
        assert problem in done.stderr


def test_schemas_have_its_parts_where_it_is_installed(command: Run, project: Path) -> None:
    assert command("schema").returncode == 0
    written = {name: (project / f"schemas/{name}.json").read_text() for name in ("task", "graph", "experiment")}
    shipped = {name: (REPOSITORY / f"schemas/{name}.json").read_text() for name in written}
    parts = {
        "task": ("toy_falloff", "steady"),
        "graph": ("toy_brightness",),
        "experiment": ("toy_linear", "toy_query", "toy_brightness"),
    }
    for name, names in parts.items():
        assert all(f'"{part}"' in written[name] for part in names)
        assert not any(part in shipped[name] for part in names)
    described = json.loads(written["experiment"])["$defs"]["LinearSpec"]["properties"]["radius"]["description"]
    assert described == "Radius of the kernel, in LR pixels."


@pytest.mark.xdist_group("ray")
def test_training_uses_its_parts_here_and_on_workers(command: Run, project: Path) -> None:
    for out, engine in (("local", ()), ("ray", ("--set", "engine.kind=ray", "--set", "engine.workers=1"))):
        done = command("train", "experiments/toy.yaml", *engine, "--out", out)
        assert done.returncode == 0, done.stderr
    weights = [(project / out / "model.safetensors").read_bytes() for out in ("local", "ray")]
    assert weights[0] == weights[1]
    graph = json.loads((project / "local/graph.json").read_text())
    assert "toy_brightness" in json.dumps(graph)


def test_its_parts_keep_the_contracts(python: Run) -> None:
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", PACKAGE / "tests", "-o", "addopts=")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_its_modules_may_be_imported_first(python: Run) -> None:
    """A module that extends metarestore is not in the middle of being imported when its entry point is loaded."""
    for module in ("falloff", "steady", "specs", "estimator"):
        read = "from metarestore.config.experiment import Experiment; Experiment.model_json_schema"
        done = python("-c", f"import toy_restoration.{module}; {read}")
        assert done.returncode == 0, done.stderr
