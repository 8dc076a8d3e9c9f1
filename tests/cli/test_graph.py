"""The commands `metarestore graph ...`: what they say and write, and one line for every mistake."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from metarestore.degradations import Pipeline
from metarestore.graphs.graph import build_graph, load_graph, save_graph, targets_of
from metarestore.graphs.relations import Relations
from metarestore.tasks.synthetic import SyntheticSpec

Cli = Callable[..., tuple[int, str, str]]

NAMES = ("blur", "jpeg", "noise")


def spec(quality: int) -> SyntheticSpec:
    pipeline = Pipeline.model_validate([{"op": "downsample"}, {"op": "jpeg", "quality": quality}])
    return SyntheticSpec(kind="synthetic", scale=4, pipeline=pipeline)


def write(folder: Path, relations: Relations, quality: int = 20) -> None:
    specs = {name: spec(quality + index) for index, name in enumerate(relations.auxiliary)}
    weights = dict(zip(relations.auxiliary, (2.0, 0.9, 0.1), strict=True))
    save_graph(build_graph(relations, weights, specs, spec(90), {"run": "abc", "seed": 7}), folder)


@pytest.fixture
def cli(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Runs `metarestore graph` in a folder with the graphs of two cameras."""
    matrix = np.asarray([[1, 0.6, 0.1, 0.8], [0.6, 1, 0.2, 0.3], [0.1, 0.2, 1, -0.4], [0.8, 0.3, -0.4, 1]])
    day = Relations("day", NAMES, matrix[-1, :-1], np.asarray([0.05, 0.1, 0.05]), "response", 12, 0.93, matrix)
    night = dataclasses.replace(day, target="night", values=np.asarray([0.1, 0.3, 0.9]), reliability=0.4)
    write(tmp_path / "runs/day", day)
    write(tmp_path / "runs/night", night)
    monkeypatch.chdir(tmp_path)
    return partial(cli, "graph")


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_show(cli: Cli) -> None:
    code, out, err = cli("show", "runs/day")
    assert (code, err) == (0, "")
    assert lines(out) == [
        "Relations to day",
        "auxiliary relation ± error weight allowed",
        "blur +0.80 0.05 2.00 yes",
        "jpeg +0.30 0.10 0.90 yes",
        "noise −0.40 0.05 0.10 yes",
        "estimator response, draws 12, reliability 0.93, effective distributions 1.9 of 3",
        "run abc, seed 7",
    ]
    assert cli("show", "runs/day/graph.json")[1] == out
    assert cli("show", "runs/day/graph.graphml", "day")[1] == out


def test_show_draws(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("show", "runs/day", "--out", "day.png")
    assert code == 0
    assert lines(out)[-1] == "day.png"
    assert cv2.imread(str(tmp_path / "day.png")).shape[1] >= 800


def test_merge_show_and_replace(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("merge", "runs/day", "runs/night", "--out", "both.json")
    assert (code, out) == (0, "both.json: 2 targets (day, night), 5 distributions\n")
    assert targets_of(load_graph(tmp_path / "both.json")) == ("day", "night")
    assert "Relations to day" in cli("show", "both.json")[1]
    shown = cli("show", "both.json", "night")[1]
    assert "Relations to night" in shown
    assert "Relations to day" not in shown
    assert "exists already" in cli("merge", "both.json", "runs/day", "--out", "both.json")[2]
    code, out, _ = cli("merge", "both.json", "runs/day", "--out", "both.json", "--overwrite")
    assert (code, lines(out)[0]) == (0, "day: taken from runs/day, not from both.json")


def test_diff(cli: Cli) -> None:
    code, out, _ = cli("diff", "runs/day", "runs/night")
    assert code == 0
    assert lines(out)[:3] == [
        "A: day in runs/day",
        "B: night in runs/night",
        "auxiliary A B B − A z-score weight A weight B",
    ]
    assert "blur +0.80 ± 0.05 +0.10 ± 0.05 −0.70 −9.9 2.00 2.00" in lines(out)
    assert "Rank correlation over 3 distributions: relations −1.00, weights +1.00." in out
    assert "Relations that differ by more than 2 standard errors: blur, noise." in out
    assert "No relation differs by more than 2 standard errors." in cli("diff", "runs/day", "runs/day")[1]
    cli("merge", "runs/day", "runs/night", "--out", "both.json")
    assert cli("diff", "both.json", "both.json", "--target", "day", "--other", "night")[1].count("both.json") == 2


def test_explain(cli: Cli) -> None:
    code, out, _ = cli("explain", "runs/day")
    assert code == 0
    text = " ".join(out.split())
    assert "day resembles blur (+0.80 ± 0.05) most." in text
    assert "The next is jpeg (+0.30 ± 0.10), 4.5 standard errors away." in text
    assert "The order is reliable" in text
    assert "To improve the estimate" not in text
    night = " ".join(cli("explain", "runs/night", "night")[1].split())
    assert "The order is not reliable" in night
    assert "To improve the estimate: more shots (adaptation.shots)" in night


@pytest.mark.parametrize("ending", ["json", "graphml"])
def test_export_can_be_read_again(cli: Cli, ending: str) -> None:
    code, out, _ = cli("export", "runs/day", "--out", f"g.{ending}")
    assert (code, out) == (0, f"g.{ending}\n")
    assert cli("show", f"g.{ending}")[1] == cli("show", "runs/day")[1]


def test_export_as_a_table_of_edges(cli: Cli, tmp_path: Path) -> None:
    assert cli("export", "runs/day", "--out", "g.csv")[0] == 0
    with (tmp_path / "g.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 + 6
    edge = next(row for row in rows if (row["source"], row["target"]) == ("blur", "day"))
    assert (float(edge["relation"]), float(edge["standard_error"]), float(edge["weight"])) == (0.8, 0.05, 2.0)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("show", "nowhere"), "nowhere: cannot be read (No such file or directory); give a run's folder or a graph"),
        (("show", "runs"), "runs: holds no graph.json; give a run that learned from several distributions"),
        (("show", "text.json"), "text.json: not a relation graph"),
        (("show", "runs/day", "dya"), "the graph has no target 'dya'; did you mean 'day'?"),
        (("show", "runs/day", "--out", "day.pdf"), "--out: day.pdf must end in .png"),
        (("explain", "runs/night", "day"), "the graph has no target 'day'; known targets: night"),
        (("diff", "runs/day", "runs/night", "--target", "day"), "the graph has no target 'day'; known targets: night"),
        (("diff", "both.json", "runs/dusk"), "say which to compare, with --target NAME --other NAME"),
        (
            ("merge", "runs/day", "runs/other", "--out", "x.json"),
            "runs/other: the auxiliary task 'blur' differs from that of runs/day",
        ),
        (("export", "runs/day", "--out", "day.dot"), "--out: day.dot must end in .graphml or .csv or .json"),
        (("export", "runs/day", "--out", "no/day.csv"), "--out: no/day.csv cannot be written"),
    ],
)
def test_mistakes(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], problem: str) -> None:
    (tmp_path / "text.json").write_text("text")
    values = np.asarray([0.1, 0.2, 0.3])
    write(tmp_path / "runs/other", Relations("other", NAMES, values, values, "response", 3), quality=60)
    write(tmp_path / "runs/dusk", Relations("dusk", NAMES, values, values, "response", 3))
    cli("merge", "runs/day", "runs/night", "--out", "both.json")
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert problem in err.splitlines()[0]
