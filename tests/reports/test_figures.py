"""Every figure can be drawn, shows something, names what it shows, and no label covers another."""

import dataclasses
import itertools

import cv2
import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from metarestore.errors import UserError
from metarestore.evaluation.results import Curve, StudyResult
from metarestore.reports.graph.relations import relation_bars, relation_heatmap
from metarestore.reports.study.figures import arms_by_relations, before_after, study_figures
from metarestore.reports.style import arm_styles, smoothed, spread
from metarestore.reports.tasks.contact_sheet import Section, SheetRow, contact_sheet, save_png

TARGET = "phone_camera"
FIGURES = (
    "results",
    "adaptation",
    "training",
    "relations-pretrain_weighted",
    "relation-weights-pretrain_weighted",
    "graph-pretrain_weighted",
    "refreshes-pretrain_weighted",
    "attention-pretrain_weighted",
    "weights-fomaml_weighted",
    "example-1",
)


def expected_words(name, invent):
    words = {
        "results": invent.arms,
        "adaptation": (*invent.arms, "bicubic", "adam 0.0003", "sgd 0.01"),
        "training": invent.arms,
        "relations": (*invent.distributions, TARGET, "response", "20 draws", "0.91"),
        "relation": (*invent.distributions, TARGET),
        "graph": (*invent.distributions, TARGET, "gradient weight 1"),
        "refreshes": (*invent.distributions, "3 times"),
        "attention": (*invent.distributions, TARGET),
        "weights": invent.distributions,
        "example": ("LR", "bicubic", "target_only", "pretrain_weighted", "HR", "26.31 dB"),
    }
    return words[name.split("-")[0]]


@pytest.fixture(scope="module")
def figures(study):
    return study_figures(study)


def texts(figure):
    """All texts that are drawn: matplotlib keeps the labels of ticks that lie outside of the axes."""
    axes = [axis for one in figure.axes for axis in (one.xaxis, one.yaxis)]
    outside = {
        id(tick.label1)
        for axis in axes
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    found = figure.findobj(Text)
    return [text for text in found if text.get_text().strip() and text.get_visible() and id(text) not in outside]


def boxes(figure):
    """Text and its box in pixels, without the line that ties it to what it names."""
    figure.draw_without_rendering()
    return [(text.get_text(), Text.get_window_extent(text)) for text in texts(figure) if not text.get_rotation()]


def overlaps(figure):
    """Pairs of texts whose boxes cover each other by more than two pixels."""
    return [
        (a, b)
        for (a, first), (b, second) in itertools.combinations(boxes(figure), 2)
        if first.padded(-1).overlaps(second.padded(-1))
    ]


@pytest.fixture
def rows(invent):
    hr = invent.example(np.random.default_rng(1), 1).hr
    return [SheetRow(hr, hr[::4, ::4], f"blur.sigma {index}.5\njpeg.quality 5{index}") for index in range(8)]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_renders_and_names_what_it_shows(figures, invent, name, tmp_path):
    save_png(figures[name], tmp_path / "deep" / "figure.png")
    pixels = cv2.imread(str(tmp_path / "deep" / "figure.png"))
    assert pixels.min() < pixels.max()
    assert pixels.shape[1] >= 800
    shown = "\n".join(text.get_text() for text in texts(figures[name]))
    assert [word for word in expected_words(name, invent) if word not in shown] == []


def test_every_figure_of_the_study_is_covered(figures, study):
    assert {name.rsplit("-", 1)[0] for name in figures} == {name.rsplit("-", 1)[0] for name in FIGURES}
    assert len([name for name in figures if name.startswith("example")]) == len(study.examples)


@pytest.mark.parametrize("name", FIGURES)
def test_no_label_covers_another(figures, name):
    assert overlaps(figures[name]) == []


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off(figures, name):
    whole = figures[name].bbox.padded(1)
    assert [text for text, box in boxes(figures[name]) if box.x0 < whole.x0 or box.x1 > whole.x1] == []
    assert [text for text, box in boxes(figures[name]) if box.y0 < whole.y0 or box.y1 > whole.y1] == []


def test_drawing_leaves_matplotlib_as_it_was(study):
    with matplotlib.rc_context({"font.size": 31.0, "text.usetex": False}):
        before = dict(matplotlib.rcParams)
        study_figures(dataclasses.replace(study, examples=()))
        assert dict(matplotlib.rcParams) == before


def test_the_target_comes_last_and_every_row_is_its_own(invent):
    relations = invent.relations(np.random.default_rng(3))
    axes = relation_heatmap(relations).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [label.get_text() for label in axes.get_xticklabels()]
    assert (sorted(labels[:-1]), labels[-1]) == (sorted(invent.distributions), TARGET)
    drawn = axes.images[0].get_array()
    np.testing.assert_array_equal(
        drawn[:-1, -1], [relations.values[invent.distributions.index(n)] for n in labels[:-1]]
    )
    np.testing.assert_array_equal(drawn, drawn.T)


def test_without_a_matrix_rows_go_from_near_to_far(invent):
    relations = dataclasses.replace(invent.relations(np.random.default_rng(3)), matrix=None)
    drawn = relation_heatmap(relations).axes[0].images[0].get_array()
    np.testing.assert_array_equal(drawn[:, 0], np.sort(relations.values)[::-1])


def test_without_a_matrix_the_targets_column_is_drawn(invent):
    relations = dataclasses.replace(invent.relations(np.random.default_rng(3)), matrix=None)
    axes = relation_heatmap(relations).axes[0]
    assert axes.images[0].get_array().shape == (len(invent.distributions), 1)
    assert overlaps(axes.get_figure()) == []


def test_an_experts_value_stands_in_the_targets_column(invent):
    relations = invent.relations(np.random.default_rng(3))
    stated = dataclasses.replace(relations, values=np.full(len(invent.distributions), 0.5))
    np.testing.assert_array_equal(relation_heatmap(stated).axes[0].images[0].get_array()[:-1, -1], 0.5)


def test_undefined_errors_and_reliability_are_left_out(invent):
    relations = invent.relations(np.random.default_rng(3))
    undefined = np.full(len(invent.distributions), np.nan)
    relations = dataclasses.replace(relations, standard_errors=undefined, reliability=float("nan"))
    shown = "\n".join(text.get_text() for text in texts(relation_heatmap(relations)))
    assert "nan" not in shown
    assert "±" not in shown
    assert "reliability" not in shown
    assert "nan" not in "".join(text.get_text() for text in texts(relation_bars(relations, {})))


def test_bars_have_the_lengths_of_the_weights(invent):
    relations = invent.relations(np.random.default_rng(3))
    weights = {name: 0.1 + index for index, name in enumerate(invent.distributions)}
    left, right = relation_bars(relations, weights).axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert [bar.get_width() for bar in right.patches] == [weights[name] for name in names]
    np.testing.assert_array_equal([bar.get_width() for bar in left.patches], np.sort(relations.values)[::-1])


def test_arms_with_the_same_relations_share_a_figure_and_controls_have_none(study):
    groups = [[arm.name for arm in group] for group in arms_by_relations(study)]
    assert groups == [["pretrain_weighted", "fomaml_weighted"]]


def test_a_diverging_curve_does_not_flatten_the_others(invent):
    good = invent.arm("good", [25.0, 26.0])
    bad = dataclasses.replace(
        good, name="bad", main=Curve("sgd 1", np.array([[25.0, 26], [-90, -80]]), np.zeros(2), (0, 1))
    )
    figure = study_figures(StudyResult("s", (invent.arm("bicubic", [24.0, 25.0]), good, bad), (), 1.0))["adaptation"]
    low, high = figure.axes[0].get_ylim()
    assert high - low < 8


@pytest.mark.parametrize("steps", [1, 2])
def test_the_shortest_training_can_be_drawn(invent, steps):
    history = invent.history(np.random.default_rng(0), invent.distributions, np.ones(len(invent.distributions)), steps)
    arm = dataclasses.replace(invent.arm("m", [25.0]), history=dataclasses.replace(history, validation=()))
    assert {"training", "weights-m", "results"} <= set(study_figures(StudyResult("s", (arm,), (), 1.0)))


def test_arms_of_one_learner_share_a_colour_and_variants_a_line(invent):
    styles = arm_styles(invent.arms)
    assert styles["fomaml_uniform"].colour == styles["fomaml_weighted"].colour != styles["pretrain_weighted"].colour
    assert styles["fomaml_uniform"].dashes == styles["pretrain_uniform"].dashes != styles["pretrain_weighted"].dashes
    assert len(set(styles.values())) == len(invent.arms)


@pytest.mark.parametrize("zoom", [1, 2])
def test_before_and_after_shows_every_pixel_as_it_is(invent, zoom, tmp_path):
    example = invent.example(np.random.default_rng(5), 1)
    save_png(before_after(example, zoom), tmp_path / "strip.png")
    picture = cv2.imread(str(tmp_path / "strip.png"))[..., ::-1]
    for image in (*example.images.values(), example.hr):
        large = np.kron(image, np.ones((zoom, zoom, 1), np.uint8))
        corner = picture[-8 - len(large) : -8]
        found = [
            left
            for left in range(corner.shape[1] - large.shape[1] + 1)
            if np.array_equal(corner[0, left : left + large.shape[1]], large[0])  # quick, then the whole
            and np.array_equal(corner[:, left : left + large.shape[1]], large)
        ]
        assert len(found) >= 1


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_contact_sheet_shows_all_draws(rows, count):
    figure = contact_sheet([Section("night, seed 0", rows[:count])])
    shown = "\n".join(text.get_text() for text in texts(figure))
    assert len(figure.axes) == 2 * count
    assert all(f"sigma {index}.5" in shown for index in range(count))
    assert "night, seed 0" in shown
    assert overlaps(figure) == []


def test_a_contact_sheet_has_a_section_for_each_task(rows):
    figure = contact_sheet([Section("night, seed 0", rows[:3]), Section("day, seed 0", rows[:2])])
    assert len(figure.axes) == 2 * (3 + 2)
    assert {"night, seed 0", "day, seed 0"} <= {text.get_text() for text in texts(figure)}
    assert overlaps(figure) == []


def test_a_contact_sheet_that_cannot_be_drawn_is_the_users_error(rows):
    with pytest.raises(UserError, match="lower --count"):
        contact_sheet([Section("night", rows)] * 100)


def test_a_contact_sheet_needs_a_draw():
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([Section("nothing", [])])


def test_a_long_caption_stays_under_its_pictures(rows):
    caption = "\n".join(f"some_operation.parameter_{index} {index}.123" for index in range(14))
    figure = contact_sheet([Section("long", [dataclasses.replace(row, caption=caption) for row in rows])])
    assert overlaps(figure) == []


def test_a_file_that_cannot_be_written_is_the_users_error(rows, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save_png(contact_sheet([Section("x", rows[:1])]), tmp_path / "file" / "sheet.png")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0, 0.08))
def test_spread_labels_keep_their_distance_and_order(positions, gap):
    placed = np.asarray(spread(positions, gap))
    order = np.argsort(positions, kind="stable")
    assert np.all(np.diff(placed[order]) >= gap - 1e-9)
    assert placed.min() >= -1e-9
    assert placed.max() <= 1 + 1e-9


def test_labels_that_are_far_apart_stay_where_they_are():
    assert spread([0.9, 0.1, 0.5], 0.2) == pytest.approx([0.9, 0.1, 0.5])


def test_smoothing_is_a_mean_over_the_present_neighbours():
    values = np.array([1.0, np.nan, 3.0, 8.0, 1.0])
    np.testing.assert_allclose(smoothed(values, 3), [1, 2, 5.5, 4, 4.5])
    np.testing.assert_allclose(smoothed(values[:, None], 3)[:, 0], smoothed(values, 3))
    np.testing.assert_allclose(smoothed(np.full(9, 2.5), 5), 2.5)
