"""Runs units sequentially in this process, or in parallel on Ray."""

from __future__ import annotations

from collections.abc import Sequence

from metarestore.ablation.plan import Unit
from metarestore.ablation.unit import Watcher, run_unit
from metarestore.config.engine import LocalEngineSpec, RayEngineSpec


def execute(units: Sequence[Unit], engine: LocalEngineSpec | RayEngineSpec, watcher: Watcher) -> None:
    """Runs units on an experiment's engine; the results of a unit do not depend on the engine.

    Raises:
        Interrupted, KeyboardInterrupt: The user asked to stop; unfinished units resume from their last checkpoints.
        UserError: The cluster does not respond or has no free resources.
    """
    if not units:
        return
    if isinstance(engine, LocalEngineSpec):
        for unit in units:
            watcher.started(unit)
            watcher.ended(unit, run_unit(unit))
        return
    # Importing Ray takes seconds.
    from metarestore.ablation.side_by_side import run_side_by_side  # noqa: PLC0415

    run_side_by_side(units, engine, watcher)
