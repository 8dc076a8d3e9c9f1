"""The live progress display of a training: arm, step, loss, PSNR, speed, and time left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Column
from rich.text import Text

from metarestore.config.experiment import TrainingSpec
from metarestore.console import text_column
from metarestore.training.log import LogRow, Observer

_MEMORY = 0.95
"""Decay of the EMA of the displayed metrics."""


def duration(seconds: float) -> str:
    """Formats a remaining time.

    >>> duration(42), duration(200), duration(7000)
    ('42 s', '3 min', '1 h 57 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class HeadedProgress(Progress):
    """Progress bars with column headings."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yields the table of the bars."""
        table = self.make_tasks_table(self.tasks)
        table.show_header = bool(self.tasks)
        table.header_style = "dim"
        yield table


def field_column(head: str, field: str, justify: Any = "right") -> ProgressColumn:
    """Returns a column that shows a field of the bars literally, without interpreting markup."""
    return _FieldColumn(field, Column(head, justify=justify, no_wrap=True))


class _FieldColumn(ProgressColumn):
    def __init__(self, field: str, column: Column) -> None:
        super().__init__(table_column=column)
        self._field = field

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get(self._field, "")))


class TimeLeft:
    """Estimates the remaining time of several trainings from the speed of the previous steps.

    Args:
        trainings: The trainings by arm name, in order.
        clock: Returns the time in seconds.
    """

    def __init__(self, trainings: Mapping[str, TrainingSpec], clock: Any = time.monotonic) -> None:
        self._tasks = {name: training.steps * training.tasks_per_step for name, training in trainings.items()}
        self._clock = clock
        self._started: float | None = None
        self._overheads: list[float] = []
        self._speed = 0.0

    def begin(self) -> None:
        """Called when an arm starts."""
        self._started = self._clock()

    def measured(self, tasks_per_second: float) -> None:
        """Updates the speed of the current arm."""
        self._speed = tasks_per_second

    def end(self, training_seconds: float) -> None:
        """Called when an arm ends; its time beyond `training_seconds` is adaptation and evaluation."""
        if self._started is not None:
            self._overheads.append(max(self._clock() - self._started - training_seconds, 0.0))
        self._started = None

    def seconds(self, arm: str, tasks_done: int) -> float | None:
        """Returns the seconds left after `tasks_done` tasks of an arm; None if the speed is unknown."""
        if not self._speed:
            return None
        names = list(self._tasks)
        coming = names[names.index(arm) + 1 :] if arm in self._tasks else []
        left = max(self._tasks.get(arm, 0) - tasks_done, 0) + sum(self._tasks[name] for name in coming)
        overhead = sum(self._overheads) / len(self._overheads) if self._overheads else 0.0
        return left / self._speed + overhead * (len(coming) + (self._started is not None))


class TrainingDisplay(Observer):
    """Shows one progress bar per arm on a terminal, and prints one line per finished arm otherwise.

    Args:
        console: The console to draw on.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tasks_per_step = 1
        self._bars = HeadedProgress(
            field_column("arm", "arm", "left"),
            BarColumn(bar_width=12),
            text_column("{task.completed:.0f}/{task.total:.0f}", Column("step", justify="right")),
            field_column("loss", "loss"),
            field_column("PSNR (dB)", "psnr"),
            field_column("tasks/s", "speed"),
            field_column("left in total", "left"),
            console=console,
            refresh_per_second=4,
        )
        self._bar: TaskID | None = None
        self._first: tuple[int, float] | None = None
        self._smooth: dict[str, float] = {}
        self._metrics = ""
        self._order: list[str] = []
        self._name = ""
        self._left = TimeLeft({})

    def __enter__(self) -> TrainingDisplay:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def plan(self, trainings: Mapping[str, TrainingSpec]) -> None:
        """Receives all arms that will be trained, in order."""
        self._order = list(trainings)
        self._left = TimeLeft(trainings)

    def start(self, name: str, training: TrainingSpec) -> None:
        """Called when an arm starts."""
        if name not in self._order:
            self.plan({name: training})
        self._name = name
        self._bar = self._bars.add_task(name, total=training.steps, arm=self._numbered(name))
        self._tasks_per_step = training.tasks_per_step
        self._first = None
        self._smooth = {}
        self._metrics = ""
        self._left.begin()

    def _numbered(self, name: str) -> str:
        """Returns `arm 3 of 6, name`, or only the name of a single arm."""
        many = len(self._order) > 1
        return f"arm {self._order.index(name) + 1} of {len(self._order)}, {name}" if many else name

    def stage(self, text: str) -> None:
        """Prints a message about a stage without a progress bar."""
        self._console.print(text, soft_wrap=True)

    def warning(self, text: str) -> None:
        """Prints a warning that does not stop the run."""
        self._console.print(text, style="yellow", highlight=False, soft_wrap=True)

    def step(self, row: LogRow) -> None:
        """Updates the bar."""
        if self._bar is None:
            return
        for key, value in (("loss", row.loss), ("psnr", row.psnr)):
            self._smooth[key] = _MEMORY * self._smooth.get(key, value) + (1 - _MEMORY) * value
        # The first step of a session opens files and starts workers, so the speed is measured from the second.
        self._first = self._first or (row.step, row.seconds)
        steps, seconds = row.step - self._first[0], row.seconds - self._first[1]
        speed = steps * self._tasks_per_step / max(seconds, 1e-9)
        self._left.measured(speed)
        left = self._left.seconds(self._name, row.step * self._tasks_per_step)
        loss, psnr = f"{self._smooth['loss']:.4f}", f"{self._smooth['psnr']:.2f}"
        self._metrics = f"loss {loss}, PSNR {psnr} dB on its training tasks, {speed:.0f} tasks/s"
        shown: dict[str, Any] = {
            "loss": loss,
            "psnr": psnr,
            "speed": f"{speed:.0f}",
            "left": "" if left is None else duration(left),
        }
        self._bars.update(self._bar, completed=row.step, **shown)

    def finish(self, name: str, seconds: float, psnr: float) -> None:
        """Called when an arm ends, with its training time and its PSNR-Y in dB on the target's test photographs."""
        self._left.end(seconds)
        if self._bar is not None:
            self._bars.update(self._bar, loss="", psnr=f"{psnr:.2f}", speed="on the target", left="done")
        if not self._console.is_terminal:
            metrics = self._metrics or "already trained"
            line = f"{self._numbered(name)}: {metrics}, {seconds:.0f} s; {psnr:.2f} dB PSNR-Y on the target"
            ahead = self._order.index(name) + 1 < len(self._order) if name in self._order else False
            left = self._left.seconds(name, 1 << 62) if ahead else None
            line += f"; about {duration(left)} left in total" if left is not None else ""
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
