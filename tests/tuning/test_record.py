"""What a sweep refuses before it starts anything, and what its record keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metarestore.config.experiment import Experiment
from metarestore.decibels import FLOOR
from metarestore.errors import UserError
from metarestore.evaluation.tuning import TrialResult
from metarestore.tuning import run as sweep
from metarestore.tuning.record import Record, open_record
from metarestore.tuning.run import require_searchable, run_tuning
from metarestore.workspace.workspace import Workspace

Build = Callable[..., Experiment]
ANIL = {"kind": "anil", "adapts": ["tail.*"]}
SEARCH = {"adaptation.lr": [1e-4, 1e-3]}


def test_a_measurement_of_a_diverged_network_is_kept(tmp_path: Path) -> None:
    record = Record(tmp_path, {})
    record.trials["a"] = TrialResult(1, {"adaptation.lr": 1.0}, "running", ((2, 20.0), (4, FLOOR)))
    record.save()
    assert json.loads((tmp_path / "sweep.json").read_text())["trials"]["a"]["history"] == [[2, 20.0], [4, FLOOR]]
    found = Record.load(tmp_path).trials["a"]
    assert found == record.trials["a"]
    assert found.diverged
    assert not found.measured(6, 20.0).diverged
    assert not TrialResult(2, {}).diverged


class Noted:
    """A parent run that remembers how it was ended."""

    status = ""

    def end(self, status: str) -> None:
        self.status = status


def test_the_parent_is_ended_even_if_the_record_cannot_be_read(tmp_path: Path) -> None:
    parent: Any = Noted()
    store: Any = None
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"), sweep._closed(store, parent, tmp_path, "held_out_shots"):
        raise RuntimeError
    assert parent.status == "FAILED"


MEASURED = TrialResult(1, {}, "finished", ((2, 20.0),))
UNMEASURED = {
    "no trial": (),
    "not begun": (TrialResult(1, {}),),
    "failed": (TrialResult(1, {}, "failed", ((2, 20.0),), "its process died"), TrialResult(2, {}, "failed")),
    "diverged": (TrialResult(1, {}, "finished", ((2, FLOOR),)),),
}


@pytest.mark.parametrize("kind", UNMEASURED)
@pytest.mark.parametrize("beside", [(), (MEASURED,)])
def test_a_search_in_which_nothing_was_measured_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, beside: tuple[TrialResult, ...]
) -> None:
    monkeypatch.setattr(sweep, "repair_runs", lambda *_: None)
    record = Record(tmp_path, {})
    record.trials = {str(index): trial for index, trial in enumerate((*UNMEASURED[kind], *beside))}
    record.save()
    parent: Any = Noted()
    store: Any = None
    with sweep._closed(store, parent, tmp_path, "held_out_shots"):
        pass
    assert parent.status == ("FINISHED" if beside else "FAILED")


def test_contents_are_compared_by_key(tmp_path: Path) -> None:
    contents = {"tasks.camera": "a", "data.train": "b"}
    record = Record(tmp_path, {}, contents=dict(contents))
    record.require_contents(contents)
    for key in contents:
        with pytest.raises(UserError, match=f"{key}: the files have changed"):
            record.require_contents({**contents, key: "other"})
    # A search of an earlier version does not know its contents; from here on it does.
    record.contents = None
    record.require_contents(contents)
    assert record.contents == contents


@pytest.mark.parametrize("record", ["run.json", "sweep.json", "grid.json"])
def test_a_search_does_not_start_in_the_folder_of_another_run(
    small_experiment: Build, tmp_path: Path, record: str
) -> None:
    (tmp_path / record).write_text("{}")
    with pytest.raises(UserError, match="holds a run already"):
        open_record(tmp_path, small_experiment(search=SEARCH), resume=False)


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(experiment: Experiment) -> None:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr(sweep, "connected", refuse)


def start(experiment: Experiment, out: Path, *, resume: bool = False) -> None:
    run_tuning(experiment, out.parent, out, name="refused", command="metarestore tune", resume=resume)


@pytest.mark.usefixtures("no_cluster")
def test_a_place_that_cannot_be_written_is_refused_in_one_line(small_experiment: Build, tmp_path: Path) -> None:
    experiment = small_experiment(search=SEARCH)
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "inside", Path("/proc/nope")):
        with pytest.raises(UserError, match="choose another --out") as found:
            start(experiment, out)
        assert len(found.value.problems) == 1


@pytest.mark.usefixtures("no_cluster")
def test_a_wrong_folder_is_not_resumed_and_none_is_made(small_experiment: Build, tmp_path: Path) -> None:
    experiment = small_experiment(search=SEARCH)
    with pytest.raises(UserError, match="contains no tuning run to continue"):
        start(experiment, tmp_path / "nothing", resume=True)
    assert not (tmp_path / "nothing").exists()
    open_record(tmp_path, small_experiment(search=SEARCH, seed=1), resume=False).save()
    with pytest.raises(UserError, match="seed was 1, is 0"):
        start(experiment, tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"search": {"graph.auxiliary": {"choice": [["bicubic"], ["nonexist"]]}}},
            r"with graph.auxiliary = \['nonexist'\]: graph.auxiliary: 'nonexist' is and matches no task",
        ),
        (
            {"search": {"learner.adapts": {"choice": [["tail.*"], ["nonexist.*"]]}}, "learner": ANIL},
            r"with learner.adapts = \['nonexist.\*'\]: learner.adapts: 'nonexist.\*' matches no parameter",
        ),
        (
            {"search": {"training.patch": {"int": [32, 48]}}},
            r"with training.patch = \d+: training.patch: \d+ is not a multiple of the scale",
        ),
        ({"search": {"training.patch": {"choice": [32, 4000]}}}, r"with training.patch = 4000: .*4000"),
        (
            {"search": {"training.patch": {"int": [32, 40]}}, "tuning": {"searcher": "grid", "grid_points": 9}},
            r"with training.patch = 39: training.patch: 39 is not a multiple",
        ),
    ],
)
def test_what_a_trial_could_not_open_is_refused_before_it_starts(
    small_experiment: Build, tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        require_searchable(small_experiment(**sections), tmp_path)


@pytest.mark.parametrize("training", [{"source": "target"}, {"shot_tasks": 1}])
def test_some_shots_are_kept_to_compare_trials_by(
    small_experiment: Build, tmp_path: Path, training: dict[str, Any]
) -> None:
    search = {"adaptation.lr": [1e-4, 1e-3]}
    with pytest.raises(UserError, match="uses all shots for training, so none is held out to compare trials"):
        require_searchable(small_experiment(search=search, training=training), tmp_path)


def test_equal_names_are_opened_once(small_experiment: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    built: list[int] = []
    open_all, initial = Workspace.open_all, Workspace.initial

    def noted_open(self: Workspace) -> None:
        opened.append(self.experiment.training.patch)
        open_all(self)

    def noted_build(self: Workspace) -> torch.Tensor:
        built.append(self.experiment.model.d)
        return initial(self)

    monkeypatch.setattr(Workspace, "open_all", noted_open)
    monkeypatch.setattr(Workspace, "initial", noted_build)
    search = {"adaptation.lr": [1e-4, 1e-3], "training.patch": {"choice": [32, 48]}, "model.d": {"int": [4, 6]}}
    require_searchable(small_experiment(search=search, tuning={"trials": 200}), tmp_path)
    assert sorted(opened) == [32, 48]
    assert set(built) == {4, 5, 6}
    assert len(built) <= 4
