"""Laws of YAML text: what each spelling means, and the exact line for text that cannot be read."""

import math
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metarestore.config.document import Document, display_path, read_document
from metarestore.config.yaml_text import MAX_DEPTH, YamlError, parse_yaml
from metarestore.errors import UserError


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(text: str | bytes) -> Document:
    Path("x.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return read_document("x.yaml")


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(UserError) as raised:
        read(text)
    return list(raised.value.problems)


class TestScalars:
    """YAML 1.2 core schema; the right column is the specification's, not a library's."""

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            *[("1e-4", 1e-4), ("1E5", 1e5), ("1.e3", 1000.0), (".5", 0.5), ("-.5e3", -500.0), ("1.", 1.0)],
            *[("+3", 3), ("-0", 0), ("017", 17), ("0o17", 15), ("0x1F", 31), (".inf", math.inf), ("-.INF", -math.inf)],
            *[("null", None), ("~", None), ("", None), ("true", True), ("FALSE", False)],
        ],
    )
    def test_numbers_and_words(self, text, value):
        read_value = read(f"a: {text}\n").data["a"]
        assert (read_value, type(read_value)) == (value, type(value))

    @pytest.mark.parametrize(
        "text",
        [
            "yes",
            "on",
            "no",
            "y",
            "1_000",
            "2026-01-01",
            "1:30",
            "0b11",
            "=",
            "e5",
            "1e",
            "nULL",
            "0o8",
            "0x",
            "1e5.",
            "x<<",
        ],
    )
    def test_everything_else_is_text(self, text):
        assert read(f"a: {text}\n").data["a"] == text

    def test_quoted_is_text(self):
        assert read("a: '1e-4'\nb: \"null\"\nc: |\n  1\n").data == {"a": "1e-4", "b": "null", "c": "1\n"}

    def test_not_a_number_is_a_number(self):
        assert math.isnan(read("a: .nan\n").data["a"])

    def test_keys_are_text_as_written(self):
        assert read("on: 1\n2: 1\nnull: 1\n1e3: 1\n").data == {"on": 1, "2": 1, "null": 1, "1e3": 1}


class TestData:
    def test_is_plain_and_can_be_sent(self):
        document = read("a: [1, 1e-4, {b: x}]\nc: {d: true}\n")

        def types(value):
            yield type(value)
            for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
                yield from types(inner)

        assert set(types(document.data)) <= {dict, list, str, int, float, bool, type(None)}
        assert pickle.loads(pickle.dumps(document)) == document

    def test_an_alias_is_a_copy_and_keeps_its_places(self):
        document = read("a: &x {k: 1}\nb: *x\n")
        assert document.data == {"a": {"k": 1}, "b": {"k": 1}}
        assert document.data["a"] is not document.data["b"]
        assert document.locate(("b",)) == (2, 4)
        assert document.locate(("b", "k")) == (1, 11)

    def test_a_byte_order_mark_and_windows_line_ends_are_read(self):
        document = read(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
        assert document.data == {"a": 1, "b": 2}
        assert document.locate(("b",)) == (2, 4)


class TestUnreadable:
    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("", "x.yaml:1:1: the file is empty; write at least one key: value"),
            ("# nothing\n", "x.yaml:1:1: the file is empty; write at least one key: value"),
            ("# list\n- 1\n",
             "x.yaml:2:1: the file must hold a mapping (key: value), not a list; write at least one key: value"),
            ("word", "x.yaml:1:1: the file must hold a mapping (key: value), not text; write at least one key: value"),
            ("a: 1\nb: 2\na: 3\n", "x.yaml:3:1: key 'a' is given twice, first on line 1; keep one"),
            ("a: {b: 1, 'b': 2}\n", "x.yaml:1:11: key 'b' is given twice, first on line 1; keep one"),
            ("a:\n\tb: 1\n", "x.yaml:2:1: a tab cannot indent or start a value; use spaces"),
            ("a: b: c\n", "x.yaml:1:5: not valid YAML: mapping values are not allowed here"),
            ("a: 1\n---\nb: 2\n", "x.yaml:2:1: a second document begins here; write one document per file"),
            ("a: !!python/object/apply:os.system [ls]\n",
             "x.yaml:1:4: tags are not supported, got !!python/object/apply:os.system; "
             "remove it, or quote the value"),
            ("a: &x [1, *x]\n", "x.yaml:1:11: alias *x contains itself"),
            ("a: *x\n", "x.yaml:1:4: alias *x has no anchor &x before it; quote the value if * is meant"),
            ("a: {<<: {b: 1}}\n", "x.yaml:1:5: merge keys (<<) are not part of YAML 1.2; write the keys out"),
            ("? [1]\n: 2\n", "x.yaml:1:3: a key must be text, not a list, a mapping or an alias"),
            ("a: 1\nb: \x07\n", "x.yaml:2:4: a control character; remove it"),
            (b"a: 1\nbc: \xff\n", "x.yaml:2:5: byte 0xff is not UTF-8; save the file as UTF-8"),
            (f"a: {'9' * 5000}", "x.yaml:1:4: a number of 5000 digits; at most 1000 are allowed"),
            (f"a: 0x{'f' * 5000}", "x.yaml:1:4: a number of 5002 digits; at most 1000 are allowed"),
            ("a: '\ud800'".encode("utf-8", "surrogatepass"),
             "x.yaml:1:5: byte 0xed is not UTF-8; save the file as UTF-8"),
            ('a: "\\ud800"', "x.yaml:1:4: a lone surrogate is not a character; write \\U and eight digits"),
        ],
    )  # fmt: skip
    def test_line(self, text, line):
        assert problems(text) == [line]

    def test_all_mistakes_that_allow_reading_on_are_reported(self):
        assert [line.split(": ")[0] for line in problems("a: !x 1\nb: 2\nb: 3\nc: *d\ne: [\n")] == [
            *["x.yaml:1:4", "x.yaml:3:1", "x.yaml:4:4"],
            "x.yaml:6:1",
        ]

    @pytest.mark.parametrize(
        "text", ["%YAML 1.3\n---\na: 1\n", 'a: "\\UFFFFFFFF"\n', "%YAML 1." + "9" * 5000 + "\n---\na"]
    )
    def test_what_the_parser_does_not_expect_is_located_too(self, text):
        (line,) = problems(text)
        assert re.match(r"x\.yaml:1:\d+: not valid YAML: ", line)

    @pytest.mark.parametrize("count", [MAX_DEPTH + 1, 5000])
    @pytest.mark.parametrize("shape", ["lists", "mappings", "aliases"])
    def test_nesting_is_bounded(self, count, shape):
        text = {
            "lists": "a: " + "[" * count + "]" * count,
            "mappings": "a: " + "{a: " * count + "}" * count,
            "aliases": "a0: &a0 []\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(count)),
        }[shape]
        (line,) = problems(text)
        assert line.endswith(f"nested more than {MAX_DEPTH} levels deep")

    def test_an_alias_bomb_is_refused_before_it_grows(self):
        levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 40))
        (line,) = problems("a0: &a0 [x]\n" + levels)
        assert line == "x.yaml:6:5: more than 100000 values with expanded aliases"

    def test_files_that_are_none(self, tmp_path):
        for name, line in {
            "no.yaml": "no.yaml: no such file; check the path",
            ".": f"{Path()}: is a folder; give a YAML file",
            "a\0b": "a\0b: cannot be read: embedded null byte",
        }.items():
            with pytest.raises(UserError) as raised:
                read_document(name)
            assert raised.value.problems == (line,)

    def test_paths_are_relative_inside_the_current_directory_only(self, tmp_path, monkeypatch):
        assert display_path(tmp_path / "a" / "b.yaml") == str(Path("a/b.yaml"))
        monkeypatch.chdir(tmp_path.parent)
        Path(tmp_path, "inner").mkdir()
        monkeypatch.chdir(tmp_path / "inner")
        assert display_path("../b.yaml") == str(tmp_path / "b.yaml")


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="abe:,-?[]{}#&*!|>'\"%@ \n\t\\09.~<=\r\0", max_size=30))
def test_text_is_data_or_a_yaml_error(text):
    try:
        positions = [place.value for place in parse_yaml(text)[1].values()]
    except YamlError as error:
        positions = [position for position, _ in error.problems]
    assert all(line >= 1 and column >= 1 for line, column in positions)
