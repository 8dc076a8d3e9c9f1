"""Samples: pairs of images that can be made again, to the bit, from the file beside them."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarestore.errors import UserError
from metarestore.project import Project
from metarestore.sampling import record, sample
from metarestore.sampling.record import FILE, Header, Record, read_samples
from metarestore.sampling.replay import Replay
from metarestore.sampling.sample import Sample, Sampler, new_header, sha256, write_samples
from metarestore.tasks.images import ImageSource, ImageStore, read_image, write_image
from metarestore.tasks.pairs import PairsSpec, open_pairs
from metarestore.tasks.spec import content_hash
from metarestore.tasks.synthetic import SyntheticSpec, SyntheticTasks
from metarestore.tasks.task import Episode
from metarestore.tasks.vectors import draw_matrix

REPOSITORY = Path(__file__).parents[1]
SPEC = SyntheticSpec.model_validate(
    {
        "kind": "synthetic",
        "scale": 4,
        "pipeline": [
            {"op": "gamma", "exponent": {"per_scale": {2: [1, 2], 4: [0.5, 2]}}, "probability": 0.5},
            {"op": "downsample", "method": ["bicubic", "area"]},
            {"op": "gaussian_noise", "sigma": [0, 20]},
            {"op": "jpeg", "quality": [40, 90]},
        ],
    }
)


def header(spec: SyntheticSpec | PairsSpec = SPEC, **options: Any) -> Header:
    return new_header("mine", spec, **{"seed": 0, "patch": 64, **options})


def write(folder: Path, count: int = 4, start: int = 0, **options: Any) -> Path:
    head = header(**options)
    assert write_samples(folder, head, Sampler(head).samples(start, count)) == count
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three photographs."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abc":
        write_image(folder / f"{name}.png", rng.integers(0, 256, (80, 96, 3), np.uint8))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def replayed(folder: Path, out: Path, data: Path | None = None) -> list[str]:
    """Makes the samples of a folder again, and returns what is said about them."""
    again = Replay(folder, data)
    write_samples(out, again.header, again.samples())
    return again.problems()


def change(folder: Path, line: int, **values: Any) -> None:
    """Changes keys of a line of the file of parameters."""
    lines = (folder / FILE).read_text().splitlines()
    lines[line] = json.dumps(json.loads(lines[line]) | values)
    (folder / FILE).write_text("\n".join(lines) + "\n")


def test_the_file_describes_the_images(tmp_path: Path) -> None:
    head, records = read_samples(write(tmp_path / "out"))
    assert [one.name for one in records] == ["000000", "000001", "000002", "000003"]
    for one in records:
        lr, hr = (read_image(tmp_path / "out" / side / f"{one.name}.png").pixels for side in ("lr", "hr"))
        assert (lr.shape, hr.shape) == ((16, 16, 3), (64, 64, 3))
        assert (sha256(lr), sha256(hr)) == (one.lr_sha256, one.hr_sha256)
        assert len(one.vector) == len(head.columns)


def test_the_header_is_complete_in_itself(tmp_path: Path) -> None:
    head, records = read_samples(write(tmp_path / "out"))
    assert head.spec == SPEC
    assert content_hash(head.spec) == head.content == content_hash(SPEC)
    assert set(head.versions) >= {"metarestore", "numpy", "opencv", "torch"}
    columns, matrix = draw_matrix(SPEC.pipeline, [one.task_draw(head).degradations for one in records], SPEC.scale)
    assert columns == head.columns
    np.testing.assert_array_equal(matrix, np.array([one.vector for one in records], dtype=float))


def test_samples_are_what_the_distribution_draws(tmp_path: Path) -> None:
    head, records = read_samples(write(tmp_path / "out", seed=3))
    store = ImageStore.open(ImageSource.embedded("test"))
    tasks = SyntheticTasks("mine", SPEC, {"test": store}, Episode(support=1, query=0, patch=64), "test")
    for one in records:
        assert one.task_draw(head) == tasks.draw(3, one.index)
        lr, hr = tasks.build_support(tasks.draw(3, one.index))
        for side, images in (("lr", lr), ("hr", hr)):
            pixels = read_image(tmp_path / "out" / side / f"{one.name}.png").pixels
            np.testing.assert_allclose(pixels, images[0].permute(1, 2, 0) * 255, atol=1e-3)


def test_fewer_samples_are_the_first_of_more(tmp_path: Path) -> None:
    few, many = files(write(tmp_path / "few", 2)), files(write(tmp_path / "many", 5))
    assert many[FILE].startswith(few[FILE])
    assert all(many[name] == content for name, content in few.items() if name != FILE)
    later = files(write(tmp_path / "later", 3, start=2))
    assert later["hr/000004.png"] == many["hr/000004.png"]
    assert later[FILE].splitlines()[1:] == many[FILE].splitlines()[3:]


def test_a_replay_is_identical_to_the_byte(tmp_path: Path, photos: Path) -> None:
    for name, options in {"embedded": {}, "folder": {"data": ImageSource.folder(photos)}}.items():
        write(tmp_path / name, **options)
        assert replayed(tmp_path / name, tmp_path / f"{name} again") == []
        assert files(tmp_path / name) == files(tmp_path / f"{name} again")


@pytest.mark.parametrize("name", Project(REPOSITORY).names("tasks"))
def test_every_task_of_the_catalogue_is_replayed(tmp_path: Path, name: str) -> None:
    spec = Project(REPOSITORY).task(name)
    write(tmp_path / "out", 3, spec=spec, patch=48)
    assert replayed(tmp_path / "out", tmp_path / "again") == []


def test_a_replay_needs_no_file_that_the_task_names(tmp_path: Path) -> None:
    np.save(tmp_path / "kernels.npy", np.random.default_rng(0).random((5, 7, 7)))
    steps = [{"op": "kernel_file", "path": tmp_path / "kernels.npy"}, {"op": "downsample"}]
    spec = SyntheticSpec.model_validate({"kind": "synthetic", "scale": 4, "pipeline": steps})
    write(tmp_path / "out", spec=spec)
    (tmp_path / "kernels.npy").unlink()
    assert replayed(tmp_path / "out", tmp_path / "again") == []
    assert files(tmp_path / "out") == files(tmp_path / "again")


def test_another_scale(tmp_path: Path) -> None:
    head, _ = read_samples(write(tmp_path / "out", 1, spec=SPEC.at_scale(2)))
    assert head.scale == 2
    assert read_image(tmp_path / "out/lr/000000.png").pixels.shape == (32, 32, 3)
    assert replayed(tmp_path / "out", tmp_path / "again") == []


def test_samples_are_pairs_that_can_be_sampled_again(tmp_path: Path) -> None:
    """A folder of samples is what `kind: pairs` reads; patches of it are cut, not degraded."""
    folder = write(tmp_path / "camera")
    spec = PairsSpec(kind="pairs", scale=4, lr=folder / "lr", hr=folder / "hr")
    assert len(open_pairs("camera", spec, Episode(1, 0, 32)).pool) == 3
    _, records = read_samples(write(tmp_path / "out", spec=spec, patch=32))
    assert all(one.degradations == () == one.vector for one in records)
    for one in records:
        top, left, height, width = one.box
        hr = read_image(folder / "hr" / f"{one.image}.png").pixels[top : top + height, left : left + width]
        cut = read_image(tmp_path / "out/hr" / f"{one.name}.png").pixels
        assert sorted(hr.reshape(-1, 3).tolist()) == sorted(cut.reshape(-1, 3).tolist())
    shutil.move(folder, tmp_path / "moved")
    assert replayed(tmp_path / "out", tmp_path / "again", tmp_path / "moved") == []
    write_image(tmp_path / "moved/lr" / f"{records[0].image}.png", np.zeros((16, 16, 3), np.uint8))
    [problem] = replayed(tmp_path / "out", tmp_path / "changed", tmp_path / "moved")
    assert f"LR photograph '{records[0].image}' has changed" in problem


def interrupted(samples: Iterator[Sample]) -> Iterator[Sample]:
    yield from islice(samples, 2)
    raise KeyboardInterrupt


def test_what_was_written_before_an_interruption_is_complete(tmp_path: Path) -> None:
    head = header()
    with pytest.raises(KeyboardInterrupt):
        write_samples(tmp_path / "out", head, interrupted(Sampler(head).samples(0, 4)))
    assert files(tmp_path / "out") == files(write(tmp_path / "two", 2))


@pytest.mark.parametrize("failing", range(1, 6))
def test_no_half_of_a_pair_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    calls = iter(range(1, 100))

    def stopping(path: Path, content: bytes) -> None:
        if next(calls) == failing:
            raise KeyboardInterrupt
        path.write_bytes(content)

    monkeypatch.setattr(sample, "write_atomically", stopping)
    head = header()
    with pytest.raises(KeyboardInterrupt):
        write_samples(tmp_path / "out", head, Sampler(head).samples(0, 4))
    whole = (failing - 1) // 2
    left = files(tmp_path / "out")
    assert len(left) == (2 * whole + 1 if whole else 0)
    if whole:
        assert len(read_samples(tmp_path / "out")[1]) == whole


def test_no_line_is_left_of_a_pair_that_is_not(tmp_path: Path) -> None:
    """An interruption may come between the line and the end of its pair."""

    class Stopping(io.BytesIO):
        def flush(self) -> None:
            raise KeyboardInterrupt

    for side in sample.SIDES:
        (tmp_path / side).mkdir()
    lines = Stopping(b"header")
    lines.seek(0, io.SEEK_END)
    with pytest.raises(KeyboardInterrupt):
        sample._write_pair(tmp_path, next(Sampler(header()).samples(0, 1)), lines)
    assert lines.getvalue() == b"header"
    assert not [path for side in sample.SIDES for path in (tmp_path / side).iterdir()]


def test_files_are_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "out/hr").mkdir(parents=True)
    write(tmp_path / "out", 1)
    before = files(tmp_path / "out")
    with pytest.raises(UserError, match="already contains files"):
        write(tmp_path / "out", 1)
    with pytest.raises(UserError, match="is a file"):
        write(tmp_path / "out" / FILE, 1)
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 62}, "62 is not a multiple of the scale 4; write 60"),
        ({"patch": 3}, "3 is not a multiple of the scale 4; write 4"),
        ({"patch": 4096}, "smaller than the 4096x4096 crop"),
    ],
)
def test_a_wrong_patch(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Sampler(header(**options)).samples(0, 1)


def test_a_changed_photograph_is_named(tmp_path: Path, photos: Path) -> None:
    write(tmp_path / "out", 8, data=ImageSource.folder(photos))
    _, records = read_samples(tmp_path / "out")
    write_image(photos / "b.png", np.zeros((80, 96, 3), np.uint8))
    [problem] = replayed(tmp_path / "out", tmp_path / "again")
    hit = [one.name for one in records if one.image == "b"]
    assert f"{len(hit)} of 8 pairs differ ({', '.join(hit)}): photograph 'b'" in problem
    # What is written describes itself, not what it was meant to equal.
    assert replayed(tmp_path / "again", tmp_path / "third") == []


def test_a_missing_or_smaller_photograph_is_named_and_the_others_are_made(tmp_path: Path, photos: Path) -> None:
    write(tmp_path / "out", 8, data=ImageSource.folder(photos))
    shutil.copytree(photos, tmp_path / "fewer")
    (tmp_path / "fewer/a.png").unlink()
    write_image(tmp_path / "fewer/b.png", np.zeros((64, 64, 3), np.uint8))
    problems = replayed(tmp_path / "out", tmp_path / "again", tmp_path / "fewer")
    assert any("holds no photograph 'a'" in problem for problem in problems)
    assert any("outside 'b' (64x64)" in problem for problem in problems)
    named = [one.name for one in read_samples(tmp_path / "out")[1] if one.image == "c"]
    assert set(named) <= {one.name for one in read_samples(tmp_path / "again")[1]}


def test_versions_explain_a_difference_and_are_no_difference_themselves(tmp_path: Path) -> None:
    write(tmp_path / "out", 2)
    change(tmp_path / "out", 0, versions=record.current_versions() | {"opencv": "4.0"})
    assert replayed(tmp_path / "out", tmp_path / "same") == []
    change(tmp_path / "out", 2, lr_sha256="0" * 64)
    [problem] = replayed(tmp_path / "out", tmp_path / "again")
    assert "1 of 2 pairs differ (000001): opencv 4.0 then, " in problem
    change(tmp_path / "out", 0, versions=record.current_versions())
    [problem] = replayed(tmp_path / "out", tmp_path / "third")
    assert "all versions are the same" in problem


def test_many_different_pairs_are_counted(tmp_path: Path, photos: Path) -> None:
    write(tmp_path / "out", 40, data=ImageSource.folder(photos))
    for name in "bc":
        shutil.copy(photos / "a.png", photos / f"{name}.png")
    problems = replayed(tmp_path / "out", tmp_path / "again")
    assert len(problems) == 2
    assert all(" more)" in problem for problem in problems)


@pytest.mark.parametrize(
    ("line", "values", "message"),
    [
        (0, {"version": 2}, "params.jsonl:1: version: .* another version of metarestore"),
        (0, {"format": "other"}, "params.jsonl:1: format: "),
        (0, {"spec": {"kind": "synthetic"}}, "params.jsonl:1: spec.synthetic.scale: Field required"),
        (1, {"lr_sha256": "x"}, "params.jsonl:2: lr_sha256: "),
        (1, {"more": 1}, "params.jsonl:2: more: Extra"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, line: int, values: dict[str, Any], message: str) -> None:
    write(tmp_path / "out", 1)
    change(tmp_path / "out", line, **values)
    with pytest.raises(UserError, match=message):
        Replay(tmp_path / "out")


def test_an_operation_that_is_not_known_is_named(tmp_path: Path) -> None:
    write(tmp_path / "out", 2)
    change(tmp_path / "out", 1, degradations=[{"op": "jpeg_xl", "position": [0], "params": {}}])
    [problem] = replayed(tmp_path / "out", tmp_path / "again")
    assert "unknown operation 'jpeg_xl'" in problem
    assert "requires metarestore" in problem


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "holds no samples"),
        (b"{}\nx", "task: Field required"),
        (b"\xff\xfe", "not a text file"),
    ],
)
def test_another_file_is_no_file_of_parameters(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=message):
        Replay(tmp_path / FILE)


def test_numbers_survive_the_file(tmp_path: Path) -> None:
    [single] = Sampler(header()).samples(0, 1)
    line = record.to_line(single.record)
    assert "\n" not in line[:-1]
    assert Record.model_validate(json.loads(line)) == single.record
