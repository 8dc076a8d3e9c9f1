"""The live display of a training: step, loss, PSNR, tasks per second, time left."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn

from metarestore.config.experiment import Training
from metarestore.console import text_column
from metarestore.graphs.relations import Relations

_MEMORY = 0.95
"""Share of the old value in the smoothed figures."""


class TrainingDisplay:
    """One bar for each arm that is trained; on a pipe or in a log file, one line for each arm that ends.

    Args:
        console: Where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks_per_step = 1
        self._bars = Progress(
            text_column("{task.description:<18}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            text_column("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            refresh_per_second=4,
        )
        self._bar: TaskID | None = None
        self._first: tuple[int, float] | None = None
        self._smooth: dict[str, float] = {}
        self._figures = ""

    def __enter__(self) -> TrainingDisplay:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def start(self, name: str, training: Training) -> None:
        """Begins an arm."""
        self._bar = self._bars.add_task(name, total=training.steps, figures="")
        self._tasks_per_step = training.tasks_per_step
        self._first = None
        self._smooth = {}
        self._figures = ""

    def stage(self, text: str) -> None:
        """Says what happens outside of a bar."""
        self._console.print(text, soft_wrap=True)

    def warning(self, text: str) -> None:
        """Says what went wrong without stopping the run."""
        self._console.print(text, style="yellow", highlight=False, soft_wrap=True)

    def step(self, row: dict[str, Any]) -> None:
        """Moves the bar."""
        if self._bar is None:
            return
        for key in ("loss", "psnr"):
            self._smooth[key] = _MEMORY * self._smooth.get(key, row[key]) + (1 - _MEMORY) * row[key]
        # The first step of a session opens files and starts workers, so the speed counts from the second.
        self._first = self._first or (row["step"], row["seconds"])
        steps, seconds = row["step"] - self._first[0], row["seconds"] - self._first[1]
        speed = steps * self._tasks_per_step / max(seconds, 1e-9)
        self._figures = f"loss {self._smooth['loss']:.4f}  {self._smooth['psnr']:.2f} dB  {speed:.0f} tasks/s"
        self._bars.update(self._bar, completed=row["step"], figures=self._figures)

    def validated(self, step: int, psnr: float) -> None:
        """Is told a validation figure; it stands in the report."""

    def related(self, step: int, relations: Relations) -> None:
        """Is told new relations; they stand in the report."""

    def saved(self, step: int) -> None:
        """Is told of a checkpoint."""

    def finish(self, name: str, seconds: float, psnr: float) -> None:
        """Ends an arm that was trained for `seconds` and reaches `psnr` dB on the target's test photographs."""
        result = f"{psnr:.2f} dB on the target"
        if self._bar is not None:
            self._bars.update(self._bar, figures=f"{result:<38}")
        if not self._console.is_terminal:
            figures = self._figures or "was trained already"
            self._console.print(f"{name}: {figures}, {seconds:.0f} s; {result}", highlight=False, soft_wrap=True)
