"""The commands `metarestore tasks ...`: what they write and say, and one line for every mistake."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import pytest

from metarestore.sampling import sample

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Runs `metarestore tasks` in this process, in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return partial(cli, "tasks")


def test_sample_and_replay(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("sample", "jpeg", "--count", 3, "--patch", 32, "--out", "pairs")
    assert (code, out, err) == (0, "pairs: 3 pairs of jpeg, seed 0\n", "")
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    sides = [f"pairs/{side}/00000{index}.png" for side in ("hr", "lr") for index in range(3)]
    assert names == sorted([*sides, "pairs/params.jsonl"])
    code, out, _ = cli("sample", "--replay", "pairs/params.jsonl", "--out", "again")
    assert (code, out) == (0, "again: 3 pairs, all identical\n")
    assert (tmp_path / "again/params.jsonl").read_bytes() == (tmp_path / "pairs/params.jsonl").read_bytes()


def test_options_of_sample(cli: Cli, tmp_path: Path) -> None:
    small = ("--patch", 48, "--count", 2)
    assert cli("sample", "noise_gaussian", "--scale", 2, "--split", "validation", "--out", "a", *small)[0] == 0
    assert cv2.imread(str(tmp_path / "a/lr/000000.png")).shape == (24, 24, 3)
    code, _, err = cli("sample", "noise_gaussian", "--data", "a/hr", "--start", 7, "--out", "b", *small)
    assert (code, err) == (0, "")
    assert (tmp_path / "b/hr/000008.png").is_file()
    assert cli("sample", "--replay", "b", "--data", "a/hr", "--out", "c")[0] == 0
    assert cli("sample", "--replay", "b", "--data", "a/lr", "--out", "d")[0] == 2


def test_a_difference_is_exit_code_2(cli: Cli, tmp_path: Path) -> None:
    cli("sample", "jpeg", "--count", 2, "--patch", 32, "--out", "pairs")
    path = tmp_path / "pairs/params.jsonl"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, *(line.replace('"lr_sha256":"', '"lr_sha256":"0')[:-3] for line in rest)]))
    assert cli("sample", "--replay", "pairs", "--out", "again")[0] == 2


def test_an_interrupted_sample_says_what_is_there(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written: list[Path] = []

    def stopping(path: Path, content: bytes) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        path.write_bytes(content)

    monkeypatch.setattr(sample, "write_atomically", stopping)
    code, out, err = cli("sample", "jpeg", "--count", 9, "--patch", 32, "--out", "pairs")
    assert (code, err) == (130, "")
    assert "pairs holds 2 of 9 pairs" in out
    assert len((tmp_path / "pairs/params.jsonl").read_text().splitlines()) == 3


def test_previews(cli: Cli, tmp_path: Path) -> None:
    for out, *options in (
        ("one.png", "jpeg"),
        ("two.png", "jpeg", "bicubic", "--scale", 2),
        ("strip.png", "jpeg", "noise_jpeg", "--sweep", "jpeg.quality"),
    ):
        assert cli("preview", *options, "--count", 2, "--out", out)[:2] == (0, f"{out}\n")
        assert cv2.imread(str(tmp_path / out)).shape[0] > 200


def test_gallery(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("gallery", "jpeg", "--out", "pages")
    assert (code, out, err) == (0, "pages/index.html\n", "")
    assert "task-jpeg" in (tmp_path / "pages/index.html").read_text()


MISTAKES = {
    "no task": (["sample", "--out", "x"], "name a task"),
    "unknown task": (["sample", "jpg", "--out", "x"], "did you mean 'jpeg'?"),
    "replay of a task": (["sample", "jpeg", "--replay", "x", "--out", "y"], "NAME: does not go with --replay"),
    "replay with a seed": (["sample", "--seed", "0", "--replay", "x", "--out", "y"], "--seed: does not go with"),
    "replay of nothing": (["sample", "--replay", "x", "--out", "y"], "x: cannot be read"),
    "split of a folder": (["sample", "jpeg", "--data", ".", "--split", "test", "--out", "y"], "--split: does not go"),
    "unknown split": (["sample", "jpeg", "--split", "tset", "--out", "y"], "unknown embedded split 'tset'"),
    "no such folder": (["sample", "jpeg", "--data", "photos", "--out", "y"], "photos: no such folder"),
    "wrong patch": (["sample", "jpeg", "--patch", "30", "--out", "y"], "write 28"),
    "full folder": (["sample", "jpeg", "--out", "full"], "full already contains files"),
    "unknown parameter": (["preview", "jpeg", "--sweep", "jpeg.qualty"], "did you mean 'jpeg.quality'?"),
    "sheet that is too tall": (["preview", *["jpeg"] * 2, "--out", "full/a/b.png"], "cannot be written"),
    "gallery in a file": (["gallery", "jpeg", "--out", "full/a"], "cannot be written"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").write_text("")
    arguments, expected = MISTAKES[name]
    code, _, err = cli(*arguments)
    assert code == 2, err
    assert expected in err
    assert len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"quality":', '"qualty":', "quality is missing"),
        ('"subsampling":420', '"subsampling":411', "jpeg.subsampling"),
        ('"op":"jpeg"', '"op":"jpg"', "unknown operation 'jpg'"),
        ('"turn":', '"turn":9', "turn"),
        ('"index":0', '"index":-1', "index"),
        ('"scale":4,"patch"', '"scale":0,"patch"', "scale"),
    ],
)
def test_an_edited_file_of_parameters_is_explained(cli: Cli, tmp_path: Path, old: str, new: str, message: str) -> None:
    cli("sample", "jpeg", "--count", 1, "--patch", 32, "--out", "pairs")
    path = tmp_path / "pairs/params.jsonl"
    header, record = path.read_text().splitlines()
    edited = (
        (header.replace(old, new), record) if old in header and "scale" in old else (header, record.replace(old, new))
    )
    assert edited != (header, record)
    path.write_text("\n".join(edited) + "\n")
    code, _, err = cli("sample", "--replay", "pairs/params.jsonl", "--out", "again")
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_picture_of_another_kind_is_refused(cli: Cli) -> None:
    code, _, err = cli("preview", "jpeg", "--out", "sheet.jpg")
    assert (code, err) == (2, "--out: sheet.jpg must end in .png; choose another name\n")
