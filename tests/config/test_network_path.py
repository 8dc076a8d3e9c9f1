"""Networks that an experiment names are found by the type of the field that names them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from metarestore.config.experiment import Experiment
from metarestore.config.network_path import network_paths, with_network_paths

KDSR = {"kind": "kdsr", "size": "tiny"}
INIT = {"learner": {"kind": "finetune"}, "training": {"init": "a"}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        (INIT, {"training.init": "a"}),
        ({"model": {"kind": "spandrel", "path": "a.pth"}}, {"model.path": "a.pth"}),
        ({"model": KDSR, "learner": {"kind": "distill", "teacher": "t"}}, {"learner.teacher": "t"}),
        ({"graph": {"estimator": {"kind": "descriptor", "network": "n"}}}, {"graph.estimator.network": "n"}),
        (
            {**INIT, "graph": {"estimator": {"kind": "inverted", "of": {"kind": "descriptor", "network": "n"}}}},
            {"training.init": "a", "graph.estimator.of.network": "n"},
        ),
    ],
)
def test_paths_are_found_and_replaced(
    small_experiment: Callable[..., Experiment], changes: dict[str, object], expected: dict[str, str]
) -> None:
    experiment = small_experiment(**changes)
    assert network_paths(experiment) == {key: Path(path) for key, path in expected.items()}
    moved = with_network_paths(experiment, lambda key, path: Path(key) / path)
    assert network_paths(moved) == {key: Path(key) / path for key, path in expected.items()}
    assert with_network_paths(moved, lambda key, path: Path(path.name)).model_dump() == experiment.model_dump()
    assert network_paths(experiment) == {key: Path(path) for key, path in expected.items()}  # left as it was


def test_folders_of_photographs_are_no_networks(small_experiment: Callable[..., Experiment]) -> None:
    assert network_paths(small_experiment(data={"train": "photos"})) == {}
