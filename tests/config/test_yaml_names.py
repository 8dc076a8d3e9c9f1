"""YAML files are found by both of their endings, by name, by path and in folders; `~` in them is the home folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from metarestore.checking import check_files, project_files
from metarestore.config.file_names import full_path, is_yaml, yaml_files
from metarestore.errors import UserError
from metarestore.project import Project, read_experiment, read_task, resolve
from metarestore.scaffold import make_project
from metarestore.tasks.images import write_image

ENDINGS = [".yml", ".YML", ".Yaml", ".yaml"]


@pytest.fixture(params=ENDINGS)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project whose files all have another ending."""
    for path in make_project(tmp_path / "p"):
        if is_yaml(path):
            path.rename(path.with_suffix(request.param))
    return tmp_path / "p"


def test_a_name_stands_for_a_file_of_either_ending(project: Path) -> None:
    for kind, name in (("tasks", "night_phone"), ("graphs", "night_phone"), ("experiments", "first")):
        assert Project(project).path(kind, name).parent == project / kind
    (experiment,) = (project / "experiments").iterdir()
    assert resolve(read_experiment(experiment), project).target.scale == 4


def test_folders_are_checked_whatever_the_ending(project: Path) -> None:
    files = project_files([project])
    assert [file.stem for file in files] == ["night_phone", "night_phone", "first"]
    assert check_files(files) == []
    assert project_files([project / "tasks"]) == files[:1]


def test_commands_take_a_path_of_either_ending(project: Path, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    (task,) = Path("tasks").iterdir()
    for given in (task, "night_phone"):
        assert cli("tasks", "preview", given, "--count", 1, "--out", "s.png", "--overwrite")[0] == 0
    assert cli("check", task)[0] == 0
    code, _, err = cli("describe", "--model", "kdsr_tiny_mixed", "--task", task, "--draws", 1, "--out", "d.json")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("other", ENDINGS[:3])
def test_two_files_of_one_name_are_reported(other: str, tmp_path: Path) -> None:
    make_project(tmp_path)
    shutil.copy(tmp_path / "tasks/night_phone.yaml", tmp_path / f"tasks/night_phone{other}")
    with pytest.raises(UserError, match=r"night_phone\.\w+: has the same name as .*night_phone\.\w+, 'night_phone'"):
        yaml_files(tmp_path / "tasks")


def test_hidden_files_and_other_files_are_no_yaml_in(tmp_path: Path) -> None:
    for name in ("._a.yaml", ".#b.yml", "c.yaml~", "d.yml.bak", "e.json", "f"):
        (tmp_path / name).touch()
    assert yaml_files(tmp_path) == {}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    for folder in ("lr", "hr", "photos"):
        (home / folder).mkdir(parents=True)
        write_image(home / folder / "a.png", np.zeros((8 if folder == "lr" else 32, 32, 3), np.uint8))
    np.save(home / "k.npy", np.ones((3, 3)))
    monkeypatch.setenv("HOME", str(home))
    return home


PAIRS = "kind: pairs\nscale: 4\nlr: ~/lr\nhr: ~/hr\n"
KERNELS = "kind: synthetic\nscale: 4\npipeline:\n  - {op: kernel_file, path: ~/k.npy}\n  - {op: downsample}\n"


def test_a_tilde_in_a_task_file_is_the_home_folder(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "tasks/t.yaml"
    path.parent.mkdir()
    path.write_text(PAIRS)
    spec = read_task(path)
    assert (spec.lr, spec.hr) == (home / "lr", home / "hr")
    path.write_text(KERNELS)
    (kernels, _) = read_task(path).pipeline.operations
    assert kernels.path == home / "k.npy"


@pytest.mark.parametrize("key", ["train", "test", "validation"])
def test_a_tilde_in_an_experiment_is_the_home_folder(key: str, home: Path, tmp_path: Path) -> None:
    make_project(tmp_path)
    (tmp_path / "other").mkdir()
    folders = {"train": "other", "test": "tasks"} | {key: "~/photos"}
    path = tmp_path / "experiments/first.yaml"
    text = path.read_text()
    path.write_text(text.replace("data: embedded", f"data: {{{', '.join(f'{k}: {v}' for k, v in folders.items())}}}"))
    study = resolve(read_experiment(path), tmp_path)
    assert study.images[key].location == str(home / "photos")


@pytest.mark.parametrize("key", ["training.init", "learner.teacher"])
def test_a_tilde_before_a_network_is_the_home_folder(key: str, home: Path, tmp_path: Path) -> None:
    from metarestore.config.overrides import parse_override

    make_project(tmp_path)
    values = [f"{key}=~/net.safetensors"]
    if key == "learner.teacher":
        values = ["learner={kind: distill, teacher: ~/net.safetensors}", "model={kind: kdsr, size: tiny}"]
    experiment = read_experiment(tmp_path / "experiments/first.yaml", [parse_override(text) for text in values])
    with pytest.raises(UserError, match=f"{key}: there is no {home}/net.safetensors"):
        resolve(experiment, tmp_path)
    (home / "net.safetensors").touch()
    resolve(experiment, tmp_path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("~/a", "/home/me/a"),
        ("~", "/home/me"),
        ("a/~", "/p/a/~"),
        ("/a", "/a"),
        ("~nobody9/a", "/p/~nobody9/a"),
    ],
)
def test_full_path(given: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert full_path(Path("/p"), Path(given)) == Path(expected)
