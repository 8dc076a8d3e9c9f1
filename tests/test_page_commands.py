"""Every command of the README and the documentation has the options it is shown with; those of whole pages are run.

The pages on graphs, KDSR, PISR and photographs have tests of their own that run their commands, as the README has.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import mlflow.cli
import numpy as np
import pytest
import ray
import typer.main
from ray.scripts import scripts

from metarestore.cli import app, main
from metarestore.config.overrides import parse_override
from metarestore.models.build import build_model
from metarestore.models.checkpoint import save_model
from metarestore.models.parameters import initial_vector
from metarestore.project import read_experiment
from metarestore.scaffold import FILES, make_project
from metarestore.tasks.photographs import write_image
from metarestore.testing.networks import spec_of

REPOSITORY = Path(__file__).parents[1]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")))
PROGRAMS: dict[str, Any] = {"metarestore": typer.main.get_command(app), "mlflow": mlflow.cli.cli, "ray": scripts.cli}
SHORT = ["--set", "training.steps=2", "--set", "adaptation.steps=1"]
"""Added to commands that train, so that they take seconds; everything else about them is as written."""
FEWER: dict[str, list[str]] = {
    "tune": ["--trials", "2", "--set", "tuning.report_every=1"],
    "ablate": [
        *("--set", "engine={kind: local}", "--set", "grid.learner=[{kind: pretrain}]"),
        *("--set", "training.patch=32", "--set", "evaluation={crop: 64, crops: 1}"),
        *("--set", "arms={uniform: {graph: {estimator: {kind: uniform}}}, uniform_balanced: {}}"),
        *("--set", "grid_exclude=[]"),
    ],
    "shots": ["--shots", "1,2", "--folds", "2", "--set", "engine={kind: local}"],
}
"""Added to searches and grids, which have dozens of trials and cells."""


def commands(page: str) -> list[str]:
    """Lists the commands of a page's blocks, in whatever language the blocks are."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|bash|text|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ").split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.split(" ")[0] in PROGRAMS and " " in line]


def shown() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for line in dict.fromkeys(commands(page)):
            yield page, line
    job = (REPOSITORY / "docs/examples/rayjob.yaml").read_text()
    found = re.search(r"(metarestore .*?)\$\(.*?echo (--resume)\)", job, re.DOTALL)
    assert found is not None
    yield "docs/examples/rayjob.yaml", " ".join(f"{found[1]} {found[2]}".split())


SHOWN = sorted(set(shown()))


def parsed(command: Any, words: list[str]) -> click.Context:
    """Parses a command line without running it; an option or argument that does not exist is an error."""
    name, *rest = words
    if hasattr(command, "get_command"):
        below = command.get_command(click.Context(command), rest[0])
        assert below is not None, f"{name} has no command {rest[0]}"
        return parsed(below, rest)
    context: click.Context = command.make_context(name, rest)
    return context


def documented(experiment: Path, folder: Path) -> Path:
    """Returns the file that a page means: the catalogue's, the README's, or else that of a new project."""
    own = REPOSITORY / "experiments" / experiment.name
    if own.is_file():
        return own
    text = FILES["experiments/first.yaml"]
    if experiment.name == "my_camera.yaml":
        page = (REPOSITORY / "docs/camera.md").read_text(encoding="utf-8")
        text = next(block for block in re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S) if "learner:" in block)
    make_project(folder)
    path = folder / "experiments" / experiment.name
    path.write_text(text, encoding="utf-8")
    return path


def test_every_page_with_commands_is_looked_at() -> None:
    pages = {page for page, _ in SHOWN}
    assert pages >= {"README.md", *(f"docs/{name}.md" for name in ("ablation", "cluster", "tasks", "tuning"))}
    assert {line.split()[0] for _, line in SHOWN} == set(PROGRAMS)


@pytest.mark.parametrize(("page", "line"), SHOWN, ids=[line for _, line in SHOWN])
def test_a_command_has_the_options_it_is_shown_with(page: str, line: str, tmp_path: Path) -> None:
    words = shlex.split(line)
    context = parsed(PROGRAMS[words[0]], words)
    given = context.params
    if words[0] == "metarestore" and "experiment" in given:
        overrides = [*(given["override"] or ()), *(given["more"] or ())]
        read_experiment(documented(given["experiment"], tmp_path), [parse_override(text) for text in overrides])


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("metarestore train e.yaml --outt x", "--outt"),
        ("metarestore tun e.yaml", "tun"),
        ("metarestore train --out x", "experiment"),
        ("ray start --haed", "--haed"),
    ],
)
def test_a_wrong_command_is_noticed(line: str, wrong: str) -> None:
    words = shlex.split(line)
    with pytest.raises(Exception, match=wrong):
        parsed(PROGRAMS[words[0]], words)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster of two cores for all searches: each would start one of its own."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_store: str) -> Path:
    """A new project, as the current folder, with the files that the pages speak of."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    run(monkeypatch, "init", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("search_demo", "ablation"):
        shutil.copy(REPOSITORY / "experiments" / f"{name}.yaml", "experiments")
    shutil.copy("experiments/first.yaml", "experiments/mine.yaml")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["metarestore", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code, " ".join(words)


@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("page", ["docs/tuning.md", "docs/ablation.md"])
def test_the_commands_of_a_page_run_one_after_the_other(
    page: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in commands(page):
        words = shlex.split(line)[1:]
        extra = [*SHORT, *FEWER.get(words[0], [])]
        if words[0] == "ablate" and "grid.seed" not in line:
            extra += ["--set", "grid.seed=[0]", "--set", 'grid["adaptation.shots"]=[1]']
        run(monkeypatch, *words, *extra)


def test_the_commands_of_the_page_on_cameras(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "tasks", "sample", "night_phone", "--count", "8", "--out", "my_camera")
    shutil.copy("my_camera/lr/000000.png", "photo.jpg")
    for line in commands("docs/camera.md"):
        words = shlex.split(line)[1:]
        run(monkeypatch, *words, *(["--minutes", "0.2"] if words[0] == "adapt" else []))


def test_the_commands_of_the_page_on_tasks(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "tasks", "sample", "night_phone", "--count", "8", "--out", "data/my_camera")
    for line in commands("docs/tasks.md"):
        if "tasks gallery" not in line:  # minutes of drawing; it has a test of its own
            run(monkeypatch, *shlex.split(line)[1:])


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("spandrel", "onnx", "onnxscript", "onnxruntime")),
    reason="the extras onnx and spandrel are not installed",
)
def test_the_commands_of_the_page_on_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos/a.png", np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8))
    spec = spec_of({"kind": "compact"})
    for name in ("model", "adapted"):
        flat = initial_vector(build_model(spec, 4, 0))
        save_model(tmp_path / f"runs/compact/{name}.safetensors", spec, 4, flat)
    for line in commands("docs/export.md"):
        run(monkeypatch, *shlex.split(line)[1:])
    page = (REPOSITORY / "docs/export.md").read_text(encoding="utf-8")
    for example in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        results: dict[str, Any] = {}
        exec(example, results)
        assert results["hr"].shape == (1, 3, 180, 244)
