"""Brings the MLflow runs of a killed tuning run in line with its record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from metarestore.evaluation.tuning import State
from metarestore.journal import Journal
from metarestore.tracking import Store
from metarestore.tuning.record import Record

STATUS: dict[State, str] = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
"""Status of the MLflow run for each final state of a trial; a trial that a scheduler stops early counts as finished."""


def repair_runs(store: Store, record: Record, metric: str) -> None:
    """Adds measurements that a kill cut off to the trials' MLflow runs, and ends runs that have no writer any more.

    The record is always written first, so a run lacks at most the last report of its trial. Entries that the store
    does not accept now stay in the trials' journals.

    Args:
        store: The MLflow store.
        record: The tuning run's record, in which trials that were running are marked as lost.
        metric: Name of the trials' metric.
    """
    if record.parent is None:
        return
    # A run is created before its trial is recorded, so a kill may leave a folder that is not in the record.
    folders = [folder for folder in sorted(record.trials_folder.glob("*")) if folder.is_dir()]
    ours = {_repair(store, record, metric, folder) for folder in folders}
    ours |= {trial.run for trial in record.trials.values()}
    for orphan in set(store.running_children(record.parent)) - ours:
        store.terminate(orphan, "KILLED")


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Removes non-finite values, which MLflow could only store as numbers that ruin its charts."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _repair(store: Store, record: Record, metric: str, folder: Path) -> str | None:
    """Completes and ends the MLflow run of one folder, and returns its id."""
    journal = Journal(folder)
    if journal.settled:
        return journal.run_id
    trial = record.trials.get(folder.name)
    run = store.run(f"trial {trial.number}" if trial else folder.name, folder=folder, parent=record.parent)
    if trial is None:
        run.end("KILLED")
        return run.id
    for step, value in trial.history:
        run.metrics(finite({metric: value}), step)
    if trial.state in STATUS:
        run.tag("state", trial.state)
    if trial.error:
        run.tag("error", trial.error)
    run.end(STATUS.get(trial.state, "KILLED"))
    return run.id
