"""Where Ray Tune keeps a sweep, for a project that was moved since."""

from __future__ import annotations

from typing import ClassVar, Self

from ray.train._internal.storage import StorageContext
from ray.tune.experiment import Experiment


class MovableStorage(StorageContext):
    """Ray Tune's storage of a sweep; its copies lie where the sweep lies now.

    Ray Tune gives the trials of a snapshot their new folder, but not those that the snapshot's searcher begins later:
    they would look for the folder of the first session. Every trial copies the storage of its searcher.

    Attributes:
        here: Folder of the sweep; None in the processes of trials.
    """

    here: ClassVar[str | None] = None

    def __copy__(self) -> Self:
        """Returns a copy that lies where the sweep lies now."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        copied.storage_fs_path = self.here or self.storage_fs_path
        return copied


def use_storage(folder: str) -> None:
    """Makes Ray Tune keep the next sweep in a folder from where it may be moved."""
    MovableStorage.here = folder
    Experiment._storage_context_cls = MovableStorage
