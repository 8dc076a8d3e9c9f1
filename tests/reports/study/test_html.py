"""The report is one file that needs nothing else, escapes what it is given, and leaves out what is not there."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from metarestore.errors import UserError
from metarestore.evaluation.results import Example, StudyResult
from metarestore.reports.study.html import duration, render_report, write_report

EVIL = '<script>alert("1")</script>'


class Page(HTMLParser):
    """Collects tags, attributes and visible text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(study):
    return render_report(study, "seed: 0\nlearner: {kind: maml}\n", "metarestore compare x.yaml")


def test_nothing_is_fetched_from_elsewhere(page):
    namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r"https?:|//[a-z]+\.|@import|file:", namespaces)
    for name, value in Page(page).attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:image/png;base64,", "#")), value
    assert not {"script", "link", "iframe", "object", "base"} & set(Page(page).tags)


def test_every_arm_and_its_mean_is_on_the_page(study, page):
    text = Page(page).text
    for arm in study.arms:
        assert arm.name in text
        assert f"{sum(arm.psnr_y) / len(arm.psnr_y):.2f}" in text
    for name in study.arms[-1].relations.auxiliary:
        assert name in text


def test_every_picture_is_on_the_page(study, page):
    assert Page(page).tags.count("img") >= sum(len(example.images) + 1 for example in study.examples)
    for example in study.examples:
        assert example.caption in Page(page).text
        for value in example.psnr_y.values():
            assert f"{value:.2f} dB" in Page(page).text


def test_command_and_configuration_are_on_the_page(page):
    assert "metarestore compare x.yaml" in Page(page).text
    assert "learner: {kind: maml}" in Page(page).text


def test_whatever_is_given_is_text(study):
    bad = study.arms[-1]
    relations = dataclasses.replace(bad.relations, target=EVIL)
    history = dataclasses.replace(bad.history, sources=(EVIL, *bad.history.sources[1:]))
    relations = dataclasses.replace(relations, estimator="response")
    arm = dataclasses.replace(bad, name=EVIL, relations=relations, history=history)
    pixels = np.zeros((8, 8, 3), np.uint8)
    example = Example(EVIL, pixels, {EVIL: pixels}, {})
    evil = dataclasses.replace(study, name=EVIL, arms=(study.arms[0], arm), examples=(example,))
    page = Page(render_report(evil, EVIL, EVIL))
    assert "script" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert page.text.count(EVIL) >= 6  # title, heading, table, figures, caption, label, command, configuration


@pytest.mark.parametrize("name", ["$x$", r"a\b", "äöü ×4", "a_b^c"])
def test_unusual_names_are_drawn_as_they_are(invent, name):
    study = StudyResult(name, (invent.arm("bicubic", [1, 2]), invent.arm(name, [2, 3])), (), 1.0)
    page = render_report(study, "", "")
    [drawing] = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert name in Page(drawing).text
    assert Page(page).text.count(name) >= 4


def test_missing_parts_are_left_out(page, invent):
    arms = [invent.arm("bicubic", [24, 25]), invent.arm("pretrain", [25, 26])]
    headings = re.findall(r"<h2>(.*?)</h2>", render_report(StudyResult("s", tuple(arms), (), 1.0), "", ""))
    assert headings == ["Results", "Significance of differences", "Evaluation protocol", "Reproduction"]
    assert len(re.findall(r"<h2>", page)) > len(headings)


@pytest.mark.parametrize("figures", [{}, {"bicubic": [24.0, 25.0]}, {"maml": [24.0]}])
def test_hardly_anything_is_still_a_report(invent, figures):
    arms = tuple(invent.arm(name, values) for name, values in figures.items())
    page = render_report(StudyResult("s", arms, (), 1.0), "", "")
    assert all(arm.name in page for arm in arms)
    assert "nan" not in Page(page).text


def test_equal_studies_give_equal_bytes(study, page):
    assert render_report(study, "seed: 0\nlearner: {kind: maml}\n", "metarestore compare x.yaml") == page


def test_the_report_is_written_with_its_folder(invent, tmp_path):
    study = StudyResult("s", (invent.arm("bicubic", [24, 25]),), (), 1.0)
    write_report(study, "", tmp_path / "new" / "report.html", "")
    assert "</html>" in (tmp_path / "new" / "report.html").read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_the_users_error(invent, tmp_path):
    study = StudyResult("s", (invent.arm("bicubic", [24, 25]),), (), 1.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(study, "", tmp_path / "file" / "report.html", "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.7, "1 min 00 s"), (754, "12 min 34 s"), (7500, "2 h 05 min")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text
