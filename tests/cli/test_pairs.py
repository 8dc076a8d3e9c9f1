"""Commands on aligned pairs: `tasks fit`, `check`, and `evaluate` on LR images that are given."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metarestore.evaluation.folder import bicubic_lr, bicubic_restore, modcrop
from metarestore.evaluation.metrics import psnr_y
from metarestore.project import read_task
from metarestore.tasks.images import read_image, write_image
from metarestore.tasks.synthetic import SyntheticSpec

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, as the current folder."""
    (tmp_path / "tasks").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def camera(cli: Cli, project: Path) -> Path:
    """A project with seven pairs of a camera, as folder and as task file."""
    assert cli("tasks", "sample", "blur_iso_wide", "--count", "7", "--out", "pairs", "--patch", "144")[0] == 0
    (project / "tasks/camera.yaml").write_text("kind: pairs\nscale: 4\nlr: pairs/lr\nhr: pairs/hr\nsupport_pool: 2\n")
    return project


@pytest.mark.parametrize(
    ("pairs", "options", "count"),
    [("pairs", (), 5), ("tasks/camera.yaml", (), 2), ("pairs", ("--count", "3"), 3), ("pairs", ("--count", "7"), 7)],
)
def test_fit_takes_the_shots_alone(cli: Cli, camera: Path, pairs: str, options: tuple[str, ...], count: int) -> None:
    code, out, err = cli("tasks", "fit", "--pairs", pairs, "--out", "tasks/twin.yaml", *options)
    assert (code, err) == (0, "")
    assert (f"Fitted to the first {count} of 7 pairs" in out) == (count < 7)
    spec = read_task(camera / "tasks/twin.yaml")
    assert isinstance(spec, SyntheticSpec)
    assert list(spec.fitted_to) == [f"{k:06}" for k in range(count)]
    assert cli("check")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--pairs", "pairs", "--out", "tasks/camera.yaml"), "tasks/camera.yaml exists already; .* --overwrite"),
        (("--pairs", "pairs", "--out", "twin.txt"), "must end in .yaml"),
        (("--pairs", "pairs", "--out", "tasks/twin.yaml", "--count", "8"), "8 pairs are requested, .* only 7"),
        (("--pairs", "nowhere", "--out", "tasks/twin.yaml"), "nowhere.*no such folder"),
        (("--pairs", "tasks/none.yaml", "--out", "tasks/twin.yaml"), "tasks/none.yaml: no such file"),
    ],
)
def test_fit_refuses_before_the_work(cli: Cli, camera: Path, arguments: tuple[str, ...], words: str) -> None:
    before = (camera / "tasks/camera.yaml").read_text()
    code, out, err = cli("tasks", "fit", *arguments)
    assert (code, out) == (2, "")
    assert re.search(words, err)
    assert (camera / "tasks/camera.yaml").read_text() == before
    assert not (camera / "tasks/twin.yaml").exists()


def test_fit_writes_nothing_for_wrong_pairs(cli: Cli, camera: Path) -> None:
    first, second = (camera / f"pairs/lr/00000{k}.png" for k in (0, 1))
    pixels = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(pixels)
    code, _, err = cli("tasks", "fit", "--pairs", "pairs", "--out", "tasks/twin.yaml")
    assert code == 2
    assert "pair '000000': LR shows what HR of '000001' shows" in err
    assert "pair '000001': LR shows what HR of '000000' shows" in err
    assert not (camera / "tasks/twin.yaml").exists()
    assert "pair '000001'" in cli("check")[2]


@pytest.mark.parametrize("given", [("--pairs", "pairs"), ("--lr", "pairs/lr", "--hr", "pairs/hr")])
def test_evaluate_measures_given_lr_images(cli: Cli, camera: Path, given: tuple[str, ...]) -> None:
    code, _, err = cli("evaluate", *given, "--bicubic", "--json", "figures.json")
    assert (code, err) == (0, "")
    figures = json.loads((camera / "figures.json").read_text())
    assert list(figures["images"]) == [f"{k:06}" for k in range(7)]
    assert figures["protocol"].startswith("LR images as given")
    [lr, hr] = (read_image(camera / f"pairs/{side}/000003.png").pixels for side in ("lr", "hr"))
    assert figures["images"]["000003"]["psnr_y"] == psnr_y(bicubic_restore(4)(lr), hr, 4, gray=False)


def test_evaluate_measures_the_test_pairs_of_a_task_file(cli: Cli, camera: Path) -> None:
    assert cli("evaluate", "--pairs", "tasks/camera.yaml", "--bicubic", "--json", "figures.json")[0] == 0
    assert list(json.loads((camera / "figures.json").read_text())["images"]) == [f"{k:06}" for k in range(2, 7)]


def test_evaluate_gives_equal_figures_for_made_and_given_bicubic_images(cli: Cli, project: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(3):  # sizes that are no multiples of the scale, as in standard sets
        hr = np.kron(rng.integers(0, 256, (12, 14, 3)), np.ones((8, 8, 1))).astype(np.uint8)[: 93 + k, : 107 + k]
        for folder, name, pixels in (("hr", f"{k}", hr), ("lr", f"{k}x4", bicubic_lr(modcrop(hr, 4), 4))):
            (project / folder).mkdir(exist_ok=True)
            write_image(project / folder / f"{name}.png", pixels)
    for out, given in (("a", ("--data", "hr")), ("b", ("--lr", "lr", "--hr", "hr"))):
        assert cli("evaluate", *given, "--bicubic", "--json", f"{out}.json")[0] == 0
    made, found = (json.loads((project / f"{name}.json").read_text()) for name in "ab")
    assert made["images"] == found["images"]


def test_evaluate_names_wrong_pairs_and_measures(cli: Cli, camera: Path) -> None:
    file = camera / "pairs/lr/000002.png"
    write_image(file, np.ascontiguousarray(read_image(file).pixels[:, ::-1]))
    code, _, err = cli("evaluate", "--pairs", "pairs", "--bicubic")
    assert code == 0
    assert re.search(r"warning: .*pair '000002': LR is mirrored", err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say what to measure on"),
        (("--data", "pairs/hr", "--pairs", "pairs"), "say what to measure on"),
        (("--lr", "pairs/lr"), "--lr: goes with --hr"),
        (("--hr", "pairs/hr"), "--hr: goes with --lr"),
        (("--pairs", "pairs", "--protocol", "gaussian8"), "--protocol: makes LR images"),
        (("--pairs", "pairs", "--scale", "2"), "at scale 2 it should be 72x72; it is 4 times as large"),
        (("--pairs", "tasks/camera.yaml", "--scale", "2"), "are for scale 4, not 2; write --scale 4"),
        (("--lr", "pairs/hr", "--hr", "pairs/lr"), "exchange the folders"),
    ],
)
def test_evaluate_says_what_pairs_it_needs(cli: Cli, camera: Path, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = cli("evaluate", "--bicubic", *arguments)
    assert code == 2
    assert words in err


EXPERIMENT = """\
graph: {target: camera, auxiliary: [AUXILIARY], estimator: {kind: uniform}}
model: {kind: fsrcnn, d: 8, s: 4, m: 1}
learner: {kind: pretrain}
training: {steps: 1, tasks_per_step: 2, shard_size: 2, support: 1, query: 1, patch: 32}
adaptation: {shots: 2, shot_size: 64, steps: 1}
evaluation: {crop: 64, crops: 1}
engine: {kind: local}
"""


def write_experiment(project: Path, auxiliary: str) -> str:
    (project / "experiments").mkdir()
    (project / "experiments/e.yaml").write_text(EXPERIMENT.replace("AUXILIARY", auxiliary) + SEARCH)
    return "experiments/e.yaml"


SEARCH = """\
arms: {a: {}}
grid: {seed: [0]}
search: {training.optimizer.lr: {choice: [1e-3]}}
tuning: {trials: 1, searcher: grid, scheduler: none}
"""


def warned(cli: Cli, command: str, experiment: str) -> str:
    """Runs a command, which must not refuse the pairs; returns what was printed, and what stands in its report."""
    code, out, err = cli(command, experiment, "--out", "run")
    assert code == 0, err
    report = html.unescape(Path("run/report.html").read_text())
    said = " ".join((out + err).split())
    assert ("'twin' was fitted" in said, "check_content" in said) == (
        "'twin' was fitted" in report,
        "check_content" in report,
    )
    return said


@pytest.fixture
def own_store(mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize(("command", "count"), [("train", 2), ("train", 4), ("compare", 4), ("ablate", 4)])
def test_a_fit_to_test_pairs_is_warned_of(cli: Cli, camera: Path, command: str, count: int) -> None:
    assert cli("tasks", "fit", "--pairs", "pairs", "--count", count, "--out", "tasks/twin.yaml")[0] == 0
    warning = "'twin' was fitted to 2 of the 5 test pairs (000002, 000003)"
    assert (warning in warned(cli, command, write_experiment(camera, "twin"))) == (count == 4)


def spoil(camera: Path, fault: Callable[..., np.ndarray] = np.fliplr) -> None:
    """Makes LR of one pair show something else than HR."""
    file = camera / "pairs/lr/000005.png"
    write_image(file, np.ascontiguousarray(fault(read_image(file).pixels)))


@pytest.mark.parametrize("fault", [np.fliplr, np.flipud, lambda lr: np.rot90(lr, 2)])
def test_check_refuses_wrong_pairs_unless_they_are_meant(
    cli: Cli, camera: Path, fault: Callable[..., np.ndarray]
) -> None:
    spoil(camera, fault)
    code, _, err = cli("check")
    assert code == 2
    assert re.search(r"pairs/lr: pair '000005': LR is (mirrored|rotated)", err)
    assert "check_content: false" in err
    with (camera / "tasks/camera.yaml").open("a") as file:
        file.write("check_content: false\n")
    assert cli("check")[0] == 0


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize("command", ["train", "compare", "ablate"])
def test_wrong_pairs_are_warned_of_and_trained_on(cli: Cli, camera: Path, command: str) -> None:
    spoil(camera)
    said = warned(cli, command, write_experiment(camera, "bicubic"))
    assert "pairs/lr: pair '000005': LR is mirrored" in said


@pytest.mark.usefixtures("own_store")
@pytest.mark.xdist_group("ray")
def test_a_search_warns_of_pairs_as_a_training_does(cli: Cli, camera: Path) -> None:
    assert cli("tasks", "fit", "--pairs", "pairs", "--count", 4, "--out", "tasks/twin.yaml")[0] == 0
    spoil(camera)
    said = warned(cli, "tune", write_experiment(camera, "twin"))
    assert "pairs/lr: pair '000005': LR is mirrored" in said
    assert "'twin' was fitted to 2 of the 5 test pairs" in said
