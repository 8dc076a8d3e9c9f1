"""Search spaces: values are drawn as they are written, and what cannot be searched is refused at its place."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from metarestore.config.dump import dump_yaml
from metarestore.config.experiment import Experiment
from metarestore.config.overrides import parse_override
from metarestore.config.search import ParameterSpec, TuningSpec
from metarestore.config.search_space import grid_values, random_value
from metarestore.errors import UserError
from metarestore.project import read_experiment

Build = Callable[..., Experiment]


def drawn(count: int = 400, **written: Any) -> np.ndarray:
    rng, parameter = np.random.default_rng(0), ParameterSpec.model_validate(written)
    return np.asarray([random_value(parameter, rng) for _ in range(count)])


def test_whole_numbers_are_drawn_with_both_ends() -> None:
    values, counts = np.unique(drawn(int=[1, 4]), return_counts=True)
    assert values.tolist() == [1, 2, 3, 4]
    assert counts.min() > 60


def test_ranges_are_drawn_evenly_as_they_say() -> None:
    for values, middle in ((drawn(uniform=[1e-4, 1]), 0.5), (drawn(log_uniform=[1e-4, 1]), 1e-2)):
        assert values.min() >= 1e-4
        assert values.max() <= 1
        assert 0.4 < (values < middle).mean() < 0.6


def test_a_grid_is_spaced_as_its_range_is_drawn() -> None:
    def grid(**written: Any) -> list[float]:
        return list(grid_values(ParameterSpec.model_validate(written), 3))

    assert grid(uniform=[0, 1]) == [0, 0.5, 1]
    assert grid(log_uniform=[1e-4, 1]) == pytest.approx([1e-4, 1e-2, 1])
    assert grid(int=[1, 4]) == [1, 2, 4]
    assert grid(int=[1, 2]) == [1, 2]
    assert grid(int=[-(2**53), 2**53]) == [-(2**53), 0, 2**53]
    assert grid(choice=["a", "b"]) == [0, 1]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"int": [1, 10**23]}, "must be between -2.*53 and 2.*53"),
        ({"int": [1, 10**400]}, "must be between -2.*53 and 2.*53"),
        ({"uniform": [-1e308, 1e308]}, "too wide"),
    ],
)
def test_a_range_that_cannot_be_drawn_from_is_refused(written: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ParameterSpec.model_validate(written)


def refused(experiment: Experiment, folder: Path, **sections: Any) -> tuple[list[str], str]:
    """Returns the problems of an experiment file with other sections, and the file's text."""
    plain = experiment.model_dump(mode="json", by_alias=True, exclude_unset=True)
    path = folder / "wrong.yaml"
    dump_yaml({**plain, **sections}, path)
    with pytest.raises(UserError) as found:
        read_experiment(path)
    return list(found.value.problems), path.read_text()


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"learner.iner_lr": [0.1, 1]}, r"unknown key 'iner_lr'; did you mean 'inner_lr'\?"),
        ({"learner.inner_lr": [-1, 1]}, r"must be above 0, got -1"),
        ({"learner.inner_lr": [1, 0.1]}, r"low must be below high"),
        ({"learner.inner_lr": {"log_uniform": [0, 0.1]}}, r"log_uniform must start above 0"),
        ({"learner.inner_lr": {"log_unifrom": [0.1, 1]}}, r"did you mean 'log_uniform'\?"),
        ({"learner.inner_lr": {"int": [1, 2], "choice": [3]}}, r"exactly one of .* got int and choice"),
        ({"training.support": [1, 6]}, r"whole number.*write \{int: \[low, high\]\}"),
        ({"learner.kind": {"choice": ["maml", "mmal"]}}, r"unknown kind 'mmal'; did you mean 'maml'"),
        ({"evaluation.crop": {"int": [32, 64]}}, r"evaluation: all trials must be measured in the same way"),
        ({"training": {"choice": [{"steps": 4}]}}, r"training.source: all trials must be measured in the same way"),
        ({"training.steps": {"int": [4, 8]}}, r"asha compares trials at equal steps"),
        ({"model.d": {"int": [1, 4], "when": {"learner.knd": "maml"}}}, r"not a parameter of the search"),
        (
            {"learner.kind": {"choice": ["maml", "pretrain"]}, "learner.inner_lr": [0.1, 1]},
            r"unknown key 'inner_lr'.*where learner.kind is 'pretrain'.*`when`",
        ),
        (
            {"learner.kind": {"choice": ["maml"]}, "model.d": {"int": [1, 4], "when": {"learner.kind": "reptile"}}},
            r"'reptile' is never chosen; the choices are 'maml'",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_at_its_place(
    small_experiment: Build, tmp_path: Path, search: dict[str, Any], message: str
) -> None:
    plain = small_experiment().model_dump(mode="json", by_alias=True, exclude_unset=True)
    path = tmp_path / "wrong.yaml"
    dump_yaml({**plain, "search": search}, path)
    first = path.read_text().splitlines().index("search:") + 1
    with pytest.raises(UserError, match=message) as found:
        read_experiment(path)
    for problem in found.value.problems:
        assert int(problem.split(":")[1]) > first


@pytest.mark.parametrize("setting", [{"source": "target"}, {"shot_tasks": 1}])
def test_a_search_leaves_some_shots_to_compare_trials_by(
    small_experiment: Build, tmp_path: Path, setting: dict[str, Any]
) -> None:
    """A file is refused at the line that says so; an override is left to `tune`, since other commands may follow it."""
    search, plain = {"model.d": {"int": [4, 8]}}, {"steps": 4}
    (problem,), text = refused(small_experiment(), tmp_path, training={**plain, **setting}, search=search)
    assert "uses all shots for training, so none is held out to compare trials" in problem
    (key,) = setting
    assert key in text.splitlines()[int(problem.split(":")[1]) - 1]
    path = tmp_path / "plain.yaml"
    data = small_experiment().model_dump(mode="json", by_alias=True, exclude_unset=True)
    dump_yaml({**data, "training": plain, "search": search}, path)
    overrides = [parse_override(f"training.{key}={value}") for key, value in setting.items()]
    assert getattr(read_experiment(path, overrides).training, key) == setting[key]


@pytest.mark.parametrize(
    ("key", "parameter", "why"),
    [
        ("seed", {"int": [0, 9]}, "seed: all trials must be measured in the same way"),
        ("scale", {"choice": [2, 4]}, "scale: all trials must be measured in the same way"),
        ("data", {"choice": ["embedded"]}, "data: all trials must be measured in the same way"),
        ("graph.target", {"choice": ["phone_camera"]}, "graph.target: all trials must be measured in the same way"),
        ("adaptation.shots", {"int": [2, 4]}, "adaptation.shots: all trials must be measured in the same way"),
        (
            "training.shot_tasks",
            {"int": [0, 1]},
            "training.shot_tasks: trials may be compared on the shots",
        ),
        ("engine.kind", {"choice": ["local"]}, "engine: the engine does not affect results"),
        ("training.keep", {"int": [1, 3]}, "training.keep: a trial keeps only its last checkpoint"),
        (
            "adaptation.alternatives",
            {"choice": [[]]},
            "adaptation.alternatives: trials are compared by the main adaptation",
        ),
        ("adaptation.method", {"choice": ["shots"]}, "adaptation.method: trials are always adapted to the shots"),
        ("adaptation.kernel", {"choice": ["estimated"]}, "adaptation.kernel: trials are adapted to the shots"),
    ],
)
def test_what_all_trials_share_cannot_be_searched(
    small_experiment: Build, tmp_path: Path, key: str, parameter: dict[str, Any], why: str
) -> None:
    (problem,), _ = refused(small_experiment(), tmp_path, search={key: parameter})
    assert why in problem


def test_the_validation_metric_leaves_adaptation_alone(small_experiment: Build, tmp_path: Path) -> None:
    sections = {"search": {"adaptation.lr": [1e-4, 1e-3]}, "tuning": {"metric": "validation"}}
    (problem,), _ = refused(small_experiment(), tmp_path, **sections)
    assert "adaptation: the validation metric is computed without adaptation" in problem
    transfer = small_experiment(
        graph={"estimator": {"kind": "inverted", "of": {"kind": "transfer"}}}, **sections
    ).model_dump(mode="json", by_alias=True, exclude_unset=True)
    dump_yaml(transfer, tmp_path / "transfer.yaml")
    assert read_experiment(tmp_path / "transfer.yaml").search, "a transfer adapts, so its relations differ"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {
                "search": {
                    "learner.loss": {"choice": ["l1", "mse"]},
                    "learner.inner_lr": {"uniform": [0.1, 1], "when": {"learner.loss": "l1"}},
                },
                "tuning": {"scheduler": "pbt"},
            },
            r"tuning\.scheduler: pbt does not support `when`",
        ),
        (
            {"search": {"model.d": {"int": [4, 8]}}, "tuning": {"scheduler": "pbt"}},
            r"model: pbt changes values",
        ),
        (
            {"search": {"adaptation.lr": [1e-4, 1e-3]}, "adaptation": {"shots": 1, "shot_size": 64}},
            r"adaptation\.shots: 1 leaves no shot to hold out",
        ),
        (
            {"search": {"adaptation.lr": [1e-4, 1e-3]}, "tuning": {"searcher": "grid", "trials": 2}},
            r"tuning\.trials: the grid has more than 2 points",
        ),
        ({"search": {"adaptation.lr": [1e-4, 1e-3]}, "tuning": {"grid_points": 100_000_000}}, r"grid_points: .*1000"),
    ],
)
def test_settings_that_leave_nothing_to_compare_by_are_refused(
    small_experiment: Build, tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    problems, _ = refused(small_experiment(), tmp_path, **sections)
    assert any(re.search(message, problem) for problem in problems), problems


def test_a_grid_of_just_so_many_trials_is_right(small_experiment: Build, tmp_path: Path) -> None:
    experiment = small_experiment(
        search={"adaptation.lr": [1e-4, 1e-3]}, tuning={"searcher": "grid", "trials": 3, "grid_points": 3}
    )
    dump_yaml(experiment.model_dump(mode="json", by_alias=True, exclude_unset=True), tmp_path / "right.yaml")
    assert read_experiment(tmp_path / "right.yaml").tuning.trials == 3


def test_a_huge_grid_is_refused_at_once(small_experiment: Build, tmp_path: Path) -> None:
    keys = ("adaptation.lr", "learner.inner_lr", "training.optimizer.lr", "graph.weights.temperature")
    started = time.perf_counter()
    (problem,), _ = refused(
        small_experiment(),
        tmp_path,
        search={key: [1e-4, 1e-3] for key in keys},
        tuning={"searcher": "grid", "grid_points": 1000},
    )
    assert "the grid has more than 16 points" in problem
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("scheduler", ["asha", "pbt"])
def test_conditions_that_lead_in_a_circle_are_refused(small_experiment: Build, tmp_path: Path, scheduler: str) -> None:
    search = {
        "learner.kind": {"choice": ["maml", "fomaml"], "when": {"learner.loss": "l1"}},
        "learner.loss": {"choice": ["l1", "mse"], "when": {"learner.kind": "maml"}},
    }
    problems, _ = refused(small_experiment(), tmp_path, search=search, tuning={"scheduler": scheduler})
    assert sum("is circular" in problem for problem in problems) == (2 if scheduler == "asha" else 1)


def test_what_only_a_draw_shows_is_refused(small_experiment: Build, tmp_path: Path) -> None:
    """All ends are right while the others stand at their first values; a grid also puts two upper ends together."""
    search = {
        "training.optimizer.min_lr": [1e-5, 1e-2],
        "training.optimizer.schedule": {"choice": ["cosine"]},
        "training.optimizer.lr": {"choice": [2e-2, 1e-3]},
    }
    tuning = {"searcher": "grid", "grid_points": 2, "trials": 4}
    (problem,), text = refused(small_experiment(), tmp_path, search=search, tuning=tuning)
    lines = text.splitlines()
    assert "min_lr must not be above lr" in problem
    assert "training.optimizer.lr is 0.001" in problem
    assert "training.optimizer" in lines[int(problem.split(":")[1]) - 1]


def test_a_wrong_key_is_said_once_and_its_neighbours_are_left_alone(small_experiment: Build, tmp_path: Path) -> None:
    (problem,), _ = refused(small_experiment(), tmp_path, search={"learnr.inner_lr": [0.1, 1]})
    assert "search[\"learnr.inner_lr\"]: unknown key 'learnr'" in problem
    search = {"learner..inner_lr": [0.1, 1], "adaptation.lr": [1e-4, 1e-3]}
    (problem,), _ = refused(small_experiment(), tmp_path, search=search)
    assert "is not a key path" in problem


def test_the_number_of_trials_is_bounded() -> None:
    with pytest.raises(ValidationError, match="10000"):
        TuningSpec(trials=10**9)
