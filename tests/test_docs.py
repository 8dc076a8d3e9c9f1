"""The documentation speaks of everything that a task file may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarestore.degradations import OPERATIONS

PAGE = (Path(__file__).parents[1] / "docs/tasks.md").read_text()


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_operation_and_parameter_is_documented(name: str) -> None:
    section = PAGE.partition(f"### `{name}`")[2].partition("###")[0]
    assert section, f"docs/tasks.md does not mention {name}"
    for parameter in set(OPERATIONS[name].model_fields) - {"op", "probability"}:
        assert f"| `{parameter}` |" in section
