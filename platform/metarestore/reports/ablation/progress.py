"""Progress display of an ablation: finished cells, time left, running cells."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TimeRemainingColumn
from rich.table import Column

from metarestore.console import text_column
from metarestore.evaluation.ablation import CellResult
from metarestore.reports.study.progress import HeadedProgress, duration, field_column


class AblationDisplay:
    """Shows a progress bar on a terminal, and prints one line per cell otherwise.

    Args:
        console: The console to print to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = HeadedProgress(
            text_column("cells"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(table_column=Column("done")),
            TimeRemainingColumn(compact=True, table_column=Column("left in total")),
            field_column("running", "current", "left"),
            console=console,
            refresh_per_second=2,
        )
        self._bar: TaskID | None = None
        self._running: dict[str, str] = {}
        self._done = self._total = self._before = 0
        self._started = 0.0

    def __enter__(self) -> AblationDisplay:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def start(self, cells: int, finished: int, trainings: int) -> None:
        """Starts the display, given the number of cells that are already finished."""
        self._done, self._total, self._before = finished, cells, finished
        self._started = time.monotonic()
        before = f", {finished} already finished" if finished else ""
        self._console.print(f"{cells} cells{before}; {trainings} trainings to run", highlight=False)
        # Counting cells of earlier sessions would make the estimated time left too short.
        self._bar = self._bars.add_task("cells", total=cells - finished, current="")

    def warning(self, text: str) -> None:
        """Prints a warning that does not stop the ablation."""
        self._console.print(text, style="yellow", highlight=False, soft_wrap=True)

    def started(self, key: str, names: Sequence[str]) -> None:
        """Called when a training starts, with the names of its cells."""
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        self._running[key] = names[0] + more
        self._show()

    def ended(self, name: str, outcome: CellResult | str) -> None:
        """Called with the result of a cell, or its error."""
        self._done += 1
        if isinstance(outcome, str):
            self._console.print(f"{name} failed: {outcome}", style="yellow", highlight=False, soft_wrap=True)
        elif not self._console.is_terminal:
            gain = float(np.mean(np.subtract(outcome.after.psnr_y, outcome.bicubic.psnr_y)))
            metrics = f"{gain:+.2f} dB over bicubic, {outcome.training_seconds:.0f} s"
            line = f"cell {self._done} of {self._total}, {name}: {metrics}{self._time_left()}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        if self._bar is not None:
            self._bars.advance(self._bar)

    def _time_left(self) -> str:
        """Estimates the time left from the mean duration of the cells of this session."""
        left = self._total - self._done
        seconds = (time.monotonic() - self._started) / max(self._done - self._before, 1) * left
        return f"; about {duration(seconds)} left in total" if left else ""

    def finished(self, key: str) -> None:
        """Called when a training and its cells are done."""
        self._running.pop(key, None)
        self._show()

    def _show(self) -> None:
        if self._bar is not None:
            self._bars.update(self._bar, current="; ".join(self._running.values()))
