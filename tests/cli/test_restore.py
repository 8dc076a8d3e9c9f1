"""`metarestore restore` with a network: folders, formats, resuming, colours, factors, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metarestore import notices
from metarestore.config.engine import RayEngineSpec
from metarestore.config.model import FSRCNNSpec
from metarestore.engines.local import LocalEngine
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, save_model
from metarestore.models.parameters import initial_vector
from metarestore.models.restore import image_restorer
from metarestore.tasks.photographs import read_picture, write_image

Cli = Callable[..., tuple[int, str, str]]
RGB = np.kron(np.random.default_rng(0).integers(0, 256, (6, 7, 3)), np.ones((4, 4, 1))).astype(np.uint8)
RESTORE = ("restore", "photos", "--model", "tiny.safetensors")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two photographs and a broken file, beside a network of factor 4."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notices, "_given", set())
    spec = FSRCNNSpec(d=8, s=4, m=1)
    save_model(tmp_path / "tiny.safetensors", spec, 4, initial_vector(build_model(spec, 4, 0)))
    folder = tmp_path / "photos"
    folder.mkdir()
    write_image(folder / "one.png", RGB)
    Image.fromarray(RGB).save(folder / "two.jpg", quality=98)
    (folder / "broken.png").write_bytes((folder / "one.png").read_bytes()[:60])
    return folder


def test_a_broken_file_fails_alone_and_the_others_are_kept(cli: Cli, photos: Path) -> None:
    code, out, err = cli(*RESTORE, "--out", "out")
    assert code == 2
    assert re.fullmatch(r".*photos/broken.png: damaged, or not .*\n", err)
    assert "out/one.png: 28x24 -> 112x96\nout/two.png: 28x24 -> 112x96\n" in out
    results = photos.parent / "out"
    before = {path.name: path.stat().st_mtime_ns for path in results.iterdir()}
    assert set(before) == {"one.png", "two.png"}
    code, out, err = cli(*RESTORE, "--out", "out")
    assert (code, out) == (2, "")
    assert "one.png exists already; add --resume to keep finished files" in err
    write_image(photos / "broken.png", RGB)
    code, out, err = cli(*RESTORE, "--out", "out", "--resume")
    assert (code, err) == (0, "")
    assert out == "2 of 3 photographs are restored already\nout/broken.png: 28x24 -> 112x96\n"
    after = {path.name: path.stat().st_mtime_ns for path in results.iterdir()}
    assert {name: after[name] for name in before} == before
    assert cli(*RESTORE, "--out", "out", "--overwrite")[0] == 0
    assert {path.stat().st_mtime_ns for path in results.iterdir()}.isdisjoint(after.values())


def test_two_workers_run_on_the_engine_and_write_the_same_bytes(
    cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "broken.png").unlink()
    specs = []

    def local(spec: object) -> LocalEngine:
        specs.append(spec)
        return LocalEngine()

    monkeypatch.setattr("metarestore.engines.build.build_engine", local)  # tests/engines run it on Ray
    for workers in ("1", "2"):
        assert cli(*RESTORE, "--workers", workers, "--out", f"by{workers}")[0] == 0
    contents = [{path.name: path.read_bytes() for path in (photos.parent / f"by{n}").iterdir()} for n in (1, 2)]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2
    assert specs == [RayEngineSpec(kind="ray", workers=2)]


@pytest.mark.parametrize(
    ("out", "options", "written"),
    [
        ("big.jpg", (), "big.jpg"),
        ("big.JPEG", ("--quality", "80"), "big.JPEG"),
        ("big.webp", (), "big.webp"),
        ("big.tiff", ("--format", "tiff"), "big.tiff"),
        ("folder", (), "folder/one.png"),
        ("folder", ("--format", "jpeg"), "folder/one.jpg"),
        ("folder", ("--format", "tiff", "--compare"), "folder/one.tif"),
        ("folder/deeper", ("--format", "webp"), "folder/deeper/one.webp"),
    ],
)
def test_the_name_of_the_output_or_an_option_sets_the_format(
    out: str, options: tuple[str, ...], written: str, cli: Cli, photos: Path
) -> None:
    code, said, _ = cli("restore", photos / "one.png", "--model", "tiny.safetensors", "--out", out, *options)
    assert code == 0
    assert f"{written}: 28x24 -> 112x96\n" in said
    assert read_picture(photos.parent / written).pixels.shape == (96, 112, 3)
    sheet = (photos.parent / written).with_name("one.compare.png")
    assert sheet.exists() == ("--compare" in options)


def test_quality_sets_the_size_of_the_file(cli: Cli, photos: Path) -> None:
    sizes = []
    for quality in ("30", "95"):
        options = ("--model", "tiny.safetensors", "--quality", quality, "--out", f"{quality}.jpg")
        assert cli("restore", photos / "one.png", *options)[0] == 0
        sizes.append((photos.parent / f"{quality}.jpg").stat().st_size)
    assert sizes[0] < sizes[1]


def test_a_smaller_factor_is_downsampled_from_that_of_the_network(cli: Cli, photos: Path) -> None:
    command = ("restore", photos / "one.png", "--model", "tiny.safetensors", "--scale", "2", "--out", "small.png")
    code, out, _ = cli(*command)
    assert code == 0
    assert out.startswith("Scale: x2, downsampled from x4, by which the network upscales\n")
    restored = read_picture(photos.parent / "small.png").pixels
    network = load_model(photos.parent / "tiny.safetensors")
    np.testing.assert_array_equal(restored, image_restorer(network, scale=2)(RGB))
    large = Image.fromarray(image_restorer(network)(RGB)).resize((56, 48), Image.Resampling.BICUBIC)
    # Pillow resamples rounded values, and all channels; chroma is upscaled to the smaller size here.
    assert np.abs(restored.astype(int) - np.asarray(large)).mean() < 5


def test_without_a_network_of_the_factor_that_of_the_next_larger_one_restores(cli: Cli, photos: Path) -> None:
    code, out, _ = cli("restore", photos / "one.png", "--scale", "3", "--out", "a.png")
    assert code == 0
    assert re.match(r"Network: \w+_x4, the shipped one .* at x4 .*\nScale: x3, downsampled from x4", out)
    assert read_picture(photos.parent / "a.png").pixels.shape == (72, 84, 3)


def test_colours_are_kept_if_asked_and_a_shift_is_reported(
    cli: Cli, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = FSRCNNSpec(d=8, s=4, m=1)
    vector = initial_vector(build_model(spec, 4, 0))
    vector[-1] += 0.03  # the bias of the last layer
    save_model(photos.parent / "bright.safetensors", spec, 4, vector)
    command = ("restore", photos / "one.png", "--model", "bright.safetensors")
    assert cli(*command, "--out", "plain.png")[0] == 0
    assert re.search(r"one.png: the mean of a channel differs by \d+\.\d\d grey levels .* --keep-colours", caplog.text)
    caplog.clear()
    assert cli(*command, "--keep-colours", "--out", "kept.png")[0] == 0
    assert caplog.text == ""


def test_a_photograph_that_does_not_fit_into_memory_is_refused(
    cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metarestore.restoration.memory.available_memory", lambda: 10_000)
    code, _, err = cli("restore", photos / "one.png", "--model", "tiny.safetensors", "--out", "a.jpg")
    assert code == 2
    assert re.search(r"one.png: restoring 28x24 to 112x96 pixels as JPEG takes about .* GB of memory, and 0.0 GB", err)
    assert not (photos.parent / "a.jpg").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("photos", "--out", "a.png"), "--out: a.png is a file or has a file's name; give a folder"),
        (("photos", "--out", "photos"), "--out: photos is the folder of .*"),
        (("photos", "none.png", "--out", "out"), "none.png: there is no such file or folder"),
        (("photos", "--out", "out", "--quality", "90"), "--quality: goes with JPEG and WebP, and .* is lossless"),
        (("photos/one.png", "--out", "a.png", "--format", "jpeg"), "--format: is jpeg, but a.png ends in .png"),
        (("photos/one.png", "--out", "a.gif"), "--out: a.gif must end in .png, .jpg, "),
        (("photos", "--out", "out", "--resume", "--overwrite"), "--resume, --overwrite: .* leave one of them out"),
        (("photos", "--out", "out", "--sheet"), "--sheet: does not go with restore without --adapt"),
    ],
)
def test_mistakes_are_named_before_the_work(cli: Cli, photos: Path, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = cli("restore", *arguments, "--model", "tiny.safetensors")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert re.search(words, err), err
    assert not (photos.parent / "out").exists()
