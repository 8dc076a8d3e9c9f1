"""Where an experiment is computed."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from metarestore.config.affects import Affects
from metarestore.config.base import Strict


class LocalEngineSpec(Strict):
    """Runs in this process, on one thread."""

    kind: Annotated[Literal["local"], Affects.NOTHING]


class RayEngineSpec(Strict):
    """Runs on Ray actors, with one thread each."""

    kind: Annotated[Literal["ray"], Affects.NOTHING]
    workers: Annotated[int | Literal["auto"], Affects.NOTHING] = "auto"
    """Number of actors; `auto` is one per core of the cluster, or per fraction of a GPU, and more when machines
    join."""
    address: Annotated[str | None, Affects.NOTHING] = None
    """Address of a running cluster: `auto` on one of its machines, `host:6379`, or `ray://host:10001` from elsewhere.
    If omitted, a local one is started."""
    cpus_per_worker: Annotated[float, Affects.NOTHING] = Field(1.0, gt=0)
    """CPUs that a worker reserves; 0.5 puts two workers on each core."""
    gpus_per_worker: Annotated[float, Affects.NOTHING] = Field(0.0, ge=0)
    """GPUs that a worker reserves; a fraction also limits the worker to that fraction of the GPU's memory."""
    placement: Annotated[Literal["pack", "spread"], Affects.NOTHING] = "pack"
    """Whether to fill machines one after the other, or to spread workers over all machines."""
    reduction: Annotated[Literal["driver", "tree"], Affects.NOTHING] = "driver"
    """Where gradients are summed: the driver fetches one gradient per task, or workers sum them in a tree and the
    driver fetches one per step, for large networks on many machines. The results are identical."""
    max_restarts: Annotated[int, Affects.NOTHING] = Field(3, ge=-1)
    """How often a lost worker is restarted; -1: always."""

    @model_validator(mode="after")
    def _some_worker(self) -> Self:
        if self.workers != "auto" and self.workers < 1:
            raise ValueError(f"workers must be auto or at least 1, got {self.workers}")
        return self


EngineSpec = Annotated[LocalEngineSpec | RayEngineSpec, Field(discriminator="kind")]
