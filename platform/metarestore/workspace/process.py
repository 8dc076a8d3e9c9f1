"""Sets up a process for computing."""

from __future__ import annotations

import ctypes
import sys

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Option numbers of glibc's `mallopt`."""

_KEPT = 1 << 30
"""Bytes of free memory, and size of a block, up to which the process keeps memory."""


def prepare_process() -> None:
    """Sets the number of threads to one, and keeps freed memory in the process.

    A single thread is fastest for many small operations and makes the order of sums deterministic. Keeping memory
    avoids page faults: glibc otherwise returns the activations of every task to the system, which costs 10 to 20% of
    the time of a step of FSRCNN (measured with `experiments/benchmarks/meta_step.py`).
    """
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        # Other C libraries lack mallopt or return 0; only speed is affected.
        if mallopt is not None:
            mallopt(_MMAP_THRESHOLD, _KEPT)
            mallopt(_TRIM_THRESHOLD, _KEPT)
