"""Storage of a tuning run in Ray Tune, which supports resuming after the project was moved."""

from __future__ import annotations

from typing import ClassVar, Self

from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Experiment


class MovableStorage(StorageContext):
    """Ray Tune's storage of a tuning run, whose copies use the current folder of the run.

    When a tuning run is resumed, Ray Tune updates the folder of existing trials, but not that of later trials, which
    would use the folder of the first session. Every trial copies the storage of its searcher, so the copy
    sets the current folder.

    Attributes:
        here: Current folder of the tuning run; None in the processes of trials.
    """

    here: ClassVar[str | None] = None

    def __copy__(self) -> Self:
        """Returns a copy with the current folder of the tuning run."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        copied.storage_fs_path = self.here or self.storage_fs_path
        return copied


def use_storage(folder: str) -> None:
    """Makes Ray Tune store the next tuning run in a folder that may be moved later."""
    MovableStorage.here = folder
    Experiment._storage_context_cls = MovableStorage
