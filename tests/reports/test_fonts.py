"""Names in any script: by an installed font, else as numbers that are explained once; never empty boxes."""

import logging
import unicodedata
import warnings

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from metarestore.reports import fonts
from metarestore.reports.fonts import fallback_fonts
from metarestore.reports.pictures import save_png
from metarestore.reports.style import house_style, svg

NAMES = ["夜景_weighted", "ночь", "カメラ night", "한국어", "🎉", "ｐｈｏｔｏ", "𝑨", "𐎀𐎁"]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Every test warns anew."""
    monkeypatch.setattr(fonts, "_numbers", {})


@house_style
def bars(names):
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    axes.barh(range(len(names)), range(len(names)))
    axes.set_yticks(range(len(names)), names)
    axes.set_title(names[0])
    axes.annotate(names[-1], (0.5, 0.5))
    return figure


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


@pytest.mark.parametrize("name", NAMES)
def test_no_glyph_is_missing(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = svg(bars([name, "b"]))
        save_png(bars([name, "b"]), tmp_path / "a.png")
    assert name in page  # a browser has fonts


@pytest.fixture
def no_fallback(monkeypatch):
    """An installation with the font of matplotlib alone."""
    monkeypatch.setattr(fonts, "fallback_fonts", lambda characters: ())


@pytest.mark.usefixtures("no_fallback")
def test_without_a_font_words_are_numbered_and_explained_once(tmp_path, caplog):
    figure = bars(["夜景_weighted", "日本", "ночь", "夜景_uniform"])
    with caplog.at_level(logging.WARNING):
        save_png(figure, tmp_path / "a.png")
        save_png(bars(["日本", "夜景_weighted"]), tmp_path / "b.png")
    [record] = caplog.records
    legend = record.getMessage()
    numbers = {word: f"[{number}]" for word, number in fonts._numbers.items()}
    assert set(numbers) == {"夜景", "日本"}
    assert all(f"{number} is {word}" in legend for word, number in numbers.items())
    drawn = texts(figure)
    for expected in (f"{numbers['夜景']}_weighted", f"{numbers['夜景']}_uniform", numbers["日本"], "ночь"):
        assert expected in drawn
    assert not any("CJK" in unicodedata.name(each, "") for each in "".join(drawn))


@pytest.mark.usefixtures("no_fallback")
def test_a_compatible_spelling_is_taken_before_a_number(tmp_path, caplog):
    figure = bars(["ｐｈｏｔｏ１", "㎞"])
    save_png(figure, tmp_path / "a.png")
    assert "photo1" in texts(figure)
    assert caplog.records == []


@pytest.mark.usefixtures("no_fallback")
def test_two_words_never_get_one_number(tmp_path):
    figure = bars(["夜", "景", "夜景", "景夜"])
    save_png(figure, tmp_path / "a.png")
    drawn = [text for text in texts(figure) if text.startswith("[")]
    assert len(set(drawn)) == 4


def test_an_installed_font_is_chosen(tmp_path, caplog):
    """STIX comes with matplotlib and has letters that its usual font lacks."""
    assert fallback_fonts(frozenset("𝑨𝑩")) != ()
    figure = bars(["𝑨𝑩"])
    save_png(figure, tmp_path / "a.png")
    assert "𝑨𝑩" in texts(figure)
    assert caplog.records == []


def test_fonts_are_looked_for_only_where_one_lacks_something(monkeypatch, tmp_path):
    monkeypatch.setattr(fonts, "_coverage", lambda characters: pytest.fail("looked at all fonts"))
    save_png(bars(["plain", "ночь", "Ünïcødé −±×→"]), tmp_path / "a.png")


def test_placeholders_are_no_fonts():
    assert all("Last Resort" not in family for family in fallback_fonts(frozenset("夜景𐎀")))
