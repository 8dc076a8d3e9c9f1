"""The journal of a run: tracking records on disk, which survive an unavailable store and the end of the process."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from metarestore.errors import UserError
from metarestore.files import write_atomically

Record = dict[str, Any]

_CHUNK = 200
"""Number of lines that are sent and acknowledged at once."""


class Journal:
    """Records in the order in which they were written, and how many of them have been sent.

    A record is one line of `tracking.jsonl`, written immediately, so that SIGKILL loses none. `tracking.json` holds the
    MLflow run and the number of bytes that were sent to it. If the disk is full, records are kept in memory until there
    is space: writing a record never fails.

    Args:
        folder: The run's folder.
        run_id: The MLflow run of a folder that has no journal yet.

    Attributes:
        key: Unique key of this journal, by which its MLflow run can be found if its id was not saved.
        run_id: The MLflow run, or None if it does not exist yet.
        experiment: The MLflow experiment of that run.
        left: Artifacts that the store rejected while it accepted later records.
        reopened: Whether an earlier process wrote here: its last records may have arrived without being acknowledged.
    """

    def __init__(self, folder: Path, run_id: str | None = None) -> None:
        self._lines, self._state = folder / "tracking.jsonl", folder / "tracking.json"
        self.key, self.run_id, self._sent = uuid.uuid4().hex, run_id, 0
        self.experiment: str | None = None
        self.left: list[Record] = []
        self._held: list[bytes] = []
        self._last: dict[str, int] = {}
        self._status = ""
        self.reopened = self._state.is_file()
        if self.reopened:
            self._read()
        else:
            self._lines.unlink(missing_ok=True)
            self._save_state()

    @property
    def path(self) -> Path:
        """The file of the records."""
        return self._lines

    def portable(self, path: Path) -> str:
        """Returns the recorded path of a file: relative to the run's folder, which may be moved, if inside."""
        path, folder = path.absolute(), self._lines.parent.absolute()
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)

    def located(self, noted: str) -> Path:
        """Returns the file of a path recorded by `portable`; earlier versions recorded absolute paths."""
        folder, path = self._lines.parent, self._lines.parent / noted
        if path.exists():
            return path
        parts = Path(noted).parts
        tails = (folder.joinpath(*parts[first:]) for first in range(1, len(parts)))
        return next((tail for tail in tails if tail.exists()), path)

    @property
    def complete(self) -> bool:
        """Whether all records are on disk."""
        return not self._held

    @property
    def settled(self) -> bool:
        """Whether the run has ended, and all its records were sent."""
        size = self._lines.stat().st_size if self._lines.is_file() else 0
        return self._status not in {"", "RUNNING"} and not self._held and self._sent >= size

    def note(self, record: Record) -> None:
        """Appends a record."""
        self._remember(record)
        self._held.append(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        try:
            with self._lines.open("ab", buffering=0) as file:
                while self._held:
                    self._append(file.fileno(), self._held[0])
                    del self._held[0]
        except OSError:
            return  # kept in memory until there is space

    def note_metrics(self, values: dict[str, float], step: int, time: int) -> None:
        """Appends the metrics of a step, except those already recorded: a resumed run repeats some steps."""
        new = {key: float(value) for key, value in values.items() if step > self._last.get(key, -1)}
        if new:
            record = {"kind": "metrics", "step": step, "time": time, "values": new}
            self.note(record)

    def chunks(self) -> Iterator[tuple[list[Record], int]]:
        """Yields unsent records in chunks, each with the position to `acknowledge` before the next one."""
        # Records that a power failure could revert, and a resumed run would repeat with another time, must not be sent.
        self._sync()
        while True:
            chunk = list(islice(self._records(self._sent), _CHUNK))
            if not chunk:
                return
            yield [record for record, _ in chunk], chunk[-1][1]

    def acknowledge(self, position: int) -> None:
        """Records that everything up to a position was sent."""
        self._sent = position
        self._save_state()

    def set_aside(self, records: list[Record]) -> None:
        """Records which artifacts the store rejected, replacing the previous list."""
        self.left = records
        self._save_state()

    def assign(self, run_id: str | None, experiment: str | None = None) -> None:
        """Sets the MLflow run; if it changes, all records are sent again."""
        if self.run_id is not None and run_id != self.run_id:
            self._sent = 0
            self.left = []  # they are sent again as well
        self.run_id, self.experiment = run_id, experiment
        self._save_state()

    def _append(self, descriptor: int, line: bytes) -> None:
        before = os.fstat(descriptor).st_size
        written = os.write(descriptor, line)
        if written < len(line):
            os.ftruncate(descriptor, before)
            raise OSError("the disk is full")

    def _sync(self) -> None:
        with suppress(OSError), self._lines.open("rb+") as file:
            os.fsync(file.fileno())

    def _remember(self, record: Record) -> None:
        if record["kind"] == "metrics":
            self._last |= dict.fromkeys(record["values"], record["step"])
        elif record["kind"] == "status":
            self._status = record["status"]

    def _records(self, start: int) -> Iterator[tuple[Record, int]]:
        if not self._lines.is_file():
            return
        with self._lines.open("rb") as file:
            file.seek(start)
            for line in file:
                start += len(line)
                yield json.loads(line), start

    def _cut_torn_line(self) -> int:
        """Removes an incomplete last line, and returns the remaining number of bytes."""
        if not self._lines.is_file():
            return 0
        content = self._lines.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._lines, whole)
        return whole

    def _read(self) -> None:
        try:
            state = json.loads(self._state.read_text())
            self.key, self.run_id, self._sent = str(state["key"]), state["run"], int(state["sent"])
            self.experiment, self.left = state.get("experiment"), list(state.get("left", ()))
            # Lines that were sent may be lost, e.g. on a disk that ignores fsync.
            self._sent = min(self._sent, self._cut_torn_line())
            for record, _ in self._records(0):
                self._remember(record)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._state}: cannot be read ({error!r}); remove it to track this run again") from error

    def _save_state(self) -> None:
        state: dict[str, Any] = {"key": self.key, "run": self.run_id, "experiment": self.experiment, "sent": self._sent}
        state |= {"left": self.left} if self.left else {}
        try:
            write_atomically(self._state, json.dumps(state).encode())
        except UserError:
            return  # full disk: records that are not marked as sent are sent again, which has no effect


def experiment_of(folder: Path) -> str | None:
    """Returns the id of the MLflow experiment recorded in a run's folder, or None."""
    try:
        experiment = json.loads((folder / "tracking.json").read_text()).get("experiment")
    except (OSError, ValueError, AttributeError):
        return None
    return None if experiment is None else str(experiment)
