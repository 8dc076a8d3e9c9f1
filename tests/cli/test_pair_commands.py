"""The commands `pairs check` and `pairs align`, and the masks that the other commands read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from metarestore.evaluation.folder import bicubic_lr, bicubic_restore
from metarestore.evaluation.metrics import psnr_y, ssim_y
from metarestore.fitting.equations import aligned_pixels
from metarestore.fitting.pairs import list_pairs, read_pair
from metarestore.registration.compare import blurred, reduced
from metarestore.tasks.embedded import embedded_path
from metarestore.tasks.few_shot import FewShotGeometry
from metarestore.tasks.images import read_image, write_image
from metarestore.tasks.pairs import PairsSpec, PairsTarget, PairTasks, open_pairs
from metarestore.tasks.task import Episode

Cli = Callable[..., tuple[int, str, str]]
SCENES = ("astronaut", "camera", "motorcycle_left")


def put(folder: Path, name: str, lr: np.ndarray, hr: np.ndarray) -> None:
    for side, pixels in (("lr", lr), ("hr", hr)):
        write_image(folder / side / f"{name}.png", np.clip(np.round(pixels), 0, 255).astype(np.uint8))


def photograph(name: str, top: int = 0, side: int = 256) -> np.ndarray:
    return read_image(embedded_path(name)).pixels[top : top + side, top : top + side].astype(np.float32)


@pytest.fixture
def camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three good pairs, as the folder `camera`."""
    monkeypatch.chdir(tmp_path)
    for name in SCENES:
        image = photograph(name)
        put(tmp_path / "camera", name, reduced(blurred(image, 2.0), 4), image)
    return tmp_path / "camera"


def test_good_pairs_pass(cli: Cli, camera: Path) -> None:
    code, out, err = cli("pairs", "check", "camera", "--json", "c.json", "--sheet", "s.png")
    assert (code, err) == (0, "")
    assert "3 of 3 pairs can be used, 0 of them with a remark." in out
    for check in json.loads(Path("c.json").read_text())["pairs"]:
        assert check["scale"] == 4
        assert np.hypot(*check["shift"]) < 0.05
        assert check["residual"] < 0.1
        assert check["gains"] == pytest.approx([1, 1, 1], abs=0.03)
        assert 0.3 <= check["blur"] <= 0.7
    assert read_image("s.png").pixels.shape[1] == 992


def test_each_problem_is_in_its_row(cli: Cli, camera: Path) -> None:
    image = photograph("coffee")
    put(camera, "copied", reduced(blurred(photograph("astronaut"), 2.0), 4), photograph("astronaut"))
    put(camera, "soft", reduced(image, 4), blurred(image, 8.0))
    put(camera, "sized", reduced(image, 4), image[:250])
    put(camera, "dark", 0.6 * reduced(blurred(image, 2.0), 4), image)
    write_image(camera / "hr/lonely.png", image.astype(np.uint8))
    moved = photograph("chelsea", 8)
    put(camera, "moved", reduced(blurred(photograph("chelsea", 6), 2.0), 4), moved)
    code, _, err = cli("pairs", "check", "camera", "--json", "c.json")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "camera: 4 of 9 pairs cannot be used (copied, lonely, sized, soft)" in err
    checks = {check["name"]: check for check in json.loads(Path("c.json").read_text())["pairs"]}
    words = {
        "copied": "same picture as 'astronaut'",
        "lonely": "no LR partner",
        "sized": "must be exactly 2, 3 or 4 times",
        "soft": "HR is blurrier than LR",
    }
    for name, expected in words.items():
        assert expected in " ".join(checks[name]["problems"])
    assert "exposure or contrast differs" in " ".join(checks["dark"]["remarks"])
    assert "misaligned by 0.7" in " ".join(checks["moved"]["remarks"])
    assert checks["moved"]["shift"] == pytest.approx([-0.5, -0.5], abs=0.06)


def test_aligned_pairs_are_written_elsewhere(cli: Cli, camera: Path) -> None:
    put(camera, "moved", reduced(blurred(photograph("chelsea", 6), 2.0), 4), photograph("chelsea", 8))
    before = {path: path.read_bytes() for path in camera.rglob("*.png")}
    code, out, err = cli("pairs", "align", "camera", "--out", "aligned")
    assert (code, err) == (0, "")
    assert "aligned: 4 of 4 pairs aligned; median residual" in out
    assert len(out.splitlines()) == 1
    assert {path: path.read_bytes() for path in camera.rglob("*.png")} == before
    for files in list_pairs(Path("aligned")):
        raw = files.read()
        assert files.mask is not None
        assert raw.mask is not None
        assert raw.mask.shape == raw.hr.shape[:2]
    assert cli("pairs", "check", "aligned", "--json", "c.json")[0] == 0
    checks = {check["name"]: check for check in json.loads(Path("c.json").read_text())["pairs"]}
    assert np.hypot(*checks["moved"]["shift"]) < 0.05
    assert cli("pairs", "align", "camera", "--out", "aligned")[0] == 2
    assert cli("pairs", "align", "camera", "--out", "aligned", "--overwrite")[0] == 0


def test_a_pair_that_cannot_be_aligned_is_left_out(cli: Cli, camera: Path) -> None:
    put(camera, "other", reduced(blurred(photograph("coffee"), 2.0), 4), photograph("chelsea"))
    code, out, err = cli("pairs", "align", "camera", "--out", "aligned")
    assert code == 2
    assert "3 of 4 pairs aligned" in out
    assert len(err.splitlines()) == 1
    assert "pair 'other'" in err
    assert sorted(path.stem for path in Path("aligned/lr").iterdir()) == sorted(SCENES)


@pytest.mark.parametrize("out", ["camera", "camera/lr"])
def test_pairs_are_not_written_over_themselves(cli: Cli, camera: Path, out: str) -> None:
    code, _, err = cli("pairs", "align", "camera", "--out", out, "--overwrite")
    assert code == 2
    assert "holds the pairs themselves" in err


def masked(camera: Path, name: str) -> np.ndarray:
    """Spoils a corner of an HR image and masks it."""
    hr = read_image(camera / f"hr/{name}.png").pixels.copy()
    mask = np.full(hr.shape[:2], 255, np.uint8)
    mask[:80, :80], hr[:80, :80] = 0, 255 - hr[:80, :80]
    write_image(camera / f"hr/{name}.png", hr)
    write_image(camera / f"mask/{name}.png", mask)
    return mask > 0


def test_masked_pixels_do_not_count_in_metrics(cli: Cli, camera: Path) -> None:
    def measured() -> dict[str, float]:
        assert cli("evaluate", "--pairs", "camera", "--bicubic", "--json", "m.json", "--overwrite")[0] == 0
        return json.loads(Path("m.json").read_text())["images"]["astronaut"]

    clean = read_image(camera / "hr/astronaut.png").pixels
    mask = masked(camera, "astronaut")
    counted = measured()
    write_image(camera / "hr/astronaut.png", clean)
    assert measured() == counted
    restored = bicubic_restore(4)(read_image(camera / "lr/astronaut.png").pixels)
    assert counted["psnr_y"] == pytest.approx(psnr_y(restored, clean, 4, mask=mask))
    assert counted["psnr_y"] != pytest.approx(psnr_y(restored, clean, 4), abs=1e-6)
    everything = np.ones_like(mask)
    assert psnr_y(restored, clean, 4, mask=everything) == pytest.approx(psnr_y(restored, clean, 4))
    assert ssim_y(restored, clean, 4, mask=everything) == pytest.approx(ssim_y(restored, clean, 4))


def test_masked_pixels_are_not_fitted(camera: Path) -> None:
    masked(camera, "astronaut")
    used = aligned_pixels(read_pair(list_pairs(camera)[0]))
    assert not used[:22, :22].any()
    assert used[26:].all()
    assert aligned_pixels(read_pair(list_pairs(camera)[1])).all()


@pytest.mark.parametrize(
    ("mask", "words"),
    [(np.zeros((256, 256), np.uint8), "masks the whole picture"), (np.ones((64, 64), np.uint8), "is 64x64")],
)
def test_a_mask_must_match(cli: Cli, camera: Path, mask: np.ndarray, words: str) -> None:
    write_image(camera / "mask/astronaut.png", mask)
    code, _, err = cli("evaluate", "--pairs", "camera", "--bicubic")
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1


def test_bicubic_lr_is_no_problem(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in SCENES:
        image = photograph(name).astype(np.uint8)
        put(tmp_path / "camera", name, bicubic_lr(image, 4), image)
    assert cli("pairs", "check", "camera")[0] == 0


def test_studies_prefer_crops_without_masked_pixels(camera: Path) -> None:
    def opened() -> tuple[PairTasks, PairsTarget]:
        spec = PairsSpec(kind="pairs", scale=4, lr=camera / "lr", hr=camera / "hr", support_pool=2)
        tasks = open_pairs("camera", spec, Episode(2, 2, 64))
        return tasks, PairsTarget(tasks, FewShotGeometry(shots=2, shot_size=96, crop=64, crops=16))

    def boxes(tasks: PairTasks) -> list[tuple[int, int]]:
        draws = [tasks.draw(0, index) for index in range(40)]
        refs = [ref for draw in draws for ref in (*draw.support, *draw.query) if ref.image == "astronaut"]
        return [ref.box[:2] for ref in refs]

    tasks, target = opened()
    content = tasks.content
    assert any(max(corner) < 80 for corner in boxes(tasks))
    assert len(target.draw(0).test) == 16
    masked(camera, "astronaut")
    masked(camera, "motorcycle_left")
    tasks, target = opened()
    assert tasks.content != content
    assert not any(max(corner) < 80 for corner in boxes(tasks))
    assert len(target.draw(0).test) == 12
    assert max(target.draw(0).shots[0].support[0].box[:2]) >= 80
