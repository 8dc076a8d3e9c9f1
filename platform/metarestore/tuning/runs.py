"""Bringing the MLflow runs of a killed sweep to what its record says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from metarestore.evaluation.tuning import State
from metarestore.journal import Journal
from metarestore.tracking import Store
from metarestore.tuning.record import Record

STATUS: dict[State, str] = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
"""State of an MLflow run by how the trial ended; a trial that a scheduler stops early has done all it should."""


def mend_runs(store: Store, record: Record, metric: str) -> None:
    """Gives the trials' runs the measurements that a kill cut off, and ends every run that nobody writes any more.

    The record is always written first, so a run lacks at most what its trial reported last. What the store does not
    take now waits in the trials' folders.

    Args:
        store: The store.
        record: The sweep's record, in which trials that were running are marked as lost.
        metric: Name of the trials' metric.
    """
    if record.parent is None:
        return
    # A run is made before its trial comes into the record, so a kill may leave a folder that the record knows not.
    ours = {_mend(store, record, metric, folder) for folder in sorted(record.places.glob("*")) if folder.is_dir()}
    ours |= {trial.run for trial in record.trials.values()}
    for stranger in set(store.running_children(record.parent)) - ours:
        store.terminate(stranger, "KILLED")


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Leaves out what MLflow could only keep as a number that ruins its charts."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _mend(store: Store, record: Record, metric: str, folder: Path) -> str | None:
    """Completes and ends the run of one folder, and returns its id."""
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
