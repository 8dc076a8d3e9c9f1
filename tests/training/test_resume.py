"""Which runs may be continued: moved and copied ones, longer ones; and which are others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarestore.config.experiment import Experiment
from metarestore.config.keypath import KeyPath
from metarestore.engines.local import LocalEngine
from metarestore.errors import UserError
from metarestore.project import resolve
from metarestore.tasks.images import write_image
from metarestore.tasks.pairs import PairsSpec
from metarestore.tasks.spec import content_hash
from metarestore.training.identity import portable, study_record
from metarestore.training.log import LogRow, Observer
from metarestore.training.run import RunFolder, train
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

Build = Callable[..., Experiment]
StudyMaker = Callable[..., Study]
CONSTANT = {"optimizer": {"schedule": "constant"}}


class Silent(Observer):
    """Counts steps."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def step(self, row: LogRow) -> None:
        self.steps.append(row.step)


def trained(study: Study, folder: Path, *, resume: bool = False, restated: tuple[KeyPath, ...] = ()) -> list[int]:
    """Trains and returns the steps that were taken."""
    observer = Silent()
    run = RunFolder(folder, study, resume=resume, restated=restated)
    train(Workspace(study), run, LocalEngine().session(study), observer)
    return observer.steps


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def make_project(root: Path) -> None:
    """A camera's pairs, photographs, a measured kernel, and trained weights: whatever a project may name by a path."""
    rng = np.random.default_rng(0)
    for folder in ("tasks", "photos", "more", "data/lr", "data/hr", "kernels"):
        (root / folder).mkdir(parents=True)
    for k in range(6):
        hr = np.kron(rng.integers(0, 256, (12, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        write_image(root / f"data/hr/{k}.png", hr)
        write_image(root / f"data/lr/{k}.png", hr[::4, ::4].copy())
        write_image(root / f"photos/{k}.png", hr[::-1].copy())
        write_image(root / f"more/{k}.png", hr[:, ::-1].copy())
    np.save(root / "kernels/k.npy", np.ones((5, 5)) / 25)
    (root / "tasks/camera.yaml").write_text("kind: pairs\nscale: 4\nlr: data/lr\nhr: data/hr\nsupport_pool: 4\n")
    pipeline = "[{op: kernel_file, path: kernels/k.npy}, {op: downsample}]"
    (root / "tasks/measured.yaml").write_text(f"kind: synthetic\nscale: 4\npipeline: {pipeline}\n")


SECTIONS: dict[str, dict[str, Any]] = {
    "pairs": {"graph": {"target": "camera"}},
    "photographs": {"data": {"train": "photos", "validation": "more", "test": "data/hr"}},
    "kernel": {"graph": {"auxiliary": ["measured", "bicubic"]}},
    "init": {"training": {"init": "runs/start"}},
    "prior": {"graph": {"prior": {"graph": "runs/start"}}},
    "pairs learned from": {"graph": {"auxiliary": ["camera", "bicubic"]}},
    "absolute": {
        "data": {"train": "{root}/photos", "test": "{root}/data/hr"},
        "training": {"init": "{root}/runs/start"},
    },
}


def at(root: Path, sections: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(sections).replace("{root}", str(root)))
    return found


@pytest.mark.parametrize("how", ["moved", "copied"])
@pytest.mark.parametrize("name", SECTIONS)
def test_a_project_is_the_same_elsewhere(small_experiment: Build, tmp_path: Path, name: str, how: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new % place?"
    make_project(old)
    if "start" in str(SECTIONS[name]):
        trained(resolve(small_experiment(training={"steps": 1}), old), old / "runs/start")
    study = resolve(small_experiment(**at(old, SECTIONS[name]), evaluation={"crop": 64}), old)
    assert trained(study, old / "runs/a") == [1, 2, 3, 4]
    assert str(old) not in (old / "runs/a/run.json").read_text()
    assert str(old) not in (old / "runs/a/config.yaml").read_text()
    for path in (old / "runs/a").glob("**/*.json"):
        assert str(old) not in path.read_text(), path
    before = weights(old / "runs/a")
    (shutil.move if how == "moved" else shutil.copytree)(str(old), str(new))
    study = resolve(small_experiment(**at(new, SECTIONS[name]), evaluation={"crop": 64}), new)
    assert trained(study, new / "runs/a", resume=True) == []
    assert weights(new / "runs/a") == before


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("pairs", "data/hr/2.png", r"tasks.camera.content: the files have changed"),
        ("photographs", "photos/2.png", r"images.train: the files have changed"),
        ("kernel", "kernels/k.npy", r"tasks.measured.content: the files have changed"),
        ("init", "runs/start/model.safetensors", r"init\W+was"),
    ],
)
def test_other_contents_at_the_same_place_are_another_run(
    small_experiment: Build, tmp_path: Path, name: str, changed: str, message: str
) -> None:
    make_project(tmp_path)
    trained(resolve(small_experiment(training={"steps": 1}), tmp_path), tmp_path / "runs/start")
    study = resolve(small_experiment(**SECTIONS[name]), tmp_path)
    trained(study, tmp_path / "runs/a")
    if changed.endswith("png"):
        write_image(tmp_path / changed, np.zeros((96, 96, 3), np.uint8))
    elif changed.endswith("npy"):
        np.save(tmp_path / changed, np.ones((3, 3)))
    else:
        trained(resolve(small_experiment(training={"steps": 2}), tmp_path), tmp_path / "runs/other")
        shutil.copy(tmp_path / "runs/other/model.safetensors", tmp_path / changed)
    with pytest.raises(UserError, match=message):
        trained(resolve(small_experiment(**SECTIONS[name]), tmp_path), tmp_path / "runs/a", resume=True)


def test_real_pairs_are_known_by_their_images(tmp_path: Path) -> None:
    make_project(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    def spec(root: Path, **changes: Any) -> PairsSpec:
        return PairsSpec(kind="pairs", scale=4, lr=root / "data/lr", hr=root / "data/hr", **changes)

    first = content_hash(spec(tmp_path / "a"))
    assert content_hash(spec(tmp_path / "b")) == first
    assert content_hash(spec(tmp_path / "b", support_pool=3)) != first
    (tmp_path / "b/data/lr/0.png").rename(tmp_path / "b/data/lr/9.png")
    assert content_hash(spec(tmp_path / "b")) != first


def test_a_record_of_the_first_version_is_continued(small_experiment: Build, tmp_path: Path) -> None:
    """It held absolute paths, of a project that has moved since."""
    make_project(tmp_path)
    sections = {"graph": {"target": "camera", "auxiliary": ["measured", "bicubic"]}, **SECTIONS["photographs"]}
    sections["graph"] |= {"estimator": {"kind": "uniform"}}
    study = resolve(small_experiment(**sections), tmp_path)
    trained(study, tmp_path / "runs/a")
    path = tmp_path / "runs/a/run.json"
    record = json.loads(path.read_text())
    del record["format"]
    record["study"]["images"] = {split: f"/gone/{split}" for split in record["study"]["images"]}
    record["study"]["data"] |= dict.fromkeys(("train", "validation", "test"), "photos")
    for task in record["study"]["tasks"].values():
        del task["content"]
        task.update({"lr": "/gone/lr", "hr": "/gone/hr"} if task["kind"] == "pairs" else {})
    path.write_text(json.dumps(record))
    assert trained(study, tmp_path / "runs/a", resume=True) == []
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"seed was 0, is 1"):
        trained(resolve(small_experiment(**sections, seed=1), tmp_path), tmp_path / "runs/a", resume=True)


@pytest.mark.parametrize("folder", ["plain", "50% off", "what?", "a#b", "日本 語", "[x] 'q'"])
def test_portable_paths_are_relative_inside_and_absolute_outside(tmp_path: Path, folder: str) -> None:
    root = tmp_path / folder
    data = {"a": root / "photos", "b": [str(root / "x/y.png"), "/elsewhere/z", 3, None], "c": {"d": "runs/a"}}
    assert portable(data, root) == {"a": "photos", "b": ["x/y.png", "/elsewhere/z", 3, None], "c": {"d": "runs/a"}}


def test_a_shipped_network_is_written_by_its_name(tmp_path: Path) -> None:
    from metarestore.models.shipped import shipped

    name, path = next(iter(shipped().items()))
    assert portable({"init": path.resolve()}, tmp_path) == {"init": name}


LENGTHS: dict[str, dict[str, Any]] = {
    "constant": {},
    "warmup": {"training": {"optimizer": {"schedule": "constant", "warmup_steps": 3}}},
    "a cosine that is level": {"training": {"optimizer": {"lr": 1e-3, "min_lr": 1e-3}}},
    "ema": {"training": {**CONSTANT, "ema": 0.9}},
    "refresh": {"graph": {"estimator": {"kind": "gradient", "draws": 2}, "refresh": 3}},
    "warmup of weights": {"graph": {"weights": {"warmup_steps": 5, "balance": "ema"}}},
    "the target alone": {
        "training": {**CONSTANT, "source": "target"},
        "graph": {"weights": {"final_temperature": 2.0}},
    },
}


@pytest.mark.parametrize("name", LENGTHS)
def test_a_run_that_is_made_longer_has_the_bytes_of_a_long_one(
    small_study: StudyMaker, tmp_path: Path, name: str
) -> None:
    def study(steps: int) -> Study:
        sections = {**LENGTHS[name]}
        sections["training"] = {**CONSTANT, **sections.get("training", {}), "steps": steps}
        return small_study(**sections)

    trained(study(7), tmp_path / "whole")
    assert trained(study(4), tmp_path / "parts") == [1, 2, 3, 4]
    assert trained(study(7), tmp_path / "parts", resume=True) == [5, 6, 7]
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    notes = json.loads((tmp_path / "parts/run.json").read_text())["notes"]
    assert notes["lengthened"] == [{"before": {"training.steps": 4}}]
    assert trained(study(7), tmp_path / "parts", resume=True) == []


DEPENDENT: dict[str, tuple[dict[str, Any], str]] = {
    "cosine": ({}, r"training.optimizer.schedule: the cosine schedule .*schedule=constant"),
    "cosine after warmup": (
        {"training": {"optimizer": {"warmup_steps": 2}}},
        r"training.optimizer.schedule: the cosine schedule",
    ),
    "annealed": (
        {"training": CONSTANT, "graph": {"weights": {"final_temperature": 2.0}}},
        r"graph.weights.final_temperature: .*graph.weights.final_temperature=null",
    ),
    "joint": (
        {
            "training": CONSTANT,
            "graph": {"estimator": {"kind": "learned", "joint": True, "steps": 4}, "refresh": 2},
        },
        r"graph.estimator.joint: .*start a new run$",
    ),
}


@pytest.mark.parametrize("name", DEPENDENT)
def test_what_depends_on_the_length_is_named(small_study: StudyMaker, tmp_path: Path, name: str) -> None:
    sections, message = DEPENDENT[name]
    RunFolder(tmp_path, small_study(**sections), resume=False)
    before = (tmp_path / "run.json").read_bytes()
    longer = {**sections, "training": {**sections.get("training", {}), "steps": 8}}
    with pytest.raises(UserError, match=message) as found:
        RunFolder(tmp_path, small_study(**longer), resume=True)
    assert len(str(found.value).splitlines()) == 1
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("optimizer", "restated"),
    [
        ({"schedule": "constant", "lr": 1e-4}, ()),
        ({"schedule": "cosine"}, (("training", "optimizer", "schedule"),)),
        ({"schedule": "cosine"}, (("training", "optimizer"),)),
        ({"schedule": "constant", "warmup_steps": 6}, ()),
    ],
)
def test_a_new_schedule_holds_for_the_steps_that_are_left(
    small_study: StudyMaker, tmp_path: Path, optimizer: dict[str, Any], restated: tuple[KeyPath, ...]
) -> None:
    trained(small_study(), tmp_path)
    before = weights(tmp_path)
    longer = small_study(training={"steps": 6, "optimizer": optimizer})
    assert trained(longer, tmp_path, resume=True, restated=restated) == [5, 6]
    assert weights(tmp_path) != before
    assert RunFolder(tmp_path, longer, resume=True).changed["training.steps"] == 4


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"steps": 3, **CONSTANT}, r"training.steps was 4, is 3\); a run can be extended but not shortened"),
        ({"optimizer": {"schedule": "constant", "lr": 1e-5}}, r"training.optimizer.lr was"),
        ({"steps": 8, "patch": 48, **CONSTANT}, r"training.patch was 32, is 48"),
        ({"steps": 8, "tasks_per_step": 2, **CONSTANT}, r"training.tasks_per_step was 4, is 2"),
    ],
)
def test_other_changes_are_another_run(
    small_study: StudyMaker, tmp_path: Path, training: dict[str, Any], message: str
) -> None:
    RunFolder(tmp_path, small_study(training=CONSTANT), resume=False)
    with pytest.raises(UserError, match=message):
        RunFolder(tmp_path, small_study(training=training), resume=True)


def test_the_record_is_json_and_equal_after_reading(small_study: StudyMaker) -> None:
    record = study_record(small_study())
    assert json.loads(json.dumps(record)) == record
