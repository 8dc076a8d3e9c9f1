"""Broken task files: whatever they say, they load or give located one-line errors, and touch nothing else.

The number of examples is bounded for everyday runs; `METARESTORE_FUZZ=10000 pytest tests/test_fuzz.py` tries more.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import metarestore
from metarestore.errors import UserError
from metarestore.project import catalogue, read_task
from metarestore.tasks.pairs import PairsSpec
from metarestore.tasks.spec import content_hash
from metarestore.tasks.synthetic import PipelineSpec

SOURCES = [path.read_text() for path in sorted((catalogue() / "tasks").glob("*.yaml"))] + [
    "kind: pairs\nscale: 2\nlr: lr\nhr: hr\n",
    "kind: synthetic\nscale: 2\npipeline:\n  - {op: kernel_file, path: kernel.npy}\n  - {op: downsample}\n",
]
HOSTILE = [
    *("!!python/object/apply:os.system ['touch pwned']", "!!python/name:os.system", "!include /etc/passwd", "<<: *x"),
    *("&x [*x, *x]", "*blur", "&blur", "%YAML 9.9", "---", "...", "? ", ": ", "- ", "[", "]", "{", "}", "|", ">", "#"),
    *("null", "~", "true", ".nan", ".inf", "-.inf", "1e999", "-1", "0", "1e-400", "9" * 400, "0x1F", "12:30:45"),
    *("2026-11-21", "''", '"\\u0000"', "\t", "\u2028", "\ufeff", "é", "日本", "../../etc/passwd", "/dev/zero"),
    *("[low, high]", "[3, 1]", "[1, 2, 3]", "{choice: []}", "{choice: [1], weights: [0]}", "{log_uniform: [0, 1]}"),
    *("{normal: [0, 1]}", "{per_scale: {4: [0, 1]}}", "{per_scale: {4: {per_scale: {4: 1}}}}"),
    *("{square_uniform: [-1, 1]}", "op", "kind", "scale", "pipeline", "steps", "choices", "probability", "times: 16"),
    *("one_of", "shuffle", "repeat", "protocol", "pairs"),
    "{op: repeat, times: 16, steps: [" * 7 + "{op: gamma, exponent: 1}" + "]}" * 7,
]
PLACE = re.compile(r"[^\n]+:\d+:\d+: [^\n]+")
# An import also looks into the archive of the standard library, which is on the path whether or not it exists.
ARCHIVE = Path(sys.base_prefix, sys.platlibdir, f"python{sys.version_info.major}{sys.version_info.minor}.zip")
PLACES = {*sysconfig.get_paths().values(), Path(metarestore.__file__).parent, ARCHIVE}
HOMES = [str(Path(place).resolve()) for place in PLACES]
EXECUTES = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "exec", "pickle.find_class")

mutations = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete line", "repeat line", "swap lines", "cut", "indent", "value"]),
        st.floats(0, 1),
        st.floats(0, 1),
        st.one_of(st.sampled_from(HOSTILE), st.text(max_size=8)),
    ),
    min_size=1,
    max_size=6,
)


def mutated(text: str, changes: list[tuple[str, float, float, str]]) -> str:
    for kind, first, second, payload in changes:
        lines = text.split("\n")
        row, other = (min(int(share * len(lines)), len(lines) - 1) for share in (first, second))
        at = int(first * len(text))
        if kind == "insert":
            text = text[:at] + payload + text[at:]
        elif kind == "replace":
            text = text[:at] + payload + text[at + 1 + int(second * 12) :]
        elif kind == "cut":
            text = text[:at]
        elif kind == "value":
            values = list(re.finditer(r"(?<=: )[^,}\n]+", text)) or [re.match("", text)]
            chosen = values[min(int(first * len(values)), len(values) - 1)]
            text = text[: chosen.start()] + payload + text[chosen.end() :]
        else:
            if kind == "delete line":
                del lines[row]
            elif kind == "repeat line":
                lines.insert(other, lines[row])
            elif kind == "indent":
                lines[row] = " " * int(second * 6) + lines[row].lstrip()
            else:
                lines[row], lines[other] = lines[other], lines[row]
            text = "\n".join(lines)
    return text


class Watch:
    """Records which files are opened and what is executed; an audit hook stays for the life of the process."""

    def __init__(self) -> None:
        self.active = False
        self.opened: list[str] = []
        self.executed: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.active:
            return
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            self.opened.append(os.fsdecode(arguments[0]))
        elif event in EXECUTES and not (event == "exec" and _of_a_module(arguments[0])):
            self.executed.append(f"{event} {arguments!r}")

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.opened.clear()
        self.executed.clear()
        self.active = True
        try:
            yield
        finally:
            self.active = False


def _of_a_module(code: object) -> bool:
    """Tells whether executed code is an import of an installed module, or a class of one (dataclasses, namedtuple)."""
    return str(getattr(code, "co_filename", "")).startswith((*HOMES, "<frozen", "<string>"))


WATCH = Watch()


def assert_loads_or_explains(tmp_path: Path, text: str) -> PipelineSpec | PairsSpec | None:
    """Reads `text` as a task file; whatever is wrong with it must be explained in located lines."""
    project = tmp_path / "project"
    (project / "tasks").mkdir(parents=True, exist_ok=True)
    file = project / "tasks" / "mutant.yaml"
    file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    problems: list[str] = []
    spec = None
    with WATCH.watching():
        try:
            spec = read_task(file)
        except UserError as error:
            problems = error.problems
        else:
            if isinstance(spec, PipelineSpec):
                for index in range(3):
                    spec.degradation(content_hash(spec), 0, index)
    assert spec or problems
    assert not [problem for problem in problems if not PLACE.fullmatch(problem)]
    assert not WATCH.executed
    for path in WATCH.opened:
        inside = str(Path(path).resolve()).startswith((str(project), *HOMES, "/proc/self"))
        assert inside or Path(path).name in text, f"{path} was opened"
    return spec


@settings(
    max_examples=int(os.environ.get("METARESTORE_FUZZ", "400")),
    deadline=10_000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(source=st.sampled_from(SOURCES), changes=mutations)
def test_a_mutated_task_file_loads_or_gives_located_errors(tmp_path: Path, source: str, changes: list) -> None:
    assert_loads_or_explains(tmp_path, mutated(source, changes))
    assert not (Path.cwd() / "pwned").exists()


@pytest.mark.parametrize("value", HOSTILE)
def test_every_hostile_value_in_place_of_a_number(tmp_path: Path, value: str) -> None:
    pipeline = f"pipeline:\n  - {{op: jpeg, quality: {value}}}\n  - {{op: downsample}}\n"
    assert_loads_or_explains(tmp_path, f"kind: synthetic\nscale: 4\n{pipeline}")


def test_a_bomb_of_aliases_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * 9)}]" for k in range(12)]
    assert assert_loads_or_explains(tmp_path, "\n".join(lines)) is None
