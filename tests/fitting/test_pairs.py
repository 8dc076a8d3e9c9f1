import cv2
import numpy as np
import pytest

from metarestore.errors import UserError
from metarestore.fitting.camera import fit_camera
from metarestore.fitting.pairs import PairFiles, check_pairs, list_pairs, read_pair
from metarestore.fitting.spread import spread, together

LARGE = np.zeros((160, 128), np.uint8)


def put(folder, **sizes):
    """Writes gray images `lr_NAME=(height, width)`."""
    for key, size in sizes.items():
        side, name = key.split("_")
        (folder / side).mkdir(exist_ok=True)
        cv2.imwrite(str(folder / side / f"{name}.png"), np.zeros(size, np.uint8))
    return folder


def test_pairs_are_listed_by_name(tmp_path):
    put(tmp_path, lr_b=(40, 32), hr_b=(160, 128), lr_a=(40, 32), hr_a=(160, 128))
    assert [files.name for files in list_pairs(tmp_path)] == ["a", "b"]
    assert check_pairs(list_pairs(tmp_path)) == 4


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_scale_follows_from_the_sizes(tmp_path, scale):
    put(tmp_path, lr_a=(40, 32), hr_a=(40 * scale, 32 * scale))
    assert read_pair(list_pairs(tmp_path)[0]).scale == scale


def test_every_image_without_a_partner_is_named(tmp_path):
    put(tmp_path, lr_a=(40, 32), lr_b=(40, 32), hr_b=(160, 128), hr_c=(160, 128))
    with pytest.raises(UserError) as error:
        list_pairs(tmp_path)
    assert len(error.value.problems) == 2
    assert "a.png: has no partner 'a'" in error.value.problems[0]
    assert "c.png: has no partner 'c'" in error.value.problems[1]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"lr_a": (40, 32), "hr_a": (160, 140)}, "is 160x140 .*, its LR partner 40x32; HR must be exactly 2, 3 or 4"),
        ({"lr_a": (40, 32), "hr_a": (160, 130)}, "is 160x130 .*, its LR partner 40x32; HR is not a multiple .* crop"),
        ({"lr_a": (40, 40), "hr_a": (40, 40)}, "is 40x40 .* LR was enlarged .*RealSR 3"),
        ({"lr_a": (160, 128), "hr_a": (40, 32)}, "HR is smaller than LR; exchange the folders"),
        ({"lr_a": (40, 32), "hr_a": (128, 160)}, "rotated by 90 degrees"),
        ({"lr_a": (40, 40), "hr_a": (320, 320)}, "HR must be exactly 2, 3 or 4 times as large"),
        ({"lr_a": (20, 40), "hr_a": (80, 160)}, "is 20x40; at least 32x32 are needed"),
        ({"lr_a": (40, 40), "hr_a": (80, 80), "lr_b": (40, 40), "hr_b": (160, 160)}, r"x2 \('a'\), x4 \('b'\)"),
    ],
)
def test_sizes_that_do_not_fit_are_said(tmp_path, sizes, message):
    put(tmp_path, **sizes)
    with pytest.raises(UserError, match=message) as error:
        fit_camera(tmp_path)
    assert all("\n" not in problem for problem in error.value.problems)


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        fit_camera(tmp_path / "nowhere")


def test_files_of_any_kind_are_read(tmp_path):
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "gray.png"), rng.integers(0, 256, (40, 32), np.uint8))
    cv2.imwrite(str(tmp_path / "deep.png"), rng.integers(0, 65536, (80, 64, 4), np.uint16))
    pair = read_pair(PairFiles("a", tmp_path / "gray.png", tmp_path / "deep.png"))
    assert pair.scale == 2
    assert pair.gray
    assert pair.lr.shape == (40, 32, 3)
    assert pair.hr.max() <= 255


def test_a_figure_that_stands_apart_is_left_out():
    found = spread([2.0, 2.1, 1.9, 2.05, 9.0])
    assert (found.low, found.high, found.count, found.left_out) == (1.9, 2.1, 4, 1)
    assert together([1.0, 9.0]).all()
    assert together([1.0, 1.0, 1.0, 1.0, 1.01]).all()
    assert np.isnan(spread([3.0]).std)
    with pytest.raises(ValueError, match="no values"):
        spread([])
