"""Measures KDSR against a plain implementation of the same structure, in one run, interleaved, on one thread.

Run:     python experiments/benchmarks/kdsr.py [--size m] [--rounds 5] [--out experiments/results/kdsr_speed.md]
Prints:  the largest difference of the outputs; the median times of the processor (other processes do not count) and
         their ratio for the forward pass at 1 x 3 x 128 x 128 and 256 x 256, with the whole image and with a crop of
         64 x 64 described, and for a student's training step (batch 8, LR 48 x 48, L1 and distillation); and how many
         multiplications both sides need.
Plain:   default memory format, the batch folded into groups, each layer of the tail by itself, and a teacher whose
         estimator runs with autograd.
"""

from __future__ import annotations

import argparse
import datetime
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import chip, interleaved
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from metarestore.config.learner import DistillSpec
from metarestore.config.model import KDSRSpec
from metarestore.learners.distill import DistillLearner
from metarestore.models.build import build_model
from metarestore.models.kdsr import KDSR
from metarestore.tasks.task import Task
from metarestore.workspace.process import prepare_process

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
        self.learner = DistillLearner(DistillSpec(kind="distill", teacher=Path("unused")), student, teacher=teacher)

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


@dataclass(frozen=True)
class Row:
    """Times of one piece of work.

    Attributes:
        what: The work.
        milliseconds: Median time of the processor of each form, the plain one first.
        products: Multiplications of each form, in 10^9.
    """

    what: str
    milliseconds: tuple[float, ...]
    products: tuple[float, ...]

    def line(self) -> str:
        """Writes a row of the table."""
        slow, *others = self.milliseconds
        shown = [f"{fast:.0f} ms, x{slow / fast:.2f}" for fast in others] + ["–"] * (len(FORMS) - len(others))
        counts = " / ".join(f"{count:.1f}" for count in self.products)
        return f"| {self.what} | {slow:.0f} ms | " + " | ".join(shown) + f" | {counts} |"


def measure(what: str, rounds: int, *forms: Callable[[], object]) -> Row:
    """Times forms of one piece of work, interleaved."""
    row = Row(what, tuple(interleaved(rounds, *forms)), tuple(map(products_of, forms)))
    print(row.line(), flush=True)
    return row


def products_of(form: Callable[[], object]) -> float:
    """Counts the multiplications of convolutions and matrix products, in 10^9."""
    with FlopCounterMode(display=False) as counter:
        form()
    return float(counter.get_total_flops()) / 2e9


FORMS = ("ours", "ours, estimate on a crop")

PAGE = """\
# How fast is KDSR?

metarestore's KDSR `{size}` at x4 against a plain implementation of the same published structure (default memory
format, the batch folded into groups, each layer of the tail by itself, a teacher whose estimator runs with autograd),
in one run, interleaved, one thread; medians of {rounds} rounds, time of the processor. *estimate on a crop*: of the
middle {crop} x {crop} LR pixels, an approximation whose price stands in kdsr_restoration.md.

    python experiments/benchmarks/kdsr.py --size {size} --rounds {rounds} --out experiments/results/kdsr_speed.md

{date}, {chip}, torch {torch}, load of the machine {load:.1f}.

| work | plain | {forms} | 10^9 multiplications, plain / ours |
| :-- | --: | --: | --: | :-- |
{rows}

Largest difference of the outputs {output:.0e}, of the step's gradient {gradient:.0e} of its norm.

What is left of a step are the convolutions of restorer and estimator, forward and backward, which are the same on both
sides. (PyTorch's counter takes the backward pass of grouped convolutions for dense ones, so it counts too many
multiplications for the plain step, whose dynamic convolutions are grouped.)
"""


def main() -> None:
    """Measures, prints, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="m")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    prepare_process()
    student = build_model(KDSRSpec(kind="kdsr", size=options.size), SCALE, 0)
    teacher = build_model(KDSRSpec(kind="kdsr", size=options.size, estimator="teacher"), SCALE, 1)
    plain, ours = Plain(student, teacher), Ours(student, teacher)
    rng = torch.Generator().manual_seed(0)
    rows, differences = [], []
    for side in (128, 256):
        lr = torch.rand(1, 3, side, side, generator=rng)
        differences.append(float((plain.forward(lr) - ours.forward(lr)).abs().max()))
        forms = (partial(form, lr) for form in (plain.forward, ours.forward, ours.forward_cropped))
        rows.append(measure(f"forward, 1 x 3 x {side} x {side}", options.rounds, *forms))
    lr = torch.rand(BATCH, 3, PATCH, PATCH, generator=rng)
    hr = torch.rand(BATCH, 3, SCALE * PATCH, SCALE * PATCH, generator=rng)
    expected, found = plain.step(lr, hr), ours.step(lr, hr)
    norm = sum(float(value.square().sum()) for value in expected.values()) ** 0.5
    away = sum(float((found[name] - value).square().sum()) for name, value in expected.items()) ** 0.5
    steps = (partial(form, lr, hr) for form in (plain.step, ours.step))
    rows.append(measure(f"student's step, {BATCH} x 3 x {PATCH} x {PATCH}", options.rounds, *steps))
    page = PAGE.format(
        size=options.size,
        rounds=options.rounds,
        crop=CROP,
        date=datetime.date.today(),
        chip=chip(),
        torch=torch.__version__,
        load=os.getloadavg()[0],
        forms=" | ".join(FORMS),
        rows="\n".join(row.line() for row in rows),
        output=max(differences),
        gradient=away / norm,
    )
    print(page) if options.out is None else options.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
