"""Files appear whole or not at all, and nothing that exists is replaced without being asked for."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from metarestore.config.dump import dump_yaml
from metarestore.config.model import FSRCNNSpec
from metarestore.errors import UserError
from metarestore.evaluation.results import write_json
from metarestore.files import require_new, require_other, require_writable, write_atomically
from metarestore.models.build import build_model
from metarestore.models.checkpoint import save_model
from metarestore.models.parameters import initial_vector
from metarestore.reports.pictures import save_png
from metarestore.tasks.images import write_image

WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "bytes": ("a.bin", lambda path: write_atomically(path, b"new")),
    "text": ("a.txt", lambda path: write_atomically(path, "ü")),
    "image": ("a.png", lambda path: write_image(path, np.zeros((4, 4, 3), np.uint8))),
    "figure": ("f.png", lambda path: save_png(Figure(), path)),
    "figures of a table": ("a.json", lambda path: write_json(path, {"psnr_y": 1.0})),
    "configuration": ("a.yaml", lambda path: dump_yaml({"seed": 0}, path)),
    "network": ("a.safetensors", lambda path: save_model(path, FSRCNNSpec(), 4, _weights())),
}


def _weights() -> torch.Tensor:
    return initial_vector(build_model(FSRCNNSpec(), 4, seed=0))


@pytest.mark.parametrize(("name", "write"), WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_destroys_nothing(name, write, number, tmp_path, monkeypatch):
    path = tmp_path / name
    path.write_bytes(b"what was there")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    remedy = "make room" if number in (errno.ENOSPC, errno.EDQUOT) else "choose another folder"
    with pytest.raises(UserError, match=f"{name}: cannot be written .*; {remedy}"):
        write(path)
    assert path.read_bytes() == b"what was there"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(("name", "write"), WRITERS.values(), ids=WRITERS)
def test_a_file_is_replaced_whole_and_nothing_else_is_left(name, write, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"what was there")
    write(path)
    assert path.read_bytes() != b"what was there"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["a" * 255, "a." + "ä" * 126, "ä" * 127, "-rf", "a b%?#[x].png"])
def test_every_name_that_the_file_system_allows_can_be_written(name, tmp_path):
    write_atomically(tmp_path / name, b"x")
    assert (tmp_path / name).read_bytes() == b"x"


def test_a_folder_that_is_missing_is_created_and_one_that_is_a_file_is_named(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "c.txt", "x")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "x"
    with pytest.raises(UserError, match=r"c\.txt/d: cannot be written"):
        write_atomically(tmp_path / "a" / "b" / "c.txt" / "d", "x")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.jpg", r"--out: .*a\.jpg must end in \.png; choose another name"),
        ("a", r"must end in \.png"),
        ("nowhere/a.png", "choose a file in an existing, writable folder"),
        ("file/a.png", "choose a file in an existing, writable folder"),
        ("folder.png", "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_refused_beforehand(name, message, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=message):
        require_writable(tmp_path / name, "--out", endings=(".png",))
    require_writable(tmp_path / "A.PNG", "--out", endings=(".png",))
    require_writable(tmp_path / "new" / "folder" / "a.png", "--out", endings=(".png",), create=True)
    with pytest.raises(UserError, match="cannot be written"):
        require_writable(tmp_path / "file" / "folder" / "a.png", "--out", create=True)


def test_an_existing_file_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "a.png"
    require_new(path, "--out", overwrite=False)
    path.symlink_to(tmp_path / "gone")
    for _ in ("a link to nothing", "a file"):
        with pytest.raises(UserError, match=r"--out: .*a\.png exists already; .* --overwrite"):
            require_new(path, "--out", overwrite=False)
        require_new(path, "--out", overwrite=True)
        path.unlink()
        path.write_text("")


@pytest.mark.parametrize("link", [None, "symbolic", "hard", "dots"])
def test_an_input_is_never_the_output_whatever_it_is_called(link, tmp_path):
    photo, out = tmp_path / "photo.png", tmp_path / "out.png"
    photo.write_text("")
    if link == "symbolic":
        out.symlink_to(photo)
    elif link == "hard":
        out.hardlink_to(photo)
    else:
        out = tmp_path / ".." / tmp_path.name / "photo.png" if link else photo
    with pytest.raises(UserError, match="is the photograph itself"):
        require_other(out, "--out", {"the photograph": photo})
    require_other(tmp_path / "new.png", "--out", {"the photograph": photo})
