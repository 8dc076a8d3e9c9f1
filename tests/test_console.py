"""Text is printed as it is: whatever names are made of, whatever the output can encode."""

from __future__ import annotations

import ast
import io
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

import metarestore
from metarestore.console import bars, command_line, console, prepare_output, say, text_column, visible
from metarestore.errors import UserError
from metarestore.reports.markdown import markdown_code, markdown_text
from metarestore.tasks.images import write_image

Cli = Callable[..., tuple[int, str, str]]

PACKAGE = Path(metarestore.__file__).parent
NAMES = [
    "bird[final]",
    "a[/b]",
    "[bold red]x[/]",
    "[link=file:///etc/passwd]y",
    r"back\[slash]",
    ":smile: 12 %s {0}",
    "夜景 🎉",
    "−x ± y",
    'it\'s "quoted" `$HOME`',
    "-rf",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"{name}.png: 1 pair")
    table = Table(title=name)
    table.add_column(name, no_wrap=True, overflow="ignore")
    table.add_row(name)
    console.print(table)
    out = capsys.readouterr().out
    assert out.startswith(f"{name}.png: 1 pair\n")
    assert out.count(name) == 4


@pytest.mark.parametrize("name", NAMES)
def test_progress_bars_show_names_as_they_are(name: str) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    with bars(text_column(), text_column("{task.fields[what]:<40}")) as shown:
        shown.add_task(name, total=2, what=name)
        terminal.print(shown.get_renderable())
    assert terminal.file.getvalue().count(name) == 2


@pytest.mark.parametrize(
    ("given", "shown"),
    [("a\x1b[31mb", r"a\x1b[31mb"), ("a\rb", r"a\rb"), ("a\x07", r"a\x07"), ("a\u2028b\x85", r"a\u2028b\x85")],
)
def test_what_drives_a_terminal_is_shown_as_an_escape(
    given: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert visible(given) == shown
    say(given)
    assert capsys.readouterr().out == f"{shown}\n"


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], io.BytesIO]]:
    """Replaces stdout and stderr by files of an encoding, as a redirect on Windows or an ISO locale does."""

    def of(encoding: str) -> io.BytesIO:
        written = io.BytesIO()
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, io.TextIOWrapper(written, encoding=encoding, write_through=True))
        return written

    return of


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "iso8859-15", "cp437", "utf-8"])
@pytest.mark.parametrize("name", [*NAMES, "not UTF-8 \udcff"])
def test_no_output_is_lost_for_its_encoding(encoding: str, name: str, output: Callable[[str], io.BytesIO]) -> None:
    written = output(encoding)
    prepare_output()
    table = Table(title="gain −0.1 ± 0.2")
    table.add_column("arm")
    table.add_row(name)
    console.print(table)
    say(name)
    sys.stderr.write(f"{name}\n")
    text = written.getvalue().decode(encoding)
    assert "gain" in text
    expected = name if encoding == "utf-8" and "\udcff" not in name else ascii(name)[1:-1]
    if name.isascii():
        assert text.count(name) == 3
    elif "−" not in name:
        assert text.count(expected) == 3


def test_our_own_typography_is_spelt_where_it_cannot_be_encoded(output: Callable[[str], io.BytesIO]) -> None:
    written = output("ascii")
    prepare_output()
    say("−0.1 ± 0.2 – ×4 → big")
    assert written.getvalue() == b"-0.1 +- 0.2 - x4 -> big\n"


@pytest.mark.parametrize("name", [*NAMES, "two words", "a;b", "a&b", "*", "~", "#1"])
def test_a_command_can_be_copied(name: str) -> None:
    line = command_line("metarestore", "train", Path(name) / "first.yaml")
    program, command, path = shlex.split(line)
    assert (program, command) == ("metarestore", "train")
    assert Path(path) == Path(name) / "first.yaml"
    assert not path.startswith("-")


@pytest.mark.parametrize("name", [*NAMES, "a|b", "*bold*", "<b>", "&lt;", "[a](b)", "__init__", "`"])
def test_markdown_shows_names_as_they_are(name: str) -> None:
    escaped = markdown_text(name)
    assert re_unescaped(escaped) == name
    assert not any(escaped[k] in "|*<`" and escaped[k - 1 : k] != "\\" for k in range(len(escaped)))
    code = markdown_code(name)
    fence = code[: len(code) - len(code.lstrip("`"))]
    assert code.count(fence) == 2 or name == "`"
    assert name in code


def re_unescaped(text: str) -> str:
    """Undoes Markdown's escapes: a backslash before punctuation goes."""
    found, escaped = "", False
    for each in text:
        if each == "\\" and not escaped:
            escaped = True
            continue
        found += each
        escaped = False
    return found


def test_numbers_and_plain_names_stay_readable_in_markdown() -> None:
    for text in ("pretrain_weighted", "[−0.10, +0.32]", "27.16 ± 1.11", "±", "blur_iso_mild"):
        assert markdown_text(text) == text


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""), node


def test_there_is_one_console_and_no_markup() -> None:
    """Every other way to print text in rich's markup would bring the fault back."""
    forbidden = {"Console", "TextColumn", "track", "from_markup", "Prompt", "Confirm", "render_markup"}
    for path in PACKAGE.rglob("*.py"):
        for name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            own = path.name == "console.py" or (name == "track" and not isinstance(call.func, ast.Name))
            assert own or name not in forbidden, f"{path}:{call.lineno}: {name}"
            assert not any(word.arg == "markup" and getattr(word.value, "value", None) for word in call.keywords)


@pytest.mark.parametrize("name", ["bird[final]", "a[/b]", "[red]x", "夜 {0}"])
def test_commands_name_files_as_they_are(cli: Cli, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / f"lr{name}".replace("/", "")
    folder.mkdir()
    stem = name.replace("/", "")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    write_image(folder / f"{stem}.png", pixels)
    code, out, err = cli("evaluate", "--bicubic", "--data", folder)
    assert (code, err) == (0, "")
    assert out.startswith(f"{stem} ")
    code, out, err = cli("restore", folder / f"{stem}.png", "--model", "kdsr_tiny_mixed", "--out", f"out{stem}.png")
    assert (code, err) == (0, "")
    assert f"out{stem}.png" in out
    code, out, err = cli("tasks", "sample", "bicubic", "--count", "1", "--patch", "32", "--out", name)
    assert (code, out, err) == (0, f"{name}: 1 pairs of bicubic, seed 0\n", "")
    code, out, err = cli("init", f"{name} project")
    assert (code, err) == (0, "")
    assert command_line("metarestore", "train", Path(f"{name} project") / "experiments/first.yaml") in out
    code, out, err = cli("check", f"{name}/nothing")
    assert (code, err) == (2, f"{name}/nothing: no such file or folder\n")


def test_the_version_is_printed(cli: Cli) -> None:
    assert cli("--version") == (0, f"metarestore {metarestore.__version__}\n", "")


def test_debug_is_no_option_behind_two_dashes(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("init", "--", "--debug")[0] == 0
    assert (tmp_path / "--debug" / "experiments" / "first.yaml").is_file()
    with pytest.raises(UserError):
        cli("check", "nowhere", "--debug")
