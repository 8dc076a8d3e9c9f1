"""Grids: cells are the product of arms and values, and what is wrong is refused at its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from metarestore.config.dump import to_yaml
from metarestore.config.experiment import Experiment
from metarestore.config.grid import Grid
from metarestore.config.overrides import parse_override
from metarestore.errors import UserError
from metarestore.project import arm_experiments, read_experiment

Build = Callable[..., Experiment]
ARMS: dict[str, Any] = {
    "uniform": {"graph": {"estimator": {"kind": "uniform"}}},
    "response": {},
    "long": {"training": {"steps": 9}},
}


def test_cells_are_arms_times_values(small_experiment: Build) -> None:
    axes: dict[str, list[Any]] = {"adaptation.shots": [1, 4], "training.steps": [2, 3, 4], "seed": [0, 1]}
    grid = Grid(small_experiment(arms=ARMS, grid=axes))
    found = [(cell.arm, *cell.labels.values()) for cell in grid.cells()]
    assert found == [(arm, *map(str, values)) for arm, *values in product(ARMS, *axes.values())]
    assert len({cell.name for cell in grid.cells()}) == len(found) == 36


def test_seeds_vary_fastest_wherever_they_stand(small_experiment: Build) -> None:
    grid = Grid(small_experiment(arms={"response": {}}, grid={"seed": [0, 1], "adaptation.shots": [1, 4]}))
    assert [(cell.repetition, cell.labels["adaptation.shots"]) for cell in grid.cells()] == [
        ("0", "1"),
        ("1", "1"),
        ("0", "4"),
        ("1", "4"),
    ]


def test_other_shots_are_repetitions_like_other_seeds(small_experiment: Build) -> None:
    axes = {"adaptation.first_shot": [0, 2], "adaptation.shots": [1, 4], "seed": [5, 6]}
    grid = Grid(small_experiment(arms={"response": {}}, grid=axes))
    assert [cell.repetition for cell in grid.cells()][:4] == ["5,0", "6,0", "5,2", "6,2"]
    assert {cell.group for cell in grid.cells()} == {(("adaptation.shots", shots),) for shots in "14"}


def test_a_cell_without_axes_is_its_arm(small_experiment: Build) -> None:
    experiment = small_experiment(arms=ARMS, grid={"seed": [0]})
    arms = arm_experiments(experiment)
    assert {c.arm: Grid(experiment).cell_experiment(c).model_dump() for c in Grid(experiment).cells()} == {
        name: arm.model_dump() for name, arm in arms.items()
    }


def test_a_value_is_set_as_set_does_and_the_arm_has_the_last_word(small_experiment: Build) -> None:
    learners = [{"kind": "pretrain"}, {"label": "deep", "kind": "fomaml", "inner_steps": 7}]
    experiment = small_experiment(arms=ARMS, grid={"learner": learners, "training.steps": [2, 3]})
    grid = Grid(experiment)
    cells = {cell.name: cell for cell in grid.cells()}
    deep = grid.cell_experiment(cells["response,learner=deep,steps=3"])
    assert (deep.learner.kind, getattr(deep.learner, "inner_steps", None), deep.training.steps) == ("fomaml", 7, 3)
    assert deep.training.patch == experiment.training.patch
    pinned = cells["long,learner=pretrain,steps=2"]
    assert grid.cell_experiment(pinned).training.steps == 9
    assert grid.pinned(pinned) == ("training.steps",)
    assert grid.pinned(cells["response,learner=deep,steps=3"]) == ()


def test_excluded_cells_are_those_that_fit_all_of_an_entry(small_experiment: Build) -> None:
    axes: dict[str, list[Any]] = {"adaptation.shots": [1, 2, 4], "seed": [0, 1]}
    exclude = [{"arm": ["uniform", "long"], "adaptation.shots": [1, 2]}, {"arm": "response", "seed": 1}]
    grid = Grid(small_experiment(arms=ARMS, grid=axes, grid_exclude=exclude))
    left = [(cell.arm, cell.labels["adaptation.shots"], cell.repetition) for cell in grid.cells()]
    expected = product(ARMS, "124", "01")
    assert left == [
        (arm, shots, seed)
        for arm, shots, seed in expected
        if not (arm in {"uniform", "long"} and shots in "12") and not (arm == "response" and seed == "1")
    ]


def test_an_exclusion_may_speak_of_what_set_left_out(small_experiment: Build, tmp_path: Path) -> None:
    data = small_experiment(
        arms=ARMS, grid={"adaptation.shots": [1, 4]}, grid_exclude=[{"arm": "long", "adaptation.shots": 1}]
    ).model_dump(mode="json", by_alias=True, exclude_unset=True)
    path = tmp_path / "grid.yaml"
    path.write_text(to_yaml(data))
    four = read_experiment(path, [parse_override('grid["adaptation.shots"]=[4]')])
    assert [cell.name for cell in Grid(four).cells()] == ["uniform,shots=4", "response,shots=4", "long,shots=4"]


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "unknown key": ({"adaptation.shotz": [1]}, {}, "unknown key 'shotz'; did you mean 'shots'?"),
    "unknown section": ({"adaption.shots": [1]}, {}, "unknown key 'adaption'; did you mean 'adaptation'?"),
    "wrong value": ({"training.steps": [1, "many"]}, {}, "must be a whole number, got 'many'"),
    "unknown key in a value": ({"learner": [{"kind": "fomaml", "inner_step": 2}]}, {}, "did you mean 'inner_steps'?"),
    "through a value": ({"training.steps.deep": [1]}, {}, "not a mapping"),
    "no key path": ({"a..b": [1]}, {}, "is not a key path"),
    "twice": ({"adaptation.shots": [1, 4, 1]}, {}, "1 is listed twice"),
    "same axis": ({"adaptation.shots": [1], "adaptation['shots']": [2]}, {}, "is not a key path"),
    "same key": ({"adaptation.shots": [1], 'adaptation["shots"]': [2]}, {}, "is the same key as 'adaptation.shots'"),
    "same label": (
        {"learner": [{"kind": "fomaml"}, {"kind": "fomaml", "inner_steps": 2}]},
        {},
        "has the same name, 'fomaml', as another value; give it a label",
    ),
    "empty": ({"adaptation.shots": []}, {}, "must have at least 1"),
    "engine": ({"engine.kind": ["ray"]}, {}, "engine: does not affect any result"),
    "arms": ({"arms.response": [{}]}, {}, "cells do not have this section"),
    "exclude nothing": ({"seed": [0]}, {"grid_exclude": [{"arm": "respons"}]}, "did you mean 'response'?"),
    "exclude by no axis": ({"seed": [0]}, {"grid_exclude": [{"sed": 0}]}, "did you mean 'seed'?"),
    "arm measured otherwise": (
        {"adaptation.shots": [1, 4]},
        {"arms": {"more": {"adaptation": {"shots": 3}}}},
        "sets adaptation.shots, which the grid sets for all arms",
    ),
    "arm within a section": (
        {"adaptation": [{"label": "one", "shots": 1}, {"label": "five", "shots": 5}]},
        {"arms": {"more": {"adaptation": {"shots": 3}}}},
        "sets adaptation, which the grid sets for all arms",
    ),
    "arm that does not fit": (
        {"learner": [{"kind": "pretrain"}]},
        {"arms": {"inner": {"learner": {"inner_steps": 3}}}},
        "(where arm is inner, learner is pretrain)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_at_its_place(small_experiment: Build, tmp_path: Path, case: str) -> None:
    grid, sections, message = WRONG[case]
    data = small_experiment().model_dump(mode="json", by_alias=True, exclude_unset=True)
    text = to_yaml({**data, "arms": ARMS, **sections, "grid": grid})
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_experiment(path)
    (problem,) = caught.value.problems
    assert message in problem
    line = int(re.match(r".*?grid\.yaml:(\d+):\d+: ", problem)[1])  # type: ignore[index]
    above = text.splitlines()[:line]
    section = next(row for row in reversed(above) if re.match(r"\w", row))
    assert section.rstrip(":") == problem.split(": ")[1].split("[")[0].split(".")[0]
