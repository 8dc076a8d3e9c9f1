"""Measures how far two processes on this machine disturb each other: the bound of what a second worker can add.

Run:     python experiments/benchmarks/two_processes.py
Prints:  work per second of two processes at once over that of one, for matrix products, the grouped convolutions of
         FSRCNN, additions inside the caches and additions outside of them.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from typing import Any

import torch

SECONDS = 2.0


def actions() -> dict[str, Callable[[], Any]]:
    square, small, large = torch.rand(512, 512), torch.rand(4, 5, 56, 16, 16), torch.rand(20_000_000)
    images, weights = torch.rand(5, 48, 16, 16), torch.rand(48, 12, 3, 3)
    return {
        "matrix products": lambda: square @ square,
        "convolutions": lambda: torch.conv2d(images, weights, padding=1, groups=4),
        "additions in the cache": lambda: small + 1,
        "additions outside of it": lambda: large.add_(1),
    }


def work(name: str, barrier: Barrier, rates: Any) -> None:
    torch.set_num_threads(1)
    act = actions()[name]
    act()
    barrier.wait()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        act()
        count += 1
    rates.put(count / (time.perf_counter() - start))


def rate(name: str, processes: int) -> float:
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(processes), context.Queue()
    running = [context.Process(target=work, args=(name, barrier, rates)) for _ in range(processes)]
    for process in running:
        process.start()
    total = float(sum(rates.get() for _ in running))
    for process in running:
        process.join()
    return total


def main() -> None:
    for name in actions():
        one = rate(name, 1)
        print(f"{name:<24} {rate(name, 2) / one:.2f}")


if __name__ == "__main__":
    main()
