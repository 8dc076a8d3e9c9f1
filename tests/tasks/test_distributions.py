"""Draws are data that depend on (content, seed, index) alone; building them gives aligned tensors."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from metarestore.config.document import read_document, validate
from metarestore.degradations.dihedral import flip_rotate
from metarestore.degradations.resample import bicubic_downsample
from metarestore.errors import UserError
from metarestore.project import TASK_FILE
from metarestore.tasks.few_shot import FewShotGeometry, grid_boxes
from metarestore.tasks.images import ImageSource, ImageStore, write_image
from metarestore.tasks.pairs import PairsSpec, PairsTarget, PairTasks, open_pairs
from metarestore.tasks.spec import content_hash
from metarestore.tasks.synthetic import SyntheticSpec, SyntheticTarget, SyntheticTasks
from metarestore.tasks.task import Episode, Task, stack
from metarestore.workspace.workspace import Workspace

NOISY = "kind: synthetic\nscale: 4\npipeline:\n  - {op: downsample}\n  - {op: gaussian_noise, sigma: [5, 25]}\n"
EPISODE = Episode(support=2, query=3, patch=32)


def spec_of(tmp_path: Path, text: str) -> SyntheticSpec | PairsSpec:
    path = tmp_path / "task.yaml"
    path.write_text(text)
    return validate(read_document(path), TASK_FILE)


@pytest.fixture
def images() -> ImageStore:
    return ImageStore.open(ImageSource.embedded("train"))


def synthetic(tmp_path: Path, images: ImageStore, text: str = NOISY) -> SyntheticTasks:
    spec = spec_of(tmp_path, text)
    assert isinstance(spec, SyntheticSpec)
    return SyntheticTasks("noisy", spec, {"train": images}, EPISODE)


def test_a_draw_depends_on_content_seed_and_index(tmp_path: Path, images: ImageStore) -> None:
    tasks = synthetic(tmp_path, images)
    assert tasks.draw(1, 2) == tasks.draw(1, 2)
    assert tasks.draw(1, 2) != tasks.draw(1, 3)
    assert tasks.draw(1, 2) != tasks.draw(2, 2)
    assert pickle.loads(pickle.dumps(tasks.draw(1, 2))) == tasks.draw(1, 2)


def test_comments_and_layout_change_no_draw_but_a_range_does(tmp_path: Path, images: ImageStore) -> None:
    plain = synthetic(tmp_path, images)
    commented = synthetic(tmp_path, images, "# a comment\n" + NOISY.replace("{op: downsample}", "\n    op: downsample"))
    changed = synthetic(tmp_path, images, NOISY.replace("25", "26"))
    assert commented.draw(0, 0) == plain.draw(0, 0)
    assert changed.content != plain.content
    assert changed.draw(0, 0).degradations != plain.draw(0, 0).degradations


def test_distributions_share_clean_patches(tmp_path: Path, images: ImageStore) -> None:
    noisy = synthetic(tmp_path, images)
    clean = synthetic(tmp_path, images, "kind: synthetic\nscale: 4\npipeline: [{op: downsample}]\n")
    a, b = noisy.build(noisy.draw(0, 5)), clean.build(clean.draw(0, 5))
    assert torch.equal(a.support_hr, b.support_hr)
    assert torch.equal(a.query_hr, b.query_hr)
    assert not torch.equal(a.support_lr, b.support_lr)


def test_a_task_may_have_the_patches_of_another(tmp_path: Path, images: ImageStore, workspace: Workspace) -> None:
    shots = workspace.distribution("phone_camera")
    for tasks in (synthetic(tmp_path, images), open_pairs("camera", write_pairs(tmp_path), EPISODE), shots):
        other, own, mixed = tasks.draw(1, 2), tasks.draw(1, 7), tasks.draw(1, 7, 2)
        assert (mixed.support, mixed.query) == (other.support, other.query)
        assert mixed.support != own.support
        assert mixed.degradations == own.degradations
        assert tasks.draw(1, 7, 7) == own


def test_shapes_ranges_and_eight_bit_lr(tmp_path: Path, images: ImageStore) -> None:
    tasks = synthetic(tmp_path, images)
    task = tasks.build(tasks.draw(0, 0))
    assert task.support_lr.shape == (2, 3, 8, 8)
    assert task.query_hr.shape == (3, 3, 32, 32)
    for tensor in task:
        assert float(tensor.min()) >= 0
        assert float(tensor.max()) <= 1
    levels = task.support_lr * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


def test_support_and_query_are_degraded_alike_with_their_own_noise(tmp_path: Path, images: ImageStore) -> None:
    tasks = synthetic(tmp_path, images)
    draw = tasks.draw(0, 0)
    task = tasks.build(draw)
    seeds = {ref.seed for ref in draw.support + draw.query}
    assert len(seeds) == 5
    sigma = draw.parameters()["gaussian_noise.sigma"]
    noise = torch.cat([task.support_lr, task.query_lr]) - bicubic_downsample(
        torch.cat([task.support_hr, task.query_hr]), 4
    ).clamp(0, 1)
    inner = noise.abs() < 0.5
    assert float(noise[inner].std()) * 255 == pytest.approx(sigma, rel=0.35)
    assert not torch.allclose(noise[0], noise[1], atol=1e-3)


def test_build_support_is_the_support_of_build(tmp_path: Path, images: ImageStore) -> None:
    tasks = synthetic(tmp_path, images)
    draw = tasks.draw(3, 1)
    task = tasks.build(draw)
    lr, hr = tasks.build_support(draw)
    assert torch.equal(lr, task.support_lr)
    assert torch.equal(hr, task.support_hr)


@pytest.mark.parametrize("turn", range(8))
def test_turns_commute_with_downsampling(turn: int) -> None:
    """Centre-aligned resampling: turning before or after makes no difference."""
    hr = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        bicubic_downsample(flip_rotate(hr, turn), 4), flip_rotate(bicubic_downsample(hr, 4), turn)
    )


def test_the_eight_turns_differ() -> None:
    image = torch.arange(9.0).reshape(1, 3, 3)
    assert len({tuple(flip_rotate(image, turn).flatten().tolist()) for turn in range(8)}) == 8


def test_stack() -> None:
    task = Task(*(torch.rand(2, 3, 4, 4) for _ in range(4)))
    assert stack([task, task, task]).query_hr.shape == (3, 2, 3, 4, 4)


def test_content_hash_is_the_same_in_every_process(tmp_path: Path) -> None:
    assert content_hash(spec_of(tmp_path, NOISY)) == content_hash(spec_of(tmp_path, NOISY))
    assert len(content_hash(spec_of(tmp_path, NOISY))) == 16


@pytest.mark.parametrize(("size", "count"), [((64, 96), 10), ((65, 70), 1), ((200, 100), 3)])
def test_grid_boxes_lie_inside_and_do_not_overlap(size: tuple[int, int], count: int) -> None:
    boxes = grid_boxes(*size, 32, count)
    assert len(boxes) == min(count, (size[0] // 32) * (size[1] // 32))
    covered = np.zeros(size, int)
    for top, left, height, width in boxes:
        assert top >= 0
        assert left >= 0
        covered[top : top + height, left : left + width] += 1
    assert covered.max() == 1
    assert covered.sum() == len(boxes) * 32 * 32


def test_a_box_larger_than_the_image() -> None:
    with pytest.raises(ValueError, match="40x50 is smaller than a crop of 64"):
        grid_boxes(40, 50, 64, 1)


def write_pairs(folder: Path, count: int = 4, scale: int = 4) -> PairsSpec:
    """Writes pairs whose LR pixel is the mean of its HR block, so that alignment can be checked exactly."""
    rng = np.random.default_rng(0)
    for k in range(count):
        lr = rng.integers(0, 256, (24, 20, 3), np.uint8)
        for name, pixels in (("lr", lr), ("hr", lr.repeat(scale, axis=0).repeat(scale, axis=1))):
            (folder / name).mkdir(exist_ok=True)
            write_image(folder / name / f"{k:03d}.png", pixels)
    return PairsSpec(kind="pairs", scale=4, lr=folder / "lr", hr=folder / "hr", support_pool=2)


def test_pairs_stay_aligned_under_every_crop_and_turn(tmp_path: Path) -> None:
    tasks = open_pairs("camera", write_pairs(tmp_path), EPISODE)
    for index in range(8):
        task = tasks.build(tasks.draw(0, index))
        for lr, hr in ((task.support_lr, task.support_hr), (task.query_lr, task.query_hr)):
            assert torch.equal(hr, lr.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3))


def test_draws_never_touch_the_test_pairs(tmp_path: Path) -> None:
    tasks = open_pairs("camera", write_pairs(tmp_path), EPISODE)
    assert isinstance(tasks, PairTasks)
    used = {ref.image for index in range(30) for ref in (*tasks.draw(0, index).support, *tasks.draw(0, index).query)}
    assert used == {"000", "001"} == set(tasks.pool)
    assert set(tasks.test) == {"002", "003"}


def test_the_test_pairs_are_the_same_for_any_number_of_shots(tmp_path: Path) -> None:
    tasks = open_pairs("camera", write_pairs(tmp_path), EPISODE)
    one, two = (PairsTarget(tasks, FewShotGeometry(shots, 32, 32, 1)).draw(0) for shots in (1, 2))
    assert one.test == two.test
    assert [draw.support[0].image for draw in two.shots] == ["000", "001"]
    with pytest.raises(UserError, match=r"3 shots are requested, but only 2 pairs"):
        PairsTarget(tasks, FewShotGeometry(3, 32, 32, 1))


def test_shots_go_round_the_support_pool(tmp_path: Path) -> None:
    tasks = open_pairs("camera", write_pairs(tmp_path, 5).model_copy(update={"support_pool": 3}), EPISODE)
    targets = [PairsTarget(tasks, FewShotGeometry(2, 32, 32, 1, first)) for first in range(3)]
    shots = [[draw.support[0].image for draw in target.draw(0).shots] for target in targets]
    assert shots == [["000", "001"], ["001", "002"], ["002", "000"]]
    assert len({target.draw(0).test for target in targets}) == 1
    with pytest.raises(UserError, match=r"first_shot is 3, but only 3 pairs may be used .* at most 2"):
        PairsTarget(tasks, FewShotGeometry(1, 32, 32, 1, 3))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "lr/000.png").unlink(), r"hr/000.png: has no partner '000' in .*lr"),
        (lambda folder: (folder / "hr/003.png").rename(folder / "hr/x.png"), r"lr/003.png: has no partner '003'"),
        (lambda folder: (folder / "hr/003.png").rename(folder / "hr/x.png"), r"hr/x.png: has no partner 'x'"),
        (lambda folder: write_image(folder / "hr/001.png", np.zeros((90, 80, 3), np.uint8)), "it should be 96x80"),
        (lambda folder: [p.unlink() for p in folder.glob("?r/00[123].png")], "has 1 pair; at least 2"),
    ],
)
def test_folders_that_do_not_belong_together(tmp_path: Path, break_it: object, message: str) -> None:
    spec = write_pairs(tmp_path)
    break_it(tmp_path)  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        open_pairs("camera", spec, EPISODE)


def test_shots_and_test_crops_of_a_synthetic_camera(workspace: Workspace) -> None:
    draw = workspace.target_draw
    assert len(draw.shots) == 4
    assert len({str(one.degradations) for one in draw.shots}) == 4, "each shot is a draw of its own"
    assert {one.support[0].split for one in draw.shots} == {"train"}
    assert {one.support[0].split for one in draw.test} == {"test"}
    assert len({one.support[0].image for one in draw.shots}) == 4, "shots are of different photographs"
    task = workspace.target_task
    assert task.support_hr.shape == (4, 3, 64, 64)
    assert len(task.query_hr) == len(draw.photographs)
    assert workspace.shots.query_hr.shape[0] == 0


def test_another_seed_gives_other_shots(workspace: Workspace) -> None:
    assert workspace.target.draw(0) == workspace.target.draw(0)
    assert workspace.target.draw(0) != workspace.target.draw(1)


def test_a_photograph_smaller_than_a_crop(tmp_path: Path, images: ImageStore) -> None:
    write_image(tmp_path / "small.png", np.zeros((40, 50, 3), np.uint8))
    small = ImageStore.open(ImageSource.folder(tmp_path))
    spec = spec_of(tmp_path, NOISY)
    assert isinstance(spec, SyntheticSpec)
    with pytest.raises(UserError, match="all 1 photographs are smaller than the 64x64 crop"):
        SyntheticTasks("noisy", spec, {"train": small}, Episode(1, 1, 64))
    tasks = SyntheticTasks("noisy", spec, {"train": images}, EPISODE)
    with pytest.raises(UserError, match=r"'small' is 40x50"):
        SyntheticTarget(tasks, images, small, FewShotGeometry(1, 32, 64, 1))
    with pytest.raises(UserError, match=r"no photograph has 64 pixels on both sides"):
        SyntheticTarget(tasks, small, images, FewShotGeometry(1, 64, 32, 1))


def test_patches_of_the_shots_are_patches_of_the_shots(workspace: Workspace) -> None:
    tasks = workspace.distribution("phone_camera")
    task = tasks.build(tasks.draw(0, 0))
    assert task.support_lr.shape == (2, 3, 8, 8)
    shots = workspace.shots
    ref = tasks.draw(0, 0).support[0]
    top, left, height, width = ref.box
    expected = flip_rotate(shots.support_hr[int(ref.image), :, top : top + height, left : left + width], ref.turn)
    assert torch.equal(task.support_hr[0], expected)
