"""Measures the sub-pixel form of FSRCNN's last layer against the transposed convolution, in one run, interleaved.

Run:     python experiments/benchmarks/subpixel.py
Prints:  the median time of both forms and their ratio, for inference and for a training step, on one thread.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from metarestore.models.subpixel import subpixel_conv_transpose

SCALE, CHANNELS, ROUNDS = 4, 56, 15


def transposed(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv_transpose2d(features, weight, bias, stride=SCALE, padding=4, output_padding=SCALE - 1)


def subpixel(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return subpixel_conv_transpose(features, weight, bias, SCALE)


def inference(form: Callable[..., Tensor], features: Tensor, weight: Tensor, bias: Tensor) -> None:
    with torch.no_grad():
        form(features, weight, bias)


def training(form: Callable[..., Tensor], features: Tensor, weight: Tensor, bias: Tensor) -> None:
    leaves = [tensor.clone().requires_grad_() for tensor in (features, weight, bias)]
    torch.autograd.grad(form(*leaves).abs().mean(), leaves)


def measure(what: str, run: Callable[..., None], shape: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(0)
    tensors = torch.rand(shape, generator=rng), torch.rand(CHANNELS, 1, 9, 9, generator=rng), torch.zeros(1)
    times: dict[Callable[..., Tensor], list[float]] = {transposed: [], subpixel: []}
    for _ in range(ROUNDS):
        for form, measured in times.items():
            start = time.perf_counter()
            run(form, *tensors)
            measured.append(1e3 * (time.perf_counter() - start))
    slow, fast = (statistics.median(measured[2:]) for measured in times.values())
    print(f"{what:<34} transposed {slow:8.2f} ms   sub-pixel {fast:8.2f} ms   ratio {slow / fast:.1f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    machine = platform.processor() or platform.machine()
    print(f"torch {torch.__version__}, {machine}, 1 thread, {CHANNELS} channels, x{SCALE}")
    measure("inference, 1 x 256 x 256", inference, (1, CHANNELS, 256, 256))
    measure("forward + backward, 16 x 24 x 24", training, (16, CHANNELS, 24, 24))
