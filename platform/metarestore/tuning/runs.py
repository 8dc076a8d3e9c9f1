"""Bringing the MLflow runs of a killed sweep to what its record says."""

from __future__ import annotations

from metarestore.evaluation.sweep import State
from metarestore.tracking import Store
from metarestore.tuning.record import Record

STATUS: dict[State, str] = {"finished": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
"""State of an MLflow run by how the trial ended; a trial that a scheduler stops early has done all it should."""


def mend_runs(store: Store, record: Record, metric: str) -> None:
    """Gives the trials' runs the measurements that a kill cut off, and ends every run that nobody writes any more.

    The record is always written first, so a run lacks at most what its trial reported last.

    Args:
        store: The store.
        record: The sweep's record, in which trials that were running are marked as lost.
        metric: Name of the trials' metric.
    """
    assert record.parent is not None
    open_runs = set(store.running_children(record.parent))
    for trial in record.trials.values():
        if trial.run not in open_runs:
            continue
        run = store.run("", run_id=trial.run)
        logged = run.last_step(metric)
        for step, value in trial.history:
            if step > logged:
                run.metrics({metric: value}, step)
        run.flush()
        if trial.error:
            run.tag("error", trial.error)
        run.end(STATUS.get(trial.state, "KILLED"))
        open_runs.remove(trial.run)
    for stranger in open_runs:
        store.client.set_terminated(stranger, "KILLED")
