"""Running units one after the other in this process, or side by side on Ray."""

from __future__ import annotations

from collections.abc import Sequence

from metarestore.ablation.plan import Unit
from metarestore.ablation.unit import Watcher, run_unit
from metarestore.config.experiment import LocalEngineSpec, RayEngineSpec


def execute(units: Sequence[Unit], engine: LocalEngineSpec | RayEngineSpec, watcher: Watcher) -> None:
    """Runs units as an experiment's engine says; every unit gives the same figures either way.

    Raises:
        Interrupted, KeyboardInterrupt: The user asked to stop; what was begun goes on from its last checkpoint.
        UserError: The cluster does not answer or has no room.
    """
    if not units:
        return
    if isinstance(engine, LocalEngineSpec):
        for unit in units:
            watcher.begun(unit)
            watcher.ended(unit, run_unit(unit))
        return
    # Ray is imported only if it is asked for, since that takes seconds.
    from metarestore.ablation.side_by_side import run_side_by_side  # noqa: PLC0415

    run_side_by_side(units, engine, watcher)
