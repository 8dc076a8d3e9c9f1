"""How a process that computes is set up."""

from __future__ import annotations

import ctypes
import sys

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of options of glibc's `mallopt`."""

_KEPT = 1 << 30
"""Bytes of free memory, and size of a block, up to which memory stays with the process."""


def prepare_process() -> None:
    """Sets one computing thread, and keeps freed memory.

    One thread: many small operations run fastest so, and always in the same order of sums. Kept memory: glibc otherwise
    hands the activations of every task back to the system, and every step pays thousands of page faults to have them
    again, 10 to 20% of the time of a step of FSRCNN (measured; `experiments/benchmarks/meta_step.py`).
    """
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        # Other C libraries lack it, or return 0: nothing is lost but the time.
        if mallopt is not None:
            mallopt(_MMAP_THRESHOLD, _KEPT)
            mallopt(_TRIM_THRESHOLD, _KEPT)
