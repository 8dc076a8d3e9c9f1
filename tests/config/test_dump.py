"""Laws of writing YAML: what is written reads back as the same data."""

import json
from pathlib import Path
from typing import Literal

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field

from metarestore.config.base import Strict
from metarestore.config.document import read_document, validate
from metarestore.config.dump import dump_yaml, to_yaml
from metarestore.config.ranges import Range
from metarestore.config.yaml_text import parse_yaml


class Blur(Strict):
    op: Literal["blur"]
    sigma: Range


class Study(Strict):
    pipeline: tuple[Blur, ...]
    rate: float
    source: Path
    relation: float | None = Field(None, alias="from")


TRAPS = [
    "1e-4",
    "-.5e3",
    "yes",
    "null",
    "~",
    "0o17",
    "1_000",
    " x",
    "x ",
    "a: b",
    "a #c",
    "<<",
    "- x",
    "---",
    "...",
    "?0",
]
TRAPS += [
    "\ufeff",
    "\u2028",
    "\x85",
    "\x7f",
    "\U0001f600",
    "a\n\n b\n",
    "\t",
    "blur_*",
    "../data/x.png",
    "{a}",
    "x: ",
    "%a",
]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.sampled_from(TRAPS)
)  # fmt: skip
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


class TestDump:
    @settings(max_examples=200, deadline=None)
    @given(st.dictionaries(st.text(max_size=8) | st.sampled_from(TRAPS), DATA, max_size=5))
    @example({"lr": 1e-4, "long": "word " * 100, "k" * 200: [1.5] * 100, "tiny": 5e-324, "big": 1.7976931348623157e308})
    def test_reads_back_as_the_same_data_in_the_same_order(self, data):
        back, _ = parse_yaml(to_yaml(data))
        assert json.dumps(back) == json.dumps(data)  # tells 1 from 1.0 and True, and one order of keys from another

    def test_a_model_reads_back_as_itself_from_its_file(self, tmp_path):
        written = {
            "pipeline": [{"op": "blur", "sigma": {"log_uniform": [1e-4, 1]}}],
            "rate": 1e-4,
            "source": "a/b",
            "from": 1,
        }
        study = Study.model_validate(written)
        path = tmp_path / "y.yaml"
        dump_yaml(study, path, header="Resolved.\n\nRun: metarestore train x.yaml")
        assert validate(read_document(path), Study) == study
        assert path.read_text().startswith("# Resolved.\n#\n# Run: metarestore train x.yaml\npipeline:\n")

    def test_is_readable(self):
        data = {"pipeline": [{"op": "jpeg", "quality": [40, 90]}], "rate": 1e-5, "note": "on"}
        assert to_yaml(data) == "pipeline:\n  - op: jpeg\n    quality: [40, 90]\nrate: 1e-05\nnote: on\n"

    def test_never_writes_aliases(self):
        shared = [1, 2]
        assert "*" not in to_yaml({"a": shared, "b": shared})
