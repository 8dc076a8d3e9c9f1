"""Commands that write a named file: checked before the work, never over an existing file unasked or over the input."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from metarestore.config.model import FSRCNNSpec
from metarestore.models.build import build_model
from metarestore.models.checkpoint import save_model
from metarestore.models.parameters import initial_vector
from metarestore.tasks.images import write_image
from metarestore.tasks.photographs import read_picture

Cli = Callable[..., tuple[int, str, str]]
RGB = np.kron(np.random.default_rng(0).integers(0, 256, (12, 14, 3)), np.ones((4, 4, 1))).astype(np.uint8)
GRAY, ALPHA = RGB[..., 0], RGB[..., 1]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def network(path: Path, seed: int = 0) -> None:
    spec = FSRCNNSpec(d=8, s=4, m=1)
    save_model(path, spec, 2, initial_vector(build_model(spec, 2, seed)))


@pytest.fixture
def cli(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs the command line in a folder with a photograph, a run and a comparison of two arms."""
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "photo.png", RGB)
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos/one.png", RGB)
    for seed, name in enumerate(("run/model", "run/adapted", "both/arms/a/adapted", "both/arms/b/adapted")):
        network(tmp_path / f"{name}.safetensors", seed)
    figures = '{"arms": {"bicubic": {"psnr_y": [20]}, "a": {"psnr_y": [20.5]}, "b": {"psnr_y": [21.25]}}}'
    (tmp_path / "both/results.json").write_text(figures)
    return cli


RESTORE = ("restore", "photo.png", "--model", "run", "--out")
WRITERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "restore": ("o.png", RESTORE),
    "evaluate": ("o.json", ("evaluate", "--bicubic", "--data", "photos", "--scale", "2", "--json")),
    "preview": ("o.png", ("tasks", "preview", "jpeg", "--count", "1", "--out")),
    "gallery": ("o/index.html", ("tasks", "gallery", "bicubic", "--out")),
    "fit": ("o.yaml", ("tasks", "fit", "--pairs", "pairs", "--out")),
    "its kernels": ("o/kernels.npy", ("tasks", "fit", "--pairs", "pairs", "--out")),
    "its picture": ("o/fit.png", ("tasks", "fit", "--pairs", "pairs", "--out")),
    "pairs check": ("o.json", ("pairs", "check", "pairs", "--json")),
    "its sheet": ("o.png", ("pairs", "check", "pairs", "--sheet")),
    "describe": ("o.json", ("describe", "--model", "kdsr_tiny_mixed", "--images", "photos", "--out")),
    "train": ("o.json", ("train", "experiments/none.yaml", "--json")),
    "graph export": ("o.csv", ("graph", "export", "run", "--out")),
    "graph merge": ("o.json", ("graph", "merge", "run", "--out")),
}
NAMED = {"gallery": "o", "its kernels": "o.yaml", "its picture": "o.yaml"}


@pytest.mark.parametrize("name", WRITERS)
def test_an_existing_file_is_not_replaced_before_the_user_says_so(name: str, cli: Cli, tmp_path: Path) -> None:
    path, command = WRITERS[name]
    if name == "train":
        assert cli("init", "p")[0] == 0
        command = ("train", "p/experiments/first.yaml", "--json")
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text("what was there")
    code, _, err = cli(*command, NAMED.get(name, path))
    assert code == 2
    assert f"{path} exists already; choose another name, or add --overwrite to replace it" in err
    assert len(err.splitlines()) == 1
    assert (tmp_path / path).read_text() == "what was there"


@pytest.mark.parametrize("name", ["restore", "evaluate", "preview"])
def test_a_new_file_needs_nothing_and_an_existing_one_the_option(name: str, cli: Cli, tmp_path: Path) -> None:
    path, command = WRITERS[name]
    assert cli(*command, path)[0] == 0
    first = (tmp_path / path).read_bytes()
    (tmp_path / path).write_text("changed")
    assert cli(*command, path, "--overwrite")[0] == 0
    assert (tmp_path / path).read_bytes() == first


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("o.bmp", "--out: o.bmp must end in .png, .jpg, .jpeg, .webp, .tif, .tiff, or be an existing folder"),
        (".", "--out: . is the folder of photo.png"),
        ("nowhere/o.png", "--out: nowhere/o.png cannot be written"),
        ("photo.png/o.png", "--out: photo.png/o.png cannot be written"),
        ("photo.png", "--out: photo.png is the photograph itself, which must not be replaced"),
        ("./photos/../photo.png", "is the photograph itself"),
        ("link.png", "is the photograph itself"),
    ],
)
def test_restore_refuses_what_it_cannot_write_before_it_restores(
    out: str, message: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link.png").symlink_to("photo.png")
    monkeypatch.setattr(
        "metarestore.restoration.photograph.strip_restorer", lambda *_, **__: pytest.fail("restored first")
    )
    before = (tmp_path / "photo.png").read_bytes()
    code, _, err = cli(*RESTORE, out, "--overwrite")
    assert (code, len(err.splitlines())) == (2, 1)
    assert message in err
    assert (tmp_path / "photo.png").read_bytes() == before


PICTURES = {
    "rgb": RGB,
    "gray": GRAY,
    "gray and alpha": np.dstack([GRAY, ALPHA]),
    "rgb and alpha": np.dstack([RGB, ALPHA]),
    "16 bit": RGB.astype(np.uint16) * 257,
    "16 bit and alpha": np.dstack([RGB, ALPHA]).astype(np.uint16) * 257,
    "16 bit gray": GRAY.astype(np.uint16) * 257,
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("icc", [None, SRGB])
def test_restore_keeps_what_a_photograph_has(name: str, icc: bytes | None, cli: Cli, tmp_path: Path) -> None:
    pixels = PICTURES[name]
    profile = icc and (icc if pixels.shape[2:] in ((3,), (4,)) else icc[:16] + b"GRAY" + icc[20:])
    write_image(tmp_path / "photo.png", pixels, profile)
    code, out, err = cli(*RESTORE, "o.png")
    assert (code, err) == (0, "")
    assert out == "Network: the adapted network of run\no.png: 56x48 -> 112x96\n"
    restored = read_picture(tmp_path / "o.png")
    assert restored.pixels.dtype == pixels.dtype
    assert restored.pixels.shape == (96, 112, *pixels.shape[2:])
    assert restored.icc == profile
    small = cv2.resize(restored.pixels.astype(np.float32), (56, 48), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(small.ravel(), pixels.astype(float).ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    ("options", "said", "file"),
    [
        (("--model", "run"), "the adapted network of run", "run/adapted"),
        (("--model", "run", "--weights", "unadapted"), "the unadapted network of run", "run/model"),
        (("--model", "both"), "arm 'b' of both, the best of 2 by mean gain (+1.25 dB)", "both/arms/b/adapted"),
        (("--model", "both", "--arm", "a"), "the adapted network of arm 'a' of both", "both/arms/a/adapted"),
    ],
)
def test_commands_say_which_network_they_take(
    options: tuple[str, ...], said: str, file: str, cli: Cli, tmp_path: Path
) -> None:
    code, out, _ = cli("restore", "photo.png", *options, "--out", "o.png")
    assert code == 0
    assert f"{said}\n" in out
    assert cli("restore", "photo.png", "--model", f"{file}.safetensors", "--out", "same.png")[0] == 0
    assert (tmp_path / "o.png").read_bytes() == (tmp_path / "same.png").read_bytes()
    code, out, _ = cli("evaluate", *options, "--data", "photos", "--scale", "2", "--json", "e.json")
    assert code == 0
    assert f"{said}\n" in out


def test_the_commands_and_the_code_of_the_page_work(cli: Cli, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs/photographs.md").read_text()
    (tmp_path / "both").rename(tmp_path / "runs_both")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs_both").rename(tmp_path / "runs/both")
    (tmp_path / "runs/both/arms/a").rename(tmp_path / "runs/both/arms/weighted")
    (tmp_path / "run").rename(tmp_path / "runs/first")
    lines = [line for block in re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S) for line in block.splitlines()]
    assert len(lines) == 6
    for line in lines:
        code, _, err = cli(*shlex.split(line)[1:])
        assert (code, err) == (0, ""), line
    (tmp_path / "restored.png").unlink()
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    exec(code, {})  # it is ours
    assert read_picture(tmp_path / "restored.png").pixels.shape == (192, 224, 3)


def test_evaluate_refuses_an_arm_of_bicubic(cli: Cli) -> None:
    code, _, err = cli("evaluate", "--bicubic", "--arm", "a", "--data", "photos", "--scale", "2")
    assert (code, err) == (2, "--arm, --weights: go with --model; leave them out\n")


def test_restore_names_a_damaged_photograph_and_goes_on(
    cli: Cli, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(np.tile(RGB, (4, 4, 1))).save(tmp_path / "whole.jpg", quality=95)
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    assert cli("restore", "cut.jpg", "--model", "run", "--out", "o.png")[0] == 0
    damage, *others = [record.getMessage() for record in caplog.records]
    assert "cut.jpg: is damaged (" in damage
    assert all("differs by" in other for other in others)  # the colour of a network that was not trained
