"""Recreates pairs from their parameters, and reports which differ and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from metarestore.errors import UserError
from metarestore.sampling.record import Header, Record, current_versions, read_samples, version_changes
from metarestore.sampling.sample import Sample, Sampler
from metarestore.tasks.images import ImageSource

_NAMED = 8
"""Maximum number of pairs listed in a message."""


class Replay:
    """Recreates the pairs of a file of parameters.

    Args:
        path: The file, or its folder.
        data: Folder of the photographs, if different from that in the file; for real pairs, the folder of `lr/` and
            `hr/`.

    Raises:
        UserError: The file is not a file of parameters, or the photographs are missing or too small.
    """

    def __init__(self, path: Path, data: Path | None = None) -> None:
        self._path = path
        self._then, self.records = read_samples(path)
        self.header = _moved(self._then, data).model_copy(update={"versions": current_versions()})
        self._sampler = Sampler(self.header)
        self._different: dict[str, list[Record]] = defaultdict(list)

    def samples(self) -> Iterator[Sample]:
        """Recreates the pairs, except those whose photograph is missing."""
        self._different.clear()
        for record in self.records:
            try:
                made = self._sampler.make(record.index, record.task_draw(self.header), record.vector)
            except (UserError, ValueError) as error:
                self._different[str(error)].append(record)
                continue
            except (KeyError, TypeError) as error:
                self._different[f"parameters cannot be applied ({error!r}); the line was edited"].append(record)
                continue
            if (made.record.lr_sha256, made.record.hr_sha256) != (record.lr_sha256, record.hr_sha256):
                self._different[self._reason(record, made.record)].append(record)
            yield made

    def problems(self) -> list[str]:
        """Returns one line for each reason why recreated pairs differ from those of the file."""
        total = len(self.records)
        return [
            f"{self._path}: {len(records)} of {total} pairs differ ({_named(records)}): {reason}"
            for reason, records in self._different.items()
        ]

    def _reason(self, then: Record, now: Record) -> str:
        changes = version_changes(self._then.versions)
        if now.image_sha256 != then.image_sha256:
            decoded = f", or is decoded differently ({changes})" if changes else ""
            return f"photograph '{now.image}' of {self._sampler.images.source} has changed{decoded}"
        if not then.degradations:
            return f"LR photograph '{now.image}' has changed"
        return changes or "all versions are the same, so the line was edited, or a file that the task names has changed"


def _moved(header: Header, data: Path | None) -> Header:
    """Returns the header with its photographs in another folder."""
    if data is None:
        return header
    if header.spec.own_images:
        return header.model_copy(update={"spec": header.spec.moved(data)})
    return header.model_copy(update={"data": ImageSource.folder(data)})


def _named(records: list[Record]) -> str:
    names = ", ".join(record.name for record in records[:_NAMED])
    return f"{names} and {len(records) - _NAMED} more" if len(records) > _NAMED else names
