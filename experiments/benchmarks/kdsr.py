"""Measures KDSR against a plain implementation of the same structure, in one run, interleaved, on one thread.

Run:     python experiments/benchmarks/kdsr.py [--size m] [--rounds 5]
Prints:  the largest difference of the outputs; the median times of the processor (other processes do not count) and
         their ratio for the forward pass at 1 x 3 x 128 x 128 and 256 x 256, with the whole image and with a crop of
         64 x 64 described, and for a student's training step (batch 8, LR 48 x 48, L1 and distillation).
Plain:   default memory format, the batch folded into groups, each layer of the tail by itself, and a teacher whose
         estimator runs with autograd.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from metarestore.learners.distill import DistillLearner
from metarestore.learners.process import prepare_process
from metarestore.models.kdsr import KDSR
from metarestore.models.network import seeded
from metarestore.tasks.task import Task

SCALE, BATCH, PATCH, CROP = 4, 8, 48, 64
Weights = Mapping[str, Tensor]


def plain_embeddings(weights: Weights, images: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """Computes D' and D of images as the structure reads."""

    def conv(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    x = F.leaky_relu(conv(images, "estimator.body.0"), 0.1)
    for k in range(2, 2 + blocks):
        x = x + conv(F.leaky_relu(conv(x, f"estimator.body.{k}.body.0"), 0.1), f"estimator.body.{k}.body.2")
    for k in (2, 4, 6):
        x = F.leaky_relu(conv(x, f"estimator.body.{blocks + k}"), 0.1)
    x = F.adaptive_avg_pool2d(x, 1).flatten(1)
    x = F.leaky_relu(linear(F.leaky_relu(linear(x, "estimator.mix.0"), 0.1), "estimator.mix.2"), 0.1)
    return x, F.leaky_relu(linear(x, "estimator.compress.0"), 0.1)


def plain_restored(weights: Weights, lr: Tensor, embedding: Tensor, blocks: int) -> Tensor:
    """Restores LR as the structure reads."""

    def conv(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    mean = torch.tensor([0.4488, 0.4371, 0.4040])[:, None, None]
    head = conv(lr - mean, "restorer.head")
    batch, channels, height, width = head.shape
    x = head
    for k in range(blocks):
        name = f"restorer.blocks.{k}"
        kernels = F.leaky_relu(F.linear(embedding, weights[f"{name}.kernels.0.weight"]), 0.1)
        kernels = F.linear(kernels, weights[f"{name}.kernels.2.weight"]).view(-1, 1, 3, 3)
        folded = x.view(1, batch * channels, height, width)
        y = F.conv2d(folded, kernels, groups=batch * channels, padding=1).view(x.shape)
        x = conv(F.leaky_relu(y, 0.1), f"{name}.mix") + x
    x = conv(x, "restorer.join") + head
    for k in range(2):
        x = F.pixel_shuffle(conv(x, f"restorer.grow.{k}"), 2)
    return conv(x, "restorer.tail") + mean


class Plain:
    """The plain implementation with the weights of ours."""

    def __init__(self, student: KDSR, teacher: KDSR) -> None:
        self.student, self.teacher = dict(student.named_parameters()), dict(teacher.named_parameters())
        self.blocks = len(student.restorer.blocks)
        self.depth = (student.estimator.reach - 4) // 2

    def forward(self, lr: Tensor) -> Tensor:
        """Restores LR."""
        with torch.no_grad():
            return plain_restored(self.student, lr, plain_embeddings(self.student, lr, self.depth)[1], self.blocks)

    def step(self, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Computes the gradient of the student's loss."""
        told = plain_embeddings(self.teacher, torch.cat([lr, F.pixel_unshuffle(hr, SCALE)], dim=1), self.depth)[0]
        said, embedding = plain_embeddings(self.student, lr, self.depth)
        target, guess = (told / 0.15).softmax(1), (said / 0.15).log_softmax(1)
        restored = plain_restored(self.student, lr, embedding, self.blocks)
        loss = F.l1_loss(restored, hr) + F.kl_div(guess, target.detach(), reduction="batchmean")
        slopes = torch.autograd.grad(loss, list(self.student.values()))
        return dict(zip(self.student, slopes, strict=True))


class Ours:
    """metarestore's implementation."""

    def __init__(self, student: KDSR, teacher: KDSR) -> None:
        self.student = student
        self.learner = DistillLearner(student, teacher=teacher)

    def forward(self, lr: Tensor) -> Tensor:
        """Restores LR."""
        with torch.no_grad():
            return self.student(lr)

    def forward_cropped(self, lr: Tensor) -> Tensor:
        """Restores LR, of which the estimator sees the middle."""
        with torch.no_grad():
            return self.student.for_image(lr, crop=CROP)(lr)

    def step(self, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Computes the gradient of the student's loss."""
        params = {name: value.detach()[None] for name, value in self.student.named_parameters()}
        half = BATCH // 2
        task = Task(lr[None, :half], hr[None, :half], lr[None, half:], hr[None, half:])
        slopes, _ = self.learner.gradients(params, task)
        return {name: value[0] for name, value in slopes.items()}


def measure(what: str, rounds: int, *forms: Callable[[], object]) -> None:
    times: list[list[float]] = [[] for _ in forms]
    for number in range(rounds + 1):
        for form, measured in zip(forms, times, strict=True):
            started = time.process_time()
            form()
            if number:  # the first round warms up
                measured.append(1e3 * (time.process_time() - started))
    slow, *others = (statistics.median(measured) for measured in times)
    shown = "".join(f"   {name} {fast:8.0f} ms, x{slow / fast:.2f}" for name, fast in zip(NAMES, others, strict=False))
    print(f"{what:<34} plain {slow:8.0f} ms{shown}", flush=True)


NAMES = ("ours", "ours, cropped")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="m")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    prepare_process()
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, 1 thread, kdsr-{options.size} x4")
    student = seeded(KDSR, 0, scale=SCALE, size=options.size)
    teacher = seeded(KDSR, 1, scale=SCALE, size=options.size, estimator="teacher")
    plain, ours = Plain(student, teacher), Ours(student, teacher)
    rng = torch.Generator().manual_seed(0)
    for side in (128, 256):
        lr = torch.rand(1, 3, side, side, generator=rng)
        difference = float((plain.forward(lr) - ours.forward(lr)).abs().max())
        print(f"largest difference at {side} x {side}: {difference:.1e}")
        measure(
            f"forward, 1 x 3 x {side} x {side}",
            options.rounds,
            lambda lr=lr: plain.forward(lr),
            lambda lr=lr: ours.forward(lr),
            lambda lr=lr: ours.forward_cropped(lr),
        )
    lr = torch.rand(BATCH, 3, PATCH, PATCH, generator=rng)
    hr = torch.rand(BATCH, 3, SCALE * PATCH, SCALE * PATCH, generator=rng)
    expected, found = plain.step(lr, hr), ours.step(lr, hr)
    norm = sum(float(value.square().sum()) for value in expected.values()) ** 0.5
    away = sum(float((found[name] - value).square().sum()) for name, value in expected.items()) ** 0.5
    print(f"difference of the gradients: {away / norm:.1e} of their norm")
    measure(
        f"student's step, {BATCH} x 3 x {PATCH} x {PATCH}",
        options.rounds,
        lambda: plain.step(lr, hr),
        lambda: ours.step(lr, hr),
    )


if __name__ == "__main__":
    main()
