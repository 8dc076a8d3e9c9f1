"""Which files are pairs, under which names, and in which sizes they fit."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from metarestore.checking import check_files
from metarestore.config.document import read_document, validate
from metarestore.errors import UserError
from metarestore.project import TASK_FILE
from metarestore.tasks.images import write_image
from metarestore.tasks.pair_files import PairFolder, PairNames, fitted_size, match_names, size_problem
from metarestore.tasks.pairs import PairsSpec, PairTasks, content_hash, open_pairs
from metarestore.tasks.task import Episode

EPISODE = Episode(1, 1, 32)


def scene(seed, side=48):
    """An LR image of blocks, so that HR by repetition has it as its means."""
    blocks = np.random.default_rng(seed).integers(0, 256, (side // 4, side // 4, 3), np.uint8)
    return blocks.repeat(4, axis=0).repeat(4, axis=1)


def put(folder, names, scale=4, more=(0, 0)):
    """Writes pairs to files `lr name: hr name`, relative to `folder`; HR has `more` rows and columns."""
    for seed, (low, high) in enumerate(names.items()):
        lr = scene(seed)
        hr = np.pad(lr.repeat(scale, axis=0).repeat(scale, axis=1), ((0, more[0]), (0, more[1]), (0, 0)), "edge")
        for name, pixels in ((low, lr), (high, hr)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_image(folder / name, pixels)
    return folder


LAYOUTS = {
    "equal names": ("lr/{}.png", "hr/{}.png"),
    "DIV2K": ("DIV2K_train_LR_bicubic/X4/{}x4.png", "DIV2K_train_HR/{}.png"),
    "DIV2K mild": ("lr/{}x4m.png", "hr/{}.png"),
    "benchmark": ("LR_bicubic/X4/{}x4.png", "HR/{}.png"),
    "RealSR": ("Canon_{}_LR4.png", "Canon_{}_HR.png"),
    "RealSR in two folders": ("lr/Canon_{}_LR4.png", "hr/Canon_{}_HR.png"),
    "DRealSR": ("train_LR/sony_{}_x1.png", "train_HR/sony_{}_x4.png"),
    "one folder": ("{}x4.png", "{}.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scale", [None, 4])
def test_published_layouts_are_recognised(tmp_path, layout, scale):
    low, high = LAYOUTS[layout]
    put(tmp_path, {low.format(k): high.format(k) for k in ("0801", "0802", "0803")})
    files = PairFolder.of_folder(tmp_path, scale).files()
    assert [each.name[-4:] for each in files] == ["0801", "0802", "0803"]
    for each in files:
        assert (each.read().hr[::4, ::4] == each.read().lr).all()
        assert each.lr.relative_to(tmp_path).as_posix() == low.format(each.name[-4:])


@pytest.mark.parametrize(
    ("names", "lr", "hr"),
    [
        (PairNames("{name}_small", "{name}"), ["a_small", "b_small"], ["a", "b"]),
        (PairNames("{name}", "big-{name}"), ["a", "b"], ["big-a", "big-b"]),
        (PairNames("{name}x4w1"), ["ax4w1", "ax4w2", "bx4w1", "bx4w2"], ["a", "b"]),
        (PairNames("low {name}.jpg", "{name}"), ["low a.jpg", "low b.jpg", "notes"], ["a", "b"]),
    ],
)
def test_names_follow_a_template_that_is_given(names, lr, hr):
    found = match_names(lr, hr, names, together=False)
    assert list(found.pairs) == ["a", "b"]
    assert found.lone == 0


@pytest.mark.parametrize("name", ["é", "ñandú", "Ångström", "한국"])
def test_names_are_compared_after_normalisation(tmp_path, name):
    composed, decomposed = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    assert composed != decomposed
    put(tmp_path, {f"lr/{decomposed}.png": f"hr/{composed}.png", "lr/z.png": "hr/z.png"})
    assert composed in [each.name for each in PairFolder.of_folder(tmp_path).files()]
    lr, hr = (tmp_path / side for side in ("lr", "hr"))
    tasks = open_pairs("camera", PairsSpec(kind="pairs", scale=4, lr=lr, hr=hr), EPISODE)
    assert set(tasks.images.names) == {composed, "z"}


@pytest.mark.parametrize("count", [1, 10, 11, 40])
def test_files_without_a_partner_are_listed_up_to_ten(tmp_path, count):
    put(tmp_path, {f"lr/{k:02}.png": f"hr/{k:02}.png" for k in range(count + 2)})
    for k in range(count):
        (tmp_path / f"lr/{k:02}.png").unlink()
    with pytest.raises(UserError) as error:
        PairFolder.of_folder(tmp_path).files()
    problems = error.value.problems
    assert sum("has no partner" in line for line in problems) == min(count, 10)
    assert len(problems) == min(count, 11)
    if count > 10:
        assert f"{count - 10} more files have no partner" in problems[-1]


@pytest.mark.parametrize(
    ("lr", "hr", "scale", "cut"),
    [
        ((24, 24), (96, 96), 4, (24, 24)),
        ((24, 24), (99, 97), 4, (24, 24)),
        ((25, 25), (98, 97), 4, (24, 24)),
        ((33, 40), (100, 122), 3, (33, 40)),
        ((24, 24), (100, 96), 4, None),
        ((24, 24), (96, 48), 4, None),
        ((26, 24), (99, 97), 4, None),
    ],
)
def test_pairs_are_cut_to_a_multiple_of_the_scale_on_request(lr, hr, scale, cut):
    found = fitted_size(lr, hr, scale, crop=True)
    assert found == (None if cut is None else (cut, scale))
    exact = hr == (scale * lr[0], scale * lr[1])
    assert (fitted_size(lr, hr, scale, crop=False) is not None) == exact
    if cut is not None and not exact:
        assert "crop: true" in size_problem(lr, hr, scale)


def test_the_lr_images_of_one_folder_are_those_of_its_pairs(tmp_path):
    put(tmp_path, {f"{k}_LR4.png": f"{k}_HR.png" for k in "ab"})
    spec = PairsSpec(kind="pairs", scale=4, lr=tmp_path, hr=tmp_path)
    assert list(spec.lr_files()) == ["a_LR4.png", "b_LR4.png"]


@pytest.mark.parametrize("more", [(1, 0), (3, 2), (0, 3)])
def test_a_task_of_cropped_pairs_stays_aligned(tmp_path, more):
    put(tmp_path, {f"lr/{k}x4.png": f"hr/{k}.png" for k in "abc"}, more=more)
    spec = PairsSpec(kind="pairs", scale=4, lr=tmp_path / "lr", hr=tmp_path / "hr")
    with pytest.raises(UserError, match="write crop: true"):
        open_pairs("camera", spec, EPISODE)
    tasks = open_pairs("camera", spec.model_copy(update={"crop": True, "lr_name": "{name}x4"}), EPISODE)
    assert isinstance(tasks, PairTasks)
    assert tasks.images.size("a") == (192, 192)
    assert list(tasks.spec.lr_files()) == ["ax4.png", "bx4.png", "cx4.png"]
    for index in range(6):
        task = tasks.build(tasks.draw(0, index))
        assert (task.support_hr == task.support_lr.repeat_interleave(4, 2).repeat_interleave(4, 3)).all()


@pytest.mark.parametrize(
    ("lr", "hr", "words"),
    [
        ((96, 96), (96, 96), "LR was enlarged"),
        ((96, 96), (24, 24), "exchange the folders"),
        ((24, 30), (120, 96), "rotated by 90 degrees"),
        ((24, 24), (192, 192), "it should be 96x96; it is 8 times as large"),
        ((24, 24), (90, 80), "it should be 96x96"),
    ],
)
def test_sizes_that_do_not_fit_are_explained(lr, hr, words):
    assert words in size_problem(lr, hr, 4)


@pytest.mark.parametrize("template", ["x4", "{name}{name}", "{name}x4.png", "lr/{name}", "{nam}x4"])
def test_a_template_names_the_pair_once(tmp_path, template):
    file = tmp_path / "camera.yaml"
    file.write_text(f'kind: pairs\nscale: 4\nlr: lr\nhr: hr\nlr_name: "{template}"\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"camera.yaml:5:10: lr_name: .*name"):
        validate(read_document(file), TASK_FILE)


def test_the_new_keys_leave_the_hash_of_other_tasks_alone(tmp_path):
    put(tmp_path, {f"lr/{k}.png": f"hr/{k}.png" for k in "abc"})
    spec = PairsSpec(kind="pairs", scale=4, lr=tmp_path / "lr", hr=tmp_path / "hr")
    assert set(spec.model_dump()) == {"kind", "scale", "lr", "hr", "support_pool"}
    assert content_hash(spec) == content_hash(spec.model_copy(update={"check_content": False}))
    assert content_hash(spec) != content_hash(spec.model_copy(update={"crop": True}))


@pytest.mark.parametrize("gone", ["lr/a.png", "hr/a.png", "lr/c.png"])
def test_check_names_missing_partners(tmp_path, gone):
    put(tmp_path, {f"lr/{k}.png": f"hr/{k}.png" for k in "abc"})
    (tmp_path / "tasks").mkdir()
    task = tmp_path / "tasks/camera.yaml"
    task.write_text("kind: pairs\nscale: 4\nlr: lr\nhr: hr\n", encoding="utf-8")
    assert check_files([task]) == []
    (tmp_path / gone).unlink()
    [problem] = check_files([task])
    assert f"{Path(gone).name}: has no partner" in problem
