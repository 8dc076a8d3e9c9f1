"""What works in a task file but is hardly meant is reported once: LR beside HR, kernels that are turned around."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from metarestore import notices
from metarestore.degradations import Pipeline, replay
from metarestore.degradations.kernels import gaussian_kernel
from metarestore.project import catalogue, read_task
from metarestore.tasks.remarks import lr_shift, remarks

BLUR = {"op": "gaussian_blur", "sigma": [1, 2]}
BLOCK = {**BLUR, "centre": "block"}
MOTION = {"op": "motion_blur", "length": [2, 8], "angle": [0, 180]}
NEAREST, BICUBIC = ({"op": "downsample", "method": method} for method in ("nearest", "bicubic"))
NOISE, RESIZE = {"op": "gaussian_noise", "sigma": 3}, {"op": "resize", "factor": [0.5, 1.5]}


def kernel_file(
    folder: Path, down: float = 0.0, right: float = 0.0, size: int = 15, **keys: object
) -> dict[str, object]:
    """Writes a kernel whose mass centre lies beside its middle pixel (the upper left one of an even size)."""
    y, x = np.mgrid[:size, :size] - float((size - 1) // 2)
    path = folder / f"k{down}{right}{size}.npy"
    np.save(path, np.exp(-0.5 * ((y - down) ** 2 + (x - right) ** 2) / 1.5**2))
    return {"op": "kernel_file", "path": str(path), **keys}


def found(entries: list[dict[str, object]], scale: int = 4) -> list[tuple[tuple[str | int, ...], str]]:
    return list(remarks(Pipeline.model_validate(entries), scale))


RIGHT = {
    "pixel and bicubic": ([BLUR, BICUBIC], 4),
    "block and nearest": ([BLOCK, NEAREST], 4),
    "odd scale": ([BLUR, NEAREST], 3),
    "block at an odd scale": ([BLOCK, BICUBIC], 3),
    "no kernel": ([NEAREST], 4),
    "after": ([BICUBIC, BLOCK], 4),
    "two, of which one is at block": ([BLOCK, MOTION, NEAREST], 2),
    "resized": ([RESIZE, BLUR, NEAREST], 4),
    "choice": ([{"op": "one_of", "choices": [BLOCK, {**MOTION, "centre": "block"}]}, NOISE, NEAREST], 4),
}


@pytest.mark.parametrize(("entries", "scale"), RIGHT.values(), ids=RIGHT)
def test_nothing_is_said_of_kernels_that_go_with_downsample(entries, scale):
    assert found(entries, scale) == []


WRONG = {
    "pixel and nearest": ([BLUR, NEAREST], 4, (0,), "0.5 HR pixels up and 0.5 HR pixels left", "block"),
    "at scale 2": ([MOTION, NOISE, NEAREST], 2, (0,), "up", "block"),
    "block and bicubic": ([BLOCK, BICUBIC], 4, (0,), "0.5 HR pixels down and 0.5 HR pixels right", "pixel"),
    "twice at block": ([BLOCK, BLOCK, NEAREST], 4, (1,), "down", "pixel"),
    "one of two": ([{"op": "one_of", "choices": [BLOCK, MOTION]}, NEAREST], 4, (0, "choices", 1), "up", "block"),
    "drawn method": ([BLOCK, {"op": "downsample", "method": ["area", "bilinear"]}], 4, (0,), "down", "pixel"),
}


@pytest.mark.parametrize(("entries", "scale", "path", "way", "centre"), WRONG.values(), ids=WRONG)
def test_a_phase_that_contradicts_downsample_is_said_with_its_remedy(entries, scale, path, way, centre):
    ((at, text),) = found(entries, scale)
    assert at == path
    assert way in text
    assert text.endswith(f"write centre: {centre}")


@pytest.mark.parametrize("turns", [1, 2])
def test_inside_what_repeats_the_structure_is_named(turns):
    ((at, text),) = found([{"op": "repeat", "times": turns, "steps": [BLUR]}, NEAREST])
    assert at == (0,)
    assert "change the centre of the kernels in it" in text


@pytest.mark.parametrize(
    ("down", "right", "size", "last", "scale", "said"),
    [
        (0.5, 0.5, 16, NEAREST, 4, False),
        (0.5, 0.5, 16, BICUBIC, 4, True),
        (1.5, 1.5, 16, NEAREST, 4, True),  # KernelGAN and DIV2KRK at x4: pixel 0 of a block is kept there
        (0.5, 0.5, 11, NEAREST, 2, False),  # KernelGAN at x2
        (1.0, 1.0, 15, NEAREST, 3, True),
        (0.0, 0.0, 15, BICUBIC, 4, False),
        (0.3, -0.2, 15, BICUBIC, 4, False),  # what is left of a camera's misalignment
        (0.0, -2.0, 15, BICUBIC, 4, True),
    ],
)
def test_kernels_of_a_file_count_by_their_mass_centre(down, right, size, last, scale, said, tmp_path):
    entry = kernel_file(tmp_path, down, right, size, recentre=False)
    texts = [text for _, text in found([entry, last], scale)]
    assert bool(texts) is said
    assert all("remove recentre: false" in text for text in texts)
    recentred = kernel_file(tmp_path, down, right, size, centre="block" if last is NEAREST else "pixel")
    assert found([recentred, last], scale) == []


@pytest.mark.parametrize("entries", [[BLUR, NEAREST], [BLOCK, BICUBIC], [BLOCK, NEAREST], [MOTION, BICUBIC]])
def test_the_shift_is_that_of_a_slope(entries):
    draws = Pipeline.model_validate(entries).draw((0,), 4)
    down, right = lr_shift(draws)
    slope = torch.arange(128.0).expand(1, 3, 128, 128) / 128
    lr = replay(slope.expand(1, 3, 128, 128), draws, [0])[0, 0, 10:-10] * 128
    centres = 4 * torch.arange(32.0) + 1.5
    assert (lr - centres)[:, 10:-10].mean().item() == pytest.approx(right, abs=0.1)
    assert down == right


@pytest.mark.parametrize(
    ("name", "keys", "said"),
    [
        ("Levin09.mat", {}, "source: levin"),
        ("levin09_v7.MAT", {}, "source: levin"),
        ("kernels_12.mat", {}, "source: kair"),
        ("Levin09.mat", {"source": "levin"}, None),
        ("Levin09.mat", {"orientation": "correlation"}, None),
        ("img_1_kernel_x2.mat", {}, None),
    ],
)
def test_well_known_files_are_recognised(name, keys, said):
    texts = [text for _, text in found([{"op": "kernel_file", "path": name, **keys}], 1)]
    assert len(texts) == (said is not None)
    assert all(f"write {said}, or orientation: correlation" in text for text in texts)


def test_a_task_file_is_reported_once_with_line_and_column(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(notices, "_given", set())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tasks").mkdir()
    np.save(tmp_path / "levin1.npy", gaussian_kernel(1.5, 1.0, 0.0))
    path = tmp_path / "tasks/t.yaml"
    path.write_text(
        "kind: synthetic\nscale: 4\npipeline:\n  - {op: kernel_file, path: levin1.npy}\n"
        "  - {op: downsample, method: nearest}\n"
    )
    for _ in range(2):
        read_task(path)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("tasks/t.yaml:4:29: pipeline[0].path: levin1.npy is known to hold kernels")
    assert second.startswith("tasks/t.yaml:4:5: pipeline[0]: LR is shifted relative to HR")


@pytest.mark.parametrize("path", sorted((catalogue() / "tasks").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_catalogue_gives_no_reason(path, monkeypatch, caplog):
    monkeypatch.setattr(notices, "_given", set())
    read_task(path)
    assert caplog.records == []
