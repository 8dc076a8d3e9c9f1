"""Figures reach MLflow once each, whatever happens to the store, the disk or the process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from rich.console import Console

from metarestore import tracking
from metarestore.config.experiment import Experiment
from metarestore.errors import UserError
from metarestore.journal import Journal
from metarestore.reports.study.progress import TrainingDisplay
from metarestore.study.run import Observers, run_study
from metarestore.tracking import Run, Store
from metarestore.tracking_records import metrics_of
from metarestore.training.log import LogRow

ROOT = Path(__file__).parents[1]


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch, mlflow_store: str) -> list[str]:
    """What the user was warned of; every test has an experiment of its own in one migrated store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    monkeypatch.setattr(tracking, "_PAUSE", 0.0)
    return []


class Switch:
    """Makes a method of the MLflow client fail, before or after it did its work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str = "log_batch", *, after: bool = False) -> None:
        self.broken = True
        real: Callable[..., Any] = getattr(MlflowClient, method)

        def maybe(*args: Any, **kwargs: Any) -> Any:
            if self.broken and not after:
                raise MlflowException("database is locked")
            result = real(*args, **kwargs)
            if self.broken:
                raise MlflowException("the answer was lost")
            return result

        monkeypatch.setattr(MlflowClient, method, maybe)


def store(root: Path, warnings: list[str], **options: bool) -> Store:
    return Store(root, f"tracking-{root.name}", warnings.append, **options)


def steps(run: Run, key: str) -> list[int]:
    return [point.step for point in MlflowClient().get_metric_history(str(run.id), key)]


def status(run: Run) -> str:
    return str(MlflowClient().get_run(str(run.id)).info.status)


def test_figures_wait_for_a_store_and_arrive_in_order(
    tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store(tmp_path, warnings).run("run", folder=tmp_path)
    switch = Switch(monkeypatch)
    for step in range(3):
        run.params({"a": {"b": 1}})
        run.metrics({"loss": step, "nan": float("nan")}, step)
        assert not run.flush()
    switch.broken = False
    run.metrics({"loss": 3}, 3)
    assert run.end()
    assert steps(run, "loss") == [0, 1, 2, 3]
    assert status(run) == "FINISHED"
    assert MlflowClient().get_run(str(run.id)).data.params == {"a.b": "1"}
    assert len(warnings) == 1
    assert "database is locked" in warnings[0]


def test_a_record_that_is_refused_does_not_hold_up_the_others(tmp_path: Path, warnings: list[str]) -> None:
    run = store(tmp_path, warnings).run("run", folder=tmp_path)
    run.params({"keep": 1, "kept": 1})
    assert run.flush()
    run.params({"keep": 2, "other": 2})
    run.metrics({"loss": 1, "..": 1}, 1)
    assert run.end()
    assert steps(run, "loss") == [1]
    assert MlflowClient().get_run(str(run.id)).data.params == {"keep": "1", "kept": "1", "other": "2"}
    assert len(warnings) == 2
    assert all("refuses" in warning for warning in warnings)


def test_names_of_any_task_file_arrive(tmp_path: Path, warnings: list[str]) -> None:
    run = store(tmp_path, warnings).run("run", folder=tmp_path)
    run.metrics({"relation/my+cam (2)": 0.5, "relation/été": 0.5}, 1)
    run.params({"alternatives[0].lr": 1})
    assert run.end()
    assert steps(run, "relation/my_cam _2_") == steps(run, "relation/été") == [1]
    assert warnings == []


@pytest.mark.parametrize("uri", ["postgresql://localhost/none", "http://[bad"])
def test_an_address_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for required in (True, False):
        with pytest.raises(UserError, match=r"no store answers at .*; correct MLFLOW_TRACKING_URI") as caught:
            Store(tmp_path, "name", required=required)
        assert "\n" not in str(caught.value)


def test_a_run_that_is_taken_up_is_marked_as_running(tmp_path: Path, warnings: list[str]) -> None:
    first = store(tmp_path, warnings).run("run", folder=tmp_path)
    first.end("KILLED")
    assert status(first) == "KILLED"
    assert status(store(tmp_path, warnings).run("run", folder=tmp_path)) == "RUNNING"


def test_an_end_that_is_not_on_disk_has_not_arrived(
    tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store(tmp_path, warnings).run("run", folder=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: 0)
        assert not run.end()
    assert run.end()


def test_an_answer_that_is_lost_duplicates_nothing(
    tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store(tmp_path, warnings).run("run", folder=tmp_path)
    switch = Switch(monkeypatch, after=True)
    run.metrics({"loss": 1}, 1)
    assert not run.flush()
    switch.broken = False
    run.metrics({"loss": 2}, 2)
    assert run.flush(patient=True)
    assert steps(run, "loss") == [1, 2]


def test_a_store_that_failed_is_left_alone_for_a_while(
    tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store(tmp_path, warnings).run("run", folder=tmp_path)
    monkeypatch.setattr(tracking, "_PAUSE", 60.0)
    switch = Switch(monkeypatch)
    run.metrics({"loss": 1}, 1)
    assert not run.flush()
    switch.broken = False
    assert not run.flush()
    assert run.flush(patient=True)


def test_a_run_that_cannot_be_made_is_made_later_under_its_parent(
    tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = store(tmp_path, warnings)
    switch = Switch(monkeypatch, "create_run")
    (tmp_path / "arm").mkdir()
    parent = place.run("parent", folder=tmp_path)
    child = place.run("child", folder=tmp_path / "arm", parent=parent)
    child.metrics({"loss": 1}, 1)
    assert (parent.id, child.id) == (None, None)
    switch.broken = False
    assert child.end()
    assert parent.end()
    assert MlflowClient().get_run(str(child.id)).data.tags["mlflow.parentRunId"] == parent.id
    assert steps(child, "loss") == [1]


def test_a_run_whose_id_was_lost_is_found_again(
    tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = store(tmp_path, warnings)
    switch = Switch(monkeypatch, "create_run", after=True)
    assert place.run("run", folder=tmp_path).id is None
    switch.broken = False
    run = place.run("run", folder=tmp_path)
    assert run.flush(patient=True)
    found = MlflowClient().search_runs([place.experiment])
    assert [one.info.run_id for one in found] == [run.id]


def test_a_new_run_needs_its_store_and_a_resumed_one_does_not(
    tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = Switch(monkeypatch, "get_experiment_by_name")
    with pytest.raises(UserError, match=r"is locked by another process .*; end that process, or wait"):
        store(tmp_path, warnings)
    place = store(tmp_path, warnings, required=False)
    run = place.run("run", folder=tmp_path)
    run.metrics({"loss": 1}, 1)
    assert len(warnings) == 1
    switch.broken = False
    assert run.end()
    assert steps(run, "loss") == [1]


def test_a_later_process_sends_what_waits_and_repeats_nothing(
    tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store(tmp_path, warnings).run("run", folder=tmp_path)
    for step in (1, 2):
        first.metrics({"loss": step}, step)
    # The process dies between the store's answer and the note that it came.
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "acknowledge", lambda *_: None)
        for record, _ in first._journal.chunks():
            first._store.client.log_batch(str(first.id), metrics=[m for r in record[1:] for m in metrics_of(r)])
            break
    second = store(tmp_path, warnings).run("run", folder=tmp_path)
    assert second.id == first.id
    for step in (2, 3):
        second.metrics({"loss": step}, step)
    assert second.end()
    assert steps(second, "loss") == [1, 2, 3]
    assert status(second) == "FINISHED"


def test_a_run_that_was_removed_from_the_store_is_told_again(tmp_path: Path, warnings: list[str]) -> None:
    first = store(tmp_path, warnings).run("run", folder=tmp_path)
    first.metrics({"loss": 1}, 1)
    assert first.end()
    MlflowClient().delete_run(str(first.id))
    second = store(tmp_path, warnings).run("run", folder=tmp_path)
    second.metrics({"loss": 2}, 2)
    assert second.end()
    assert second.id != first.id
    assert steps(second, "loss") == [1, 2]


def test_a_torn_line_is_dropped_and_a_broken_state_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.note_metrics({"loss": 1.0}, 1, 0)
    with journal.path.open("ab") as file:
        file.write(b'{"kind":"metr')
    again = Journal(tmp_path)
    again.note_metrics({"loss": 1.0}, 1, 0)
    again.note_metrics({"loss": 2.0}, 2, 0)
    assert [json.loads(line)["step"] for line in journal.path.read_text().splitlines()] == [1, 2]
    (tmp_path / "tracking.json").write_text("{")
    with pytest.raises(UserError, match=r"tracking.json: cannot be read.*track this run again"):
        Journal(tmp_path)


def test_lines_that_a_power_cut_took_are_not_missed(tmp_path: Path) -> None:
    """A disk that syncs in name only can lose lines that the state knows of as sent."""
    journal = Journal(tmp_path)
    for step in (1, 2, 3):
        journal.note_metrics({"loss": float(step)}, step, 0)
    size = journal.path.stat().st_size
    journal.acknowledge(size)
    os.truncate(journal.path, size - 10)
    again = Journal(tmp_path)
    again.note_metrics({"loss": 3.0}, 3, 0)
    again.note_metrics({"loss": 4.0}, 4, 0)
    assert [record["step"] for record in next(again.chunks())[0]] == [3, 4]


@pytest.mark.parametrize("written", [0, 5])
def test_a_full_disk_holds_figures_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    journal = Journal(tmp_path)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:written]))
        journal.note_metrics({"loss": 1.0}, 1, 0)
    assert journal.path.read_bytes() == b""
    journal.note_metrics({"loss": 2.0}, 2, 0)
    assert [json.loads(line)["step"] for line in journal.path.read_text().splitlines()] == [1, 2]


def test_the_terms_of_a_loss_are_tracked_while_they_act() -> None:
    class Heard:
        def metrics(self, values: dict[str, float], step: int) -> None:
            rows[step] = values

    rows: dict[int, dict[str, float]] = {}
    row = LogRow(1, 3.0, 20.0, weights=[1.0], drawn=[0], norms=[None], shares=[1.0], effective_tasks=1.0)
    with TrainingDisplay(Console(quiet=True)) as display:
        observers = Observers(display, cast("Run", Heard()), ("a",))
        observers.step(replace(row, terms={"kl": 0.5, "contrast": 2.0}))
        observers.step(replace(row, step=2, terms={"kl": 0.25}))
    assert [(rows[step].get("kl"), rows[step].get("contrast")) for step in (1, 2)] == [(0.5, 2.0), (0.25, None)]


@pytest.mark.parametrize("moment", ["step", "saved"])
def test_a_study_that_dies_at_any_moment_logs_every_step_once(
    small_experiment: Callable[..., Experiment],
    tmp_path: Path,
    warnings: list[str],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """An error that nothing expects stands for a crash; the adaptation figures are logged once too."""
    experiment = small_experiment(training={"checkpoint_every": 2, "validate_every": 1, "shot_tasks": 1})

    def study(*, resume: bool) -> None:
        with TrainingDisplay(Console(quiet=True)) as display:
            name = f"study-{tmp_path.name}"
            run_study(experiment, ROOT, tmp_path / "run", display, name=name, command="", arms=False, resume=resume)

    def crash(self: Observers, *args: Any) -> None:
        real(self, *args)
        if (args[0].step if moment == "step" else args[0] + 1) == 3:
            raise AssertionError("crash")

    real = getattr(Observers, moment)
    monkeypatch.setattr(Observers, moment, crash)
    with pytest.raises(AssertionError, match="crash"):
        study(resume=False)
    monkeypatch.setattr(Observers, moment, real)
    study(resume=True)
    study(resume=True)
    client = MlflowClient()
    found = client.search_runs([client.get_experiment_by_name(f"study-{tmp_path.name}").experiment_id])
    assert [run.info.status for run in found] == ["FINISHED"]
    expected = {"loss": [1, 2, 3, 4], "validation_psnr": [1, 2, 3, 4], "psnr_y_adapting": [0, 1, 2], "psnr_y": [4]}
    expected |= {"weight/phone_camera": [1, 2, 3, 4], "share/bicubic": [1, 2, 3, 4]}
    for key, logged in expected.items():
        assert [m.step for m in client.get_metric_history(found[0].info.run_id, key)] == logged
    assert warnings == []
