"""Runs units in parallel on Ray, as many at a time as the cluster can run."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from metarestore.ablation.plan import Unit
from metarestore.ablation.unit import Failed, Outcome, Watcher, run_unit
from metarestore.config.engine import RayEngineSpec
from metarestore.engines.cluster import connected, worker_count
from metarestore.training.interrupt import graceful_stop

_TICK = 0.5
"""Seconds between two checks for a stop request."""
_PATIENCE = 60.0
"""Seconds that units have to save their state after a stop request."""


def run_side_by_side(units: Sequence[Unit], engine: RayEngineSpec, watcher: Watcher) -> None:
    """Runs units on a Ray cluster; a unit whose process dies restarts from its last checkpoint.

    Raises:
        KeyboardInterrupt: The user asked to stop; the state of started units is saved.
        UserError: The cluster does not respond or has no free resources.
    """
    with connected(engine):
        _run(units, engine, watcher)


def _run(units: Sequence[Unit], engine: RayEngineSpec, watcher: Watcher) -> None:
    capacity = worker_count(engine)
    task: Any = ray.remote(run_unit).options(num_cpus=engine.cpus_per_worker, max_retries=engine.max_restarts)
    waiting = deque(units)
    running: dict[ray.ObjectRef[list[Outcome]], Unit] = {}
    with graceful_stop() as stop:
        while (waiting or running) and not stop.requested:
            while waiting and len(running) < capacity:
                unit = waiting.popleft()
                running[task.remote(unit)] = unit
                watcher.started(unit)
            done, _ = ray.wait(list(running), timeout=_TICK)
            for reference in done:
                watcher.ended(unit := running.pop(reference), _outcomes(reference, unit))
        if stop.requested:
            _save_all(list(running))
            raise KeyboardInterrupt


def _save_all(running: list[Any]) -> None:
    """Asks units to stop after the current step, and waits until their states are saved."""
    for reference in running:
        ray.cancel(reference, force=False)  # arrives like Ctrl-C, which a training treats as a stop request
    ray.wait(running, num_returns=len(running), timeout=_PATIENCE)


def _outcomes(reference: ray.ObjectRef[list[Outcome]], unit: Unit) -> list[Outcome]:
    try:
        return ray.get(reference)
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        lines = [line for line in str(cause).splitlines() if line.strip()]
        text = f"{type(cause).__name__}: {lines[-1].strip() if lines else 'its process died'}"
        return [Failed(plan.cell.name, text) for plan in unit.cells]
