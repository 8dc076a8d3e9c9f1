"""`metarestore describe` and `restore --embedding`: what they write and say, and one line for every mistake."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metarestore.config.model import FSRCNNSpec, KDSRSpec
from metarestore.descriptors.describe import describe_task, open_tasks
from metarestore.descriptors.file import read_descriptors
from metarestore.evaluation.folder import evaluate_folder
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, save_model
from metarestore.models.parameters import initial_vector
from metarestore.models.restore import image_restorer
from metarestore.project import Project
from metarestore.tasks.images import ImageSource, ImageStore, read_image, write_image

Cli = Callable[..., tuple[int, str, str]]

FEW = ("--draws", 2, "--patches", 2, "--patch", 32)
NETWORKS = {
    "student": KDSRSpec(kind="kdsr", size="tiny"),
    "teacher": KDSRSpec(kind="kdsr", size="tiny", estimator="teacher"),
    "none": KDSRSpec(kind="kdsr", size="tiny", estimator="none"),
    "fsrcnn": FSRCNNSpec(d=4, s=2, m=1),
}


@pytest.fixture
def cli(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Runs the command line in this process, in a folder with networks, photographs and a camera's pairs."""
    monkeypatch.chdir(tmp_path)
    for name, spec in NETWORKS.items():
        save_model(tmp_path / name / "model.safetensors", spec, 4, initial_vector(build_model(spec, 4, 0)))
    rng = np.random.default_rng(0)
    for folder, names, side in (("photos", "ab", 24), ("pairs/lr", "xyz", 16), ("pairs/hr", "xyz", 64)):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            write_image(tmp_path / folder / f"{name}.png", rng.integers(0, 256, (side, side, 3), np.uint8))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/camera.yaml").write_text("kind: pairs\nscale: 4\nlr: pairs/lr\nhr: pairs/hr\n")

    return cli


def test_folders_and_tasks_in_one_file(cli: Cli, tmp_path: Path) -> None:
    given = ("--images", "photos", "--task", "noise_*", "--task", "camera", "--task", "jpeg", "--seed", 3, *FEW)
    code, out, err = cli("describe", "--model", "student", *given, "--out", "d.json", "--figure", "map.png")
    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == ["d.json", "map.png"]
    assert (tmp_path / "map.png").is_file()
    found = read_descriptors(tmp_path / "d.json")
    kinds = {group.name: (group.kind, len(group.items), group.count) for group in found.descriptions()}
    assert kinds.pop("photos") == ("images", 2, 2)
    assert kinds.pop("camera") == ("task", 3, 3)
    assert {"noise_gaussian", "noise_poisson", "jpeg"} <= set(kinds)
    assert set(kinds.values()) == {("task", 2, 4)}
    assert (found.seed, found.channels, found.model.path) == (3, 16, "student")
    assert [one.name for one in found.groups[0].items] == ["a", "b"]
    for name in (*kinds, "photos", "camera"):
        assert name in out


def test_the_same_command_writes_the_same_bytes(cli: Cli, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        assert cli("describe", "--model", "student", "--task", "jpeg", *FEW, "--out", name)[0] == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_tasks_are_drawn_and_seen_as_the_options_say(cli: Cli, tmp_path: Path) -> None:
    given = ("--task", "jpeg", "--draws", 2, "--patches", 3, "--patch", 96, "--seed", 3, "--estimate-on", 16)
    assert cli("describe", "--model", "student", *given, "--out", "d.json")[0] == 0
    store = ImageStore.open(ImageSource.embedded("train"))
    tasks = open_tasks("jpeg", Project(tmp_path).task("jpeg", scale=4), store, 3, 96)
    expected = describe_task(load_model(tmp_path / "student"), tasks, 2, seed=3, crop=16)
    [found] = read_descriptors(tmp_path / "d.json").descriptions()
    for one, other in zip(found.items, expected.items, strict=True):
        np.testing.assert_array_equal(one.mean, other.mean)
        assert one.parameters == other.parameters


def test_clean_photographs_of_the_users_own(cli: Cli, tmp_path: Path) -> None:
    given = ("--task", "jpeg", "--data", "pairs/hr", *FEW)
    assert cli("describe", "--model", "teacher", *given, "--out", "d.json")[0] == 0
    [group] = read_descriptors(tmp_path / "d.json").groups
    assert {name for item in group.items for name in item.photographs} <= {"x", "y", "z"}


def test_folders_of_one_name_are_told_apart(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "photos").rename(tmp_path / "other/lr")
    given = ("--images", "other/lr", "--images", "pairs/lr", "--images", "pairs/hr", "--estimate-on", 16)
    assert cli("describe", "--model", "student", *given, "--out", "d.json")[0] == 0
    assert [group.name for group in read_descriptors(tmp_path / "d.json").groups] == ["other/lr", "pairs/lr", "hr"]


def test_a_task_file_stands_for_itself(cli: Cli, tmp_path: Path) -> None:
    assert cli("describe", "--model", "student", "--task", "tasks/camera.yaml", "--out", "d.json")[0] == 0
    assert [group.name for group in read_descriptors(tmp_path / "d.json").groups] == ["camera"]


def test_restoring_with_a_descriptor(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/a.png").write_bytes((tmp_path / "photos/a.png").read_bytes())
    assert cli("describe", "--model", "student", "--images", "one", "--task", "jpeg", *FEW, "--out", "d.json")[0] == 0
    restore = ("restore", "photos/a.png", "--model", "student")
    assert cli(*restore, "--out", "plain.png")[0] == 0
    said = "Network: the unadapted network of student\nown.png: 24x24 -> 96x96\n"
    assert cli(*restore, "--embedding", "d.json:one", "--out", "own.png") == (0, said, "")
    assert np.array_equal(read_image("own.png").pixels, read_image("plain.png").pixels)
    far = json.loads((tmp_path / "d.json").read_text())
    far["groups"][0]["items"][0]["mean"] = [9 + value for value in far["groups"][0]["items"][0]["mean"]]
    (tmp_path / "far.json").write_text(json.dumps(far))
    assert cli(*restore, "--embedding", "far.json:one", "--out", "far.png")[0] == 0
    assert not np.array_equal(read_image("far.png").pixels, read_image("plain.png").pixels)
    assert cli(*restore, "--embedding", "far.json:one", "--self-ensemble", "--out", "turned.png")[0] == 0
    assert not np.array_equal(read_image("turned.png").pixels, read_image("far.png").pixels)


def test_the_self_ensemble_of_a_command_is_that_of_the_network(cli: Cli, tmp_path: Path) -> None:
    expected = image_restorer(load_model(tmp_path / "student"), ensemble=True)
    assert cli("restore", "photos/a.png", "--model", "student", "--self-ensemble", "--out", "o.png")[0] == 0
    assert np.array_equal(read_image("o.png").pixels, expected(read_image("photos/a.png").pixels))
    for option in ((), ("--self-ensemble",)):
        code, _, err = cli(
            "evaluate", "--data", "pairs/hr", "--model", "student", *option, "--json", "f.json", "--overwrite"
        )
        assert (code, err) == (0, "")
        figures = json.loads(Path("f.json").read_text())
        assert figures["self_ensemble"] == bool(option)
        restore = expected if option else image_restorer(load_model(tmp_path / "student"))
        assert figures["psnr_y"] == evaluate_folder(tmp_path / "pairs/hr", 4, restore).psnr_y


def test_the_commands_of_the_page(cli: Cli, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/kdsr.md").read_text()
    lines = re.findall(r"^metarestore (.*)$", page, re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["describe", "restore"]
    (tmp_path / "runs").mkdir()
    (tmp_path / "student").rename(tmp_path / "runs/student")
    (tmp_path / "photo.png").write_bytes((tmp_path / "photos/a.png").read_bytes())
    for line in lines:
        words = shlex.split(line)
        code, _, err = cli(*words, *(FEW if words[0] == "describe" else ()))
        assert (code, err) == (0, ""), line
    assert {"d.json", "map.png", "restored.png"} <= {path.name for path in tmp_path.iterdir()}


DESCRIBE = ("describe", "--out", "d.json", "--model")
MISTAKES = {
    "nothing to describe": ((*DESCRIBE, "student"), "describe: say what to describe, with --images DIR or --task NAME"),
    "no such network": ((*DESCRIBE, "nowhere", "--task", "jpeg"), "nowhere: no such file"),
    "another kind of network": ((*DESCRIBE, "fsrcnn", "--task", "jpeg"), "use a KDSR (model: {kind: kdsr})"),
    "no estimator": ((*DESCRIBE, "none", "--task", "jpeg"), "use one with estimator: student"),
    "a teacher and photographs": ((*DESCRIBE, "teacher", "--images", "photos"), "is a teacher"),
    "a teacher and real pairs": ((*DESCRIBE, "teacher", "--task", "camera"), "is a teacher"),
    "a protocol": ((*DESCRIBE, "student", "--task", "gaussian8"), "--task: 'gaussian8' is an evaluation protocol"),
    "protocols alone": ((*DESCRIBE, "student", "--task", "gaussian8*"), "'gaussian8*' is and matches no task"),
    "no such task": ((*DESCRIBE, "student", "--task", "jpg"), "did you mean 'jpeg'?"),
    "no such folder": ((*DESCRIBE, "student", "--images", "nowhere"), "nowhere: no such folder"),
    "a folder twice": ((*DESCRIBE, "student", "--images", "photos", "--images", "photos"), "are called 'photos'"),
    "a damaged photograph": ((*DESCRIBE, "student", "--images", "damaged"), "bad.png: damaged"),
    "an odd patch": ((*DESCRIBE, "student", "--task", "jpeg", "--patch", 33), "--patch: 33 is not a multiple"),
    "no clean photographs": ((*DESCRIBE, "student", "--task", "jpeg", "--data", "nowhere"), "nowhere: no such folder"),
    "a place that is not there": (
        ("describe", "--model", "student", "--images", "photos", "--out", "nowhere/d.json"),
        "--out: nowhere/d.json cannot be written",
    ),
    "a figure of another format": (
        (*DESCRIBE, "student", "--images", "photos", "--figure", "map.svg"),
        "--figure: map.svg must end in .png",
    ),
    "a figure of too little": (
        (*DESCRIBE, "student", "--images", "photos", "--figure", "map.png"),
        "--figure: a map needs at least 3",
    ),
    "an embedding of another network": (
        ("restore", "photos/a.png", "--model", "teacher", "--embedding", "kept.json:a", "--out", "o.png"),
        "--embedding: kept.json was made by another network, student",
    ),
    "no place for an embedding": (
        ("restore", "photos/a.png", "--model", "fsrcnn", "--embedding", "kept.json:a", "--out", "o.png"),
        "use a KDSR",
    ),
    "no group": (
        ("restore", "photos/a.png", "--model", "student", "--embedding", "kept.json", "--out", "o.png"),
        "say which one, as FILE:GROUP, of lr, camera",
    ),
    "no such group": (
        ("restore", "photos/a.png", "--model", "student", "--embedding", "kept.json:raw", "--out", "o.png"),
        "holds no group 'raw'; name one of lr, camera",
    ),
    "no such file of descriptors": (
        ("restore", "photos/a.png", "--model", "student", "--embedding", "none.json:lr", "--out", "o.png"),
        "none.json:lr: cannot be read",
    ),
    "nothing to estimate": (
        ("restore", "photos/a.png", "--model", "fsrcnn", "--estimate-on", 16, "--out", "o.png"),
        "--estimate-on: the network has no degradation encoder",
    ),
    "no orientations of bicubic": (
        ("evaluate", "--data", "pairs/hr", "--scale", 4, "--bicubic", "--self-ensemble"),
        "--self-ensemble: goes with --model",
    ),
    "nothing to estimate by bicubic": (
        ("evaluate", "--data", "pairs/hr", "--scale", 4, "--bicubic", "--estimate-on", 16),
        "--estimate-on: goes with --model",
    ),
    "estimated and given": (
        ("restore", "photos/a.png", "--model", "student", "--embedding", "d.json", "--estimate-on", 16, "--out", "o"),
        "--estimate-on: does not go with --embedding",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/bad.png").write_bytes(b"\x89PNG broken")
    cli("describe", "--model", "student", "--images", "pairs/lr", "--task", "camera", "--out", "kept.json")
    arguments, expected = MISTAKES[name]
    code, _, err = cli(*arguments)
    assert code == 2, err
    assert expected in err
    assert len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "d.json").exists()
