"""Times forms of one piece of work, interleaved in one run."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def interleaved(rounds: int, *forms: Callable[[], object]) -> list[float]:
    """Returns the median processor time of each form, in milliseconds; the first round only warms up."""
    times: list[list[float]] = [[] for _ in forms]
    for number in range(rounds + 1):
        for form, measured in zip(forms, times, strict=True):
            started = time.process_time()
            form()
            if number:
                measured.append(1e3 * (time.process_time() - started))
    return list(map(statistics.median, times))


def chip() -> str:
    """Names the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
