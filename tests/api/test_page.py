"""The code of the page on Python runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from metarestore.scaffold import make_project

PAGE = (Path(__file__).parents[2] / "docs/python.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_store: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
