"""The commands that learn from photographs alone: `kernel`, and `restore --adapt zero-shot`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from metarestore.project import read_task
from metarestore.restoration.colour import COLOUR_BOUND
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.tasks.photographs import read_picture
from metarestore.zero_shot import folder

Cli = Callable[..., tuple[int, str, str]]

RGB = ImageStore.open(ImageSource.embedded("test")).image("chelsea")[60:124, 100:164].copy()
BGR = RGB[..., ::-1]
WHOLE = {"rgb", "gray", "deep", "alpha", "palette", "cmyk", "one", "seven", "flat"}


def write_photographs(photos: Path) -> None:
    """Writes photographs of every kind that a folder may hold, and two that are none any more."""
    photos.mkdir()
    for name, pixels in {
        "rgb.png": BGR,
        "gray.png": BGR[..., 1],
        "deep.tif": BGR.astype(np.uint16) * 257,
        "alpha.png": np.dstack([BGR, np.full(BGR.shape[:2], 200, np.uint8)]),
        "one.png": BGR[:1, :1],
        "seven.png": BGR[:7, :7],
        "flat.png": np.full((40, 40, 3), 90, np.uint8),
    }.items():
        cv2.imwrite(str(photos / name), pixels)
    Image.fromarray(RGB).convert("P").save(photos / "palette.png")
    Image.fromarray(RGB).convert("CMYK").save(photos / "cmyk.jpg")
    whole = (photos / "rgb.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.png").write_bytes(b"")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one small photograph, beside which the commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/rgb.png"), BGR)
    return tmp_path / "photos"


@pytest.mark.parametrize("network", [(), ("--model", "zero_shot_maml_x2")], ids=["new weights", "a trained network"])
def test_a_folder_of_all_kinds(cli: Cli, tmp_path: Path, network: tuple[str, ...]) -> None:
    write_photographs(tmp_path / "photos")
    before = {path.name: path.read_bytes() for path in (tmp_path / "photos").iterdir()}
    options = ("--adapt", "zero-shot", "--steps", "3", "--workers", "1", "--sheet", "--out", tmp_path / "out", *network)
    code, out, err = cli("restore", tmp_path / "photos", *options)
    assert code == 2  # two photographs failed, alone
    assert [re.search(r"(\w+)\.png: damaged", line)[1] for line in err.splitlines()] == ["cut", "empty"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "photos").iterdir()} == before
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {f"{name}{end}" for name in WHOLE for end in (".png", ".json", ".sheet.png")}
    assert all(f"{name}.png: " in out for name in WHOLE)
    for name in WHOLE:
        [path] = (tmp_path / "photos").glob(f"{name}.*")
        given, restored = (read_picture(each).pixels for each in (path, tmp_path / f"out/{name}.png"))
        assert restored.dtype == given.dtype
        assert restored.shape == (2 * given.shape[0], 2 * given.shape[1], *given.shape[2:])
        # The colour stays: half a grey level on average.
        peak = np.iinfo(given.dtype).max
        gap = restored.astype(np.float64).mean(axis=(0, 1)) - given.astype(np.float64).mean(axis=(0, 1))
        assert np.abs(gap).max() < 0.006 * peak
        record = json.loads((tmp_path / f"out/{name}.json").read_text())
        assert (record["photograph"], record["height"], record["scale"]) == (path.name, given.shape[0], 2)
        assert record["colour_shift"] <= COLOUR_BOUND
        kernel = np.asarray(record["kernel"]["weights"])
        assert kernel.sum() == pytest.approx(1, abs=1e-4)
        assert record["confidence"] == record["kernel"]["confidence"]
        assert (sum(record["steps"].values()) == 3) == (not any("learning" in why for why in record["skipped"]))
    assert (read_picture(tmp_path / "out/alpha.png").pixels[..., 3] == 200).all()
    assert "smaller" in json.loads((tmp_path / "out/seven.json").read_text())["skipped"][0]


def test_a_kernel_serves_task_files(cli: Cli, photos: Path) -> None:
    code, out, err = cli("kernel", photos / "rgb.png", "--scale", "2", "--out", "kernels")
    assert (code, err) == (0, "")
    assert "confidence" in out
    root = photos.parent
    assert {path.name for path in (root / "kernels").iterdir()} == {"rgb.npy", "rgb.json", "rgb.png"}
    assert [path.name for path in photos.iterdir()] == ["rgb.png"]
    (root / "tasks").mkdir()
    (root / "tasks/own.yaml").write_text(
        "kind: synthetic\nscale: 2\npipeline:\n  - {op: kernel_file, path: kernels/rgb.npy, centre: block}\n"
        "  - {op: downsample, method: nearest}\n"
    )
    blur, _ = read_task(root / "tasks/own.yaml").degradation("", 0, 0)
    record = json.loads((root / "kernels/rgb.json").read_text())
    weights = np.asarray(record["kernel"]["weights"])
    drawn = np.asarray(blur.params["kernel"]).reshape(blur.params["rows"], -1)
    margin = (len(weights) - len(drawn)) // 2
    inner = weights[margin : len(weights) - margin, margin : len(weights) - margin] if margin > 0 else weights
    np.testing.assert_allclose(drawn, inner, atol=2e-4)
    # It is taken over as it is, and nothing is estimated.
    options = ("--adapt", "zero-shot", "--steps", "1", "--kernel", "kernels/rgb.npy", "--out", "out")
    assert cli("restore", "photos/rgb.png", *options)[0] == 0
    given = json.loads((root / "out/rgb.json").read_text())
    assert (given["kernel"]["source"], given["confidence"]) == ("given", 1)
    assert given["kernel"]["hash"] == record["kernel"]["hash"]


def test_the_same_command_writes_the_same_bytes_and_nothing_without_being_asked(cli: Cli, photos: Path) -> None:
    options = ("--adapt", "zero-shot", "--steps", "4", "--scale", "3", "--out", "out")
    assert cli("restore", "photos/rgb.png", *options)[0] == 0
    first = (photos.parent / "out/rgb.png").read_bytes()
    code, out, err = cli("restore", "photos/rgb.png", *options)
    assert (code, out) == (2, "")
    assert "exists already" in err
    assert cli("restore", "photos/rgb.png", *options, "--overwrite")[0] == 0
    assert (photos.parent / "out/rgb.png").read_bytes() == first
    assert cli("restore", "photos/rgb.png", *options, "--overwrite", "--seed", "1")[0] == 0
    assert (photos.parent / "out/rgb.png").read_bytes() != first


def test_a_photograph_that_is_too_large_fails_alone(cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(photos / "huge.png"), np.zeros((200, 100, 3), np.uint8))
    monkeypatch.setattr(folder, "MOST_PIXELS", 4 * 100**2)
    options = ("--adapt", "zero-shot", "--steps", "1", "--workers", "1", "--out", "out")
    code, out, err = cli("restore", "photos", *options)
    assert code == 2
    assert re.search(r"huge.png: is 100x200, too large .* at most 100x100, ", err)
    assert "rgb.png: 128x128" in out
    assert sorted(path.name for path in (photos.parent / "out").iterdir()) == ["rgb.json", "rgb.png"]


def test_a_trained_network_is_adapted_to_each_photograph(cli: Cli, photos: Path) -> None:
    restored = {}
    for name, options in (("adapted", ("--steps", "2")), ("unadapted", ("--steps", "0"))):
        code, out, _ = cli("restore", "photos", *ZERO_SHOT, "--model", TINY, *options, "--out", name)
        assert code == 0
        assert "rgb.png: 256x256" in out
        record = json.loads((photos.parent / name / "rgb.json").read_text())
        assert (record["network"], record["scale"], record["steps"]) == (TINY, 4, {"network": int(options[1])})
        restored[name] = read_picture(photos.parent / name / "rgb.png").pixels
    assert np.any(restored["adapted"] != restored["unadapted"])


ZERO_SHOT = ("--adapt", "zero-shot")
TINY, TEACHER = "kdsr_tiny_mixed", "kdsr_tiny_pairs"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("restore", "photos/none.png", *ZERO_SHOT, "--out", "out"),
            "photos/none.png: there is no such file or folder",
        ),
        (("restore", "photos", *ZERO_SHOT, "--out", "photos"), "--out: photos is the folder of rgb.png"),
        (("restore", "photos", *ZERO_SHOT, "--out", "big.png"), "--out: big.png .* give a folder"),
        (("restore", "photos", "other/rgb.png", *ZERO_SHOT, "--out", "out"), "same name as .*photos/rgb.png"),
        (("restore", "photos", *ZERO_SHOT, "--steps", "1", "--budget", "2", "--out", "out"), "leave one of them out"),
        (("restore", "photos", *ZERO_SHOT, "--model", "x", "--out", "out"), "x: no such file"),
        (("restore", "photos", *ZERO_SHOT, "--arm", "x", "--out", "out"), "--arm: does not go with --adapt without"),
        (("restore", "photos", *ZERO_SHOT, "--self-ensemble", "--out", "out"), "--self-ensemble: does not go with"),
        (("restore", "photos", *ZERO_SHOT, "--model", TINY, "--scale", "2", "--out", "out"), "write --scale 4"),
        (("restore", "photos", *ZERO_SHOT, "--model", TEACHER, "--out", "out"), "the network is a teacher"),
        (("restore", "photos", *ZERO_SHOT, "--kernel", "k.npy", "--out", "out"), "--kernel: there is no file k.npy"),
        (
            ("restore", "photos/rgb.png", "--model", "x", "--steps", "3", "--out", "a.png"),
            "--steps: does not go with restore without --adapt",
        ),
        (("restore", "photos/rgb.png", "--out", "a.png"), "--scale S .*--model NETWORK, or --adapt zero-shot"),
        (
            ("restore", "photos/rgb.png", "--model", "zero_shot_maml_x2", "--scale", "4", "--out", "a.png"),
            "--scale: the network upscales by 2, not by 4; write --scale 2",
        ),
        (("restore", "photos", *ZERO_SHOT, "--compare", "--out", "out"), "--compare: does not go with --adapt"),
        (("kernel", "photos", "--out", "photos"), "--out: photos is the folder of rgb.png"),
        (("kernel", "nothing", "--out", "k"), "nothing: there is no such file or folder"),
    ],
)
def test_mistakes_are_named_before_the_work(cli: Cli, photos: Path, arguments: tuple[str, ...], words: str) -> None:
    (photos.parent / "other").mkdir()
    cv2.imwrite(str(photos.parent / "other/rgb.png"), BGR)
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert re.search(words, err), err
    assert not (photos.parent / "out").exists()
