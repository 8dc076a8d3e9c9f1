"""The page about relation graphs names every key, its files are right, and its commands run as they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from ruamel.yaml import YAML

from metarestore.config import estimators
from metarestore.config.graph import GraphSpec, PriorSpec, WeightsSpec
from metarestore.engines.local import LocalEngine
from metarestore.reports.graph.summary import HIGH, MODERATE, SIGNAL
from metarestore.training.log import Observer
from metarestore.training.run import RunFolder, train
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

PAGE = (Path(__file__).parents[1] / "docs/graphs.md").read_text()
KINDS = get_args(get_args(estimators.Estimator)[0])


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_graph_file_of_the_page_is_right_and_shows_every_key() -> None:
    [text] = blocks("yaml")
    written = YAML(typ="safe", pure=True).load(text)
    GraphSpec.model_validate(written)
    assert set(written) == set(GraphSpec.model_fields)
    assert set(written["prior"]) == set(PriorSpec.model_fields)


@pytest.mark.parametrize("model", KINDS, ids=lambda model: model.__name__)
def test_every_estimator_stands_with_its_keys(model: type) -> None:
    kind = get_args(model.model_fields["kind"].annotation)[0]
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| `{kind}` |")]
    assert set(re.findall(r"`(\w+)`", row.split("|")[3])) == set(model.model_fields) - {"kind"}


def test_every_key_of_the_weights_has_a_row() -> None:
    section = PAGE.split("\n## Weights\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(WeightsSpec.model_fields)


def test_bounds_are_those_of_the_words() -> None:
    text = " ".join(PAGE.split())
    assert f"*reliable* from a reliability of {HIGH:g} on, *moderately* from {MODERATE:g} on" in text
    assert SIGNAL == 0.5
    assert "less than half of their variance" in text


def test_every_command_runs(
    cli: Callable[..., tuple[int, str, str]],
    small_study: Callable[..., Study],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("first", 0), ("second", 1)):
        study = small_study(seed=seed)
        folder = RunFolder(tmp_path / "runs" / name, study, resume=False)
        with LocalEngine() as engine:
            train(Workspace(study), folder, engine.session(study), Observer())
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert {line.split()[2] for line in commands} == {"show", "explain", "diff", "merge", "export"}
    for line in commands:
        code, _, err = cli(*shlex.split(line)[1:])
        assert (code, err) == (0, ""), line
