"""References to tasks: what travels to a worker instead of images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskRef:
    """One task to be drawn and built by a worker: ids and seeds travel, images do not.

    Attributes:
        distribution: Name of its distribution.
        seed: Seed of the run.
        index: Index of the task within the distribution.
        patches: Index from which its clean patches and their noise seeds are drawn, if not its own: tasks with the same
            index degrade the same patches.
    """

    distribution: str
    seed: int
    index: int
    patches: int | None = None
