"""What the options that ask for pairs take: a folder of pairs, or a task file of kind pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metarestore.errors import UserError
from metarestore.project import read_task
from metarestore.tasks.pair_files import PairFiles, PairFolder
from metarestore.tasks.pair_images import split_pairs
from metarestore.tasks.spec import PairsSpec


@dataclass(frozen=True)
class PairSource:
    """Pairs that a command line names.

    Attributes:
        folder: Where they are.
        support_pool: How many of them may be learned from, if a task file says so.
    """

    folder: PairFolder
    support_pool: int | None = None

    @classmethod
    def named(cls, path: Path, scale: int | None = None) -> PairSource:
        """Returns the pairs of a folder or of a task file.

        Args:
            path: The folder, or the task file.
            scale: HR side over LR side, if known.

        Raises:
            UserError: The task file is wrong, or of another kind.
        """
        if path.is_dir() or path.suffix not in (".yaml", ".yml"):
            return cls(PairFolder.of_folder(path, scale))
        spec = read_task(path)
        if not isinstance(spec, PairsSpec):
            raise UserError(
                f"--pairs: {path} is of kind {spec.kind}; name a folder of pairs, or a task file of kind pairs"
            )
        return cls(PairFolder.of_spec(spec), spec.support_pool)

    def shots(self, shots: int) -> tuple[int, int]:
        """Returns how many pairs a study with so many shots learns from, and how many there are.

        At least one of several is left to test on.

        Raises:
            UserError: A folder is missing or empty, or an image has no partner.
        """
        there = len(self.folder.files())
        return max(min(shots, self.support_pool or there, there - 1), 1), there

    def tested(self) -> tuple[PairFiles, ...]:
        """Lists the pairs to measure on: all of a folder, the test pairs of a task file.

        Raises:
            UserError: A folder is missing or empty, or an image has no partner.
        """
        files = self.folder.files()
        if self.support_pool is None:
            return files
        _, test = split_pairs([each.name for each in files], self.support_pool)
        return tuple(each for each in files if each.name in test)
