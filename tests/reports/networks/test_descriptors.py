"""The map of descriptors and the table of their groups."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from rich.console import Console

from metarestore.descriptors.describe import Description, Item
from metarestore.reports.networks.descriptors import descriptor_map, descriptor_table
from metarestore.reports.pictures import save_png


def group(name: str, means: np.ndarray, kind: str = "task") -> Description:
    return Description(name, kind, tuple(Item(str(k), {}, ("x",) * 2, mean, None) for k, mean in enumerate(means)))


def printed(descriptions: list[Description]) -> list[list[str]]:
    out = io.StringIO()
    Console(file=out, width=200).print(descriptor_table(descriptions))
    return [line.split() for line in out.getvalue().splitlines()]


@pytest.fixture
def plane() -> list[Description]:
    """Two groups in a plane of a space of 8 dimensions, nine tenths of the variance along the first direction."""
    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.normal(size=(8, 8)))[0][:2]
    flat = np.asarray([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    return [group("$a", flat[:2] @ turned + 5), group("b_c", flat[2:] @ turned + 5)]


def test_a_plane_is_drawn_as_it_is(plane: list[Description]) -> None:
    axes = descriptor_map(plane).axes[0]
    first, second = (np.asarray(points.get_offsets()) for points in axes.collections)
    assert np.linalg.norm(first[0] - first[1]) == pytest.approx(6)
    assert np.linalg.norm(second[0] - second[1]) == pytest.approx(2)
    np.testing.assert_allclose(np.abs(first), [[3, 0], [3, 0]], atol=1e-12)
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "first component (90% of the variance)",
        "second component (10% of the variance)",
    )


def test_groups_are_named_and_told_apart() -> None:
    rng = np.random.default_rng(0)
    figure = descriptor_map([group(f"$group_{k}", rng.normal(size=(2, 5))) for k in range(25)])
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"$group_{k} (2)" for k in range(25)]
    looks = {
        (tuple(points.get_facecolor()[0]), points.get_paths()[0].vertices.tobytes())
        for points in figure.axes[0].collections
    }
    assert len(looks) == 25
    figure.draw_without_rendering()
    box, whole = legend.get_window_extent(), figure.bbox
    assert box.x1 <= whole.x1
    assert box.y0 >= whole.y0
    assert not box.overlaps(figure.axes[0].get_window_extent())


def test_the_map_is_a_picture_and_leaves_matplotlib_as_it_was(plane: list[Description], tmp_path: Path) -> None:
    with mpl.rc_context({"font.size": 31.0}):
        before = dict(mpl.rcParams)
        save_png(descriptor_map(plane), tmp_path / "map.png")
        assert dict(mpl.rcParams) == before
    assert cv2.imread(str(tmp_path / "map.png")).shape[1] >= 800


def test_items_that_are_all_equal_can_be_drawn() -> None:
    axes = descriptor_map([group("a", np.ones((3, 4)))]).axes[0]
    assert axes.get_xlabel() == "first component (0% of the variance)"


def test_two_items_are_no_map() -> None:
    with pytest.raises(ValueError, match="at least 3 items, got 2"):
        descriptor_map([group("a", np.eye(2))])


def test_the_table_names_the_nearest_other_group() -> None:
    means = {"a": [1.0, 0, 0], "b": [1, 1, 0], "c": [0, 1, 0.1]}
    groups = [group(name, np.asarray([mean, mean])) for name, mean in means.items()]
    rows = printed(groups)
    assert rows[1] == ["a", "task", "2", "4", "0.0%", "b", "(0.7071)"]
    assert rows[2][-2:] == ["a", "(0.7071)"]
    assert rows[3][-2:] == ["b", "(0.7036)"]


def test_the_table_of_one_group_compares_nothing() -> None:
    rows = printed([group("a", np.asarray([[1.0, 0], [3, 0]]), "images")])
    assert "nearest" not in rows[0]
    assert rows[1] == ["a", "images", "2", "4", "70.7%"]
    assert printed([group("a", np.ones((1, 2)))])[1] == ["a", "task", "1", "2", "–"]
