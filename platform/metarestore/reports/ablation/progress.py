"""Progress of a grid: cells done, time left, what is being run."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from metarestore.evaluation.ablation import CellResult
from metarestore.reports.study.progress import HeadedProgress, duration, field_column


class GridDisplay:
    """A bar on a terminal, one line for each cell elsewhere.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = HeadedProgress(
            TextColumn("cells"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(table_column=Column("done")),
            TimeRemainingColumn(compact=True, table_column=Column("left in all")),
            field_column("running", "current", "left"),
            console=console,
            refresh_per_second=2,
        )
        self._bar: TaskID | None = None
        self._running: dict[str, str] = {}
        self._done = self._total = self._before = 0
        self._begun = 0.0

    def __enter__(self) -> GridDisplay:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def start(self, cells: int, finished: int, trainings: int) -> None:
        """Begins, with the cells that are finished already."""
        self._done, self._total, self._before = finished, cells, finished
        self._begun = time.monotonic()
        before = f", {finished} finished before" if finished else ""
        self._console.print(f"{cells} cells{before}; {trainings} trainings to run", highlight=False)
        # Cells of earlier sessions would make the estimate of the time that is left too short.
        self._bar = self._bars.add_task("cells", total=cells - finished, current="")

    def warning(self, text: str) -> None:
        """Says what went wrong without stopping the grid."""
        self._console.print(text, style="yellow", highlight=False, soft_wrap=True)

    def begun(self, key: str, names: Sequence[str]) -> None:
        """Is told that a training was begun, and for which cells."""
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        self._running[key] = names[0] + more
        self._show()

    def ended(self, name: str, found: CellResult | str) -> None:
        """Is told what a cell found, or why it failed."""
        self._done += 1
        if isinstance(found, str):
            self._console.print(f"{name} failed: {found}", style="yellow", highlight=False, soft_wrap=True)
        elif not self._console.is_terminal:
            gain = float(np.mean(np.subtract(found.after.psnr_y, found.bicubic.psnr_y)))
            figures = f"{gain:+.2f} dB over bicubic, {found.training_seconds:.0f} s"
            line = f"cell {self._done} of {self._total}, {name}: {figures}{self._time_left()}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        if self._bar is not None:
            self._bars.advance(self._bar)

    def _time_left(self) -> str:
        """Says how long the cells that are left take, if they take as long as those of this session."""
        left = self._total - self._done
        seconds = (time.monotonic() - self._begun) / max(self._done - self._before, 1) * left
        return f"; about {duration(seconds)} left in all" if left else ""

    def left(self, key: str) -> None:
        """Is told that a training and its cells are done."""
        self._running.pop(key, None)
        self._show()

    def _show(self) -> None:
        if self._bar is not None:
            self._bars.update(self._bar, current="; ".join(self._running.values()))
