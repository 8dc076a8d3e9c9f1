"""From the engine section of an experiment to an engine."""

from __future__ import annotations

from collections.abc import Callable

from metarestore.config.experiment import LocalEngineSpec, RayEngineSpec
from metarestore.engines.engine import Engine
from metarestore.engines.local import LocalEngine


def build_engine(spec: LocalEngineSpec | RayEngineSpec, tell: Callable[[str], None] = lambda line: None) -> Engine:
    """Builds an engine; Ray is imported only if it is asked for, since that takes seconds.

    Args:
        spec: The engine section of an experiment.
        tell: Is given a line for the user when a step waits unusually long.
    """
    if isinstance(spec, LocalEngineSpec):
        return LocalEngine()
    from metarestore.engines.ray import RayEngine  # noqa: PLC0415

    return RayEngine(spec, tell)
