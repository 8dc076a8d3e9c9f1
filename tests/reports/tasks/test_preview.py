"""Previews, strips along a parameter, and the gallery: they show what is drawn, and say what it is."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from metarestore.decibels import CAP
from metarestore.degradations import OPERATIONS
from metarestore.errors import UserError
from metarestore.project import Project
from metarestore.reports.tasks.gallery import write_gallery
from metarestore.reports.tasks.parameter_strip import sweep_strips, swept
from metarestore.reports.tasks.preview import drawn_lines, joined, opened, preview_rows, shown
from metarestore.tasks.images import read_image, write_image
from metarestore.tasks.pairs import PairsSpec
from metarestore.tasks.synthetic import SyntheticSpec

REPOSITORY = Path(__file__).parents[3]
NOISE = {"op": "gaussian_noise", "sigma": [2, 10]}


def spec(*steps: dict[str, Any], scale: int = 4) -> SyntheticSpec:
    pipeline = [*steps, {"op": "downsample", "method": "bicubic"}]
    return SyntheticSpec.model_validate({"kind": "synthetic", "scale": scale, "pipeline": pipeline})


@pytest.fixture
def pairs(tmp_path: Path) -> PairsSpec:
    rng = np.random.default_rng(0)
    for side, size in (("lr", 60), ("hr", 240)):
        (tmp_path / side).mkdir()
        for name in "ab":
            write_image(tmp_path / side / f"{name}.png", rng.integers(0, 256, (size, size, 3), np.uint8))
    return PairsSpec(kind="pairs", scale=4, lr=tmp_path / "lr", hr=tmp_path / "hr")


def lines(one: SyntheticSpec, index: int = 0) -> list[str]:
    return list(map(joined, drawn_lines(one.space, opened("x", one).draw(0, index).degradations)))


def test_a_caption_has_a_line_for_each_operation_of_which_something_is_drawn() -> None:
    one = spec({"op": "jpeg", "quality": [40, 90]}, NOISE, {"op": "gamma", "exponent": 1.2})
    first, second = lines(one)
    assert re.fullmatch(r"jpeg: quality \d\d", first)
    assert re.fullmatch(r"gaussian_noise: sigma \d\.?\d*", second)


def test_a_caption_tells_what_is_there_and_in_which_order() -> None:
    maybe = {"op": "gamma", "exponent": 1.2, "probability": 0.5}
    found = [lines(spec(maybe), index) for index in range(20)]
    assert [] in found
    assert ["gamma: exponent 1.2"] in found
    steps = [{"op": "jpeg", "quality": [40, 90]}, NOISE]
    orders = {
        tuple(line.partition(":")[0] for line in lines(spec({"op": "shuffle", "steps": steps}), k)) for k in range(9)
    }
    assert orders == {("jpeg", "gaussian_noise"), ("gaussian_noise", "jpeg")}


def test_equal_operations_have_lines_of_their_own() -> None:
    twice = {"op": "repeat", "times": 2, "steps": [NOISE]}
    first, second = lines(spec(twice))
    assert first != second


def test_without_anything_drawn_the_photograph_is_named() -> None:
    [row] = preview_rows("plain", spec(), seed=0, count=1)
    assert row.caption in {"astronaut", "camera", "chelsea", "coffee", "rocket"}


def test_pairs_are_previewed(pairs: PairsSpec) -> None:
    rows = preview_rows("camera", pairs, seed=0, count=2)
    assert [(row.hr.shape, row.lr.shape, row.caption) for row in rows] == [((192, 192, 3), (48, 48, 3), "a")] * 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (0.00123456, "0.00123"), (12.345, "12.3"), (180.0, "180"), (1234.5, "1234"), (3e7, "3e+07"), ("a", "a")],
)
def test_values_have_three_digits(value: float | str, text: str) -> None:
    assert shown(value) == text


def test_a_strip_varies_one_parameter_alone() -> None:
    strip = swept("x", spec({"op": "gamma", "exponent": [1, 2]}, NOISE), "gamma.exponent", seed=0, steps=5)
    assert [step.value for step in strip.steps] == [1, 1.25, 1.5, 1.75, 2]
    means = [float(step.lr.mean()) for step in strip.steps]
    assert means == sorted(means, reverse=True)
    again = swept("x", spec({"op": "gamma", "exponent": [1, 2]}, NOISE), "gamma.exponent", seed=0, steps=2)
    np.testing.assert_array_equal(again.steps[0].lr, strip.steps[0].lr)
    np.testing.assert_array_equal(again.steps[-1].lr, strip.steps[-1].lr)
    assert "sigma" in strip.fixed
    assert "exponent" not in strip.fixed


def test_the_psnr_says_how_far_lr_is_from_plain_bicubic() -> None:
    strip = swept("x", spec(NOISE | {"sigma": [0, 20]}), "gaussian_noise.sigma", seed=0, steps=4)
    figures = [step.psnr for step in strip.steps]
    assert figures[0] == CAP
    assert figures == sorted(figures, reverse=True)


@pytest.mark.parametrize(
    ("step", "parameter", "values"),
    [
        ({"op": "jpeg", "quality": [40, 43]}, "jpeg.quality", [40, 41, 42, 43]),
        ({"op": "jpeg", "quality": {"choice": [90, 40]}}, "jpeg.quality", [40, 90]),
        ({"op": "gamma", "exponent": {"log_uniform": [0.5, 2]}}, "exponent", pytest.approx(np.geomspace(0.5, 2, 6))),
        ({"op": "gamma", "exponent": {"per_scale": {2: 1, 4: [1, 3.5]}}}, "gamma.exponent", [1, 1.5, 2, 2.5, 3, 3.5]),
        ({"op": "resize", "factor": 0.8, "method": ["area", "bilinear"]}, "resize.method", ["area", "bilinear"]),
        ({"op": "gamma", "exponent": [1, 3.5], "probability": 0.2}, "exponent", [1, 1.5, 2, 2.5, 3, 3.5]),
    ],
)
def test_values_go_from_low_to_high_as_they_are_drawn(step: dict[str, Any], parameter: str, values: object) -> None:
    assert [one.value for one in swept("x", spec(step), parameter, seed=0, steps=6).steps] == values


NOISES = spec(NOISE, {"op": "one_of", "choices": [NOISE, {"op": "poisson_noise", "peak": [30, 60]}]})


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("gaussian_noise.sigma", "use one of 0.gaussian_noise.sigma, 1.0.gaussian_noise.sigma"),
        ("poisson_noise.peek", "did you mean 'poisson_noise.peak'"),
        ("xyz", "known parameters: gaussian_noise.sigma, poisson_noise.peak"),
    ],
)
def test_a_parameter_that_is_not_clear_is_refused(parameter: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        swept("x", NOISES, parameter, seed=0, steps=2)


@pytest.mark.parametrize("parameter", ["1.1.poisson_noise.peak", "poisson_noise.peak", "noise.peak", "peak"])
def test_a_short_name_is_enough_where_it_is_clear(parameter: str) -> None:
    assert "1.1.poisson_noise.peak" in swept("x", NOISES, parameter, seed=0, steps=1).title


def test_real_pairs_and_fixed_tasks_have_nothing_to_sweep(pairs: PairsSpec) -> None:
    for one in (pairs, spec()):
        with pytest.raises(UserError, match="x draws no parameter"):
            swept("x", one, "gamma.exponent", seed=0, steps=2)


def test_an_operation_that_is_too_rare_is_named() -> None:
    rare = {"op": "gamma", "exponent": [1, 2], "probability": 1e-9}
    with pytest.raises(UserError, match=r"none of the first 1000 tasks of x contains 0\.gamma"):
        swept("x", spec(rare), "exponent", seed=0, steps=2)


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_strips_are_drawn_without_overlaps(steps: int) -> None:
    strips = [swept(name, spec(NOISE), "sigma", seed=0, steps=steps) for name in ("night", "day")]
    figure = sweep_strips(strips)
    assert len(figure.axes) == 2 * (1 + steps)
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert {"night: 0.gaussian_noise.sigma, seed 0", "HR", "2"} <= {text.get_text() for text in texts}
    boxes = [Text.get_window_extent(text).padded(-1) for text in texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = Project(REPOSITORY)
    folder = tmp_path_factory.mktemp("gallery")
    return write_gallery([project.path("tasks", name) for name in ("jpeg", "noise_poisson")], folder)


def test_the_gallery_shows_tasks_and_every_operation(gallery: Path) -> None:
    text = gallery.read_text()
    assert [text.count(f'id="task-{name}"') for name in ("jpeg", "noise_poisson")] == [1, 1]
    for name, operation in OPERATIONS.items():
        card = text.partition(f'id="op-{name}"')[2].partition("</article>")[0]
        assert card.count("<code>{op: ") == len(operation.examples), name
        assert all(f"<td>{key}</td>" in card for key in operation.model_fields if key not in {"op", "probability"})


def test_the_gallery_is_complete_and_small(gallery: Path) -> None:
    sources = set(re.findall(r'src="([^"]+)"', gallery.read_text()))
    files = {str(path.relative_to(gallery.parent)) for path in gallery.parent.rglob("*.png")}
    assert sources == files
    assert "http" not in re.sub(r"<pre>.*?</pre>", "", gallery.read_text(), flags=re.DOTALL)
    assert sum(path.stat().st_size for path in gallery.parent.rglob("*")) < 6e6
    assert {max(read_image(gallery.parent / name).pixels.shape) for name in files} <= set(range(193))


def test_a_task_card_has_the_file_without_its_comment(gallery: Path) -> None:
    card = gallery.read_text().partition('id="task-jpeg"')[2].partition("</article>")[0]
    assert "JPEG compression of the LR image" in card
    assert "yaml-language-server" not in card
    assert "Look:" not in card
    assert "<pre>kind: synthetic\n" in card
    assert len(re.findall(r"<b>jpeg</b> quality \d\d", card)) == 6


def test_the_gallery_is_the_same_again(gallery: Path, tmp_path: Path) -> None:
    again = write_gallery([Project(REPOSITORY).path("tasks", name) for name in ("jpeg", "noise_poisson")], tmp_path)
    assert again.read_bytes() == gallery.read_bytes()


def test_a_folder_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_gallery([], tmp_path / "file" / "gallery")
