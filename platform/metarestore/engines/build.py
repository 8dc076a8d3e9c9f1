"""Builds the engine of an experiment."""

from __future__ import annotations

from collections.abc import Callable

from metarestore.config.engine import LocalEngineSpec, RayEngineSpec
from metarestore.engines.engine import Engine
from metarestore.engines.local import LocalEngine


def build_engine(spec: LocalEngineSpec | RayEngineSpec, notify: Callable[[str], None] = lambda line: None) -> Engine:
    """Builds an engine; Ray is imported only for a Ray engine, since the import takes seconds.

    Args:
        spec: The engine section of an experiment.
        notify: Called with a message for the user when a step waits unusually long.
    """
    if isinstance(spec, LocalEngineSpec):
        return LocalEngine()
    from metarestore.engines.ray import RayEngine  # noqa: PLC0415

    return RayEngine(spec, notify)
