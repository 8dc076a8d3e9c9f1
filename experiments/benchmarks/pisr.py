"""Measures PISR against its published procedure, in one run, interleaved, on one thread.

Run:       python experiments/benchmarks/pisr.py [--rounds 9] [--out experiments/results/pisr_speed.md]
Prints:    the largest differences of the results; the median processor times and their ratios of a student's training
           step at x4 (batch 8, LR 48 x 48, L1 and variational distillation), with their peak memory, and of the forward
           pass at 1 x 1 x 256 x 256 for FSRCNN and the other students.
Published: FSRCNN with a transposed convolution, a teacher that runs with autograd to the restored image and is not
           detached, and loss terms at once.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import chip, interleaved
from torch import Tensor, nn

from metarestore.config.learner import DistillationSpec, PretrainSpec
from metarestore.config.model import CompactSpec, ECBSRSpec, FSRCNNSpec, PISRTeacherSpec
from metarestore.learners.feature_distillation import StudentLearner
from metarestore.learners.feature_losses import VariationalHead, laplace_information
from metarestore.learners.gradients import vectorised_gradients
from metarestore.models.build import build_model
from metarestore.models.network import Network
from metarestore.models.parameters import Layout
from metarestore.tasks.task import Task
from metarestore.workspace.process import prepare_process

SCALE, BATCH, PATCH, SIDE, WEIGHT = 4, 8, 48, 256, 1e-3
PUBLISHED = FSRCNNSpec(residual="none", prelu="per_layer")
Images = tuple[Tensor, Tensor]
Step = Callable[[], Tensor]


class PublishedFSRCNN(nn.Module):
    """The published layers, with the weights of ours."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.body, self.tail = network.get_submodule("body"), network.get_submodule("tail")

    def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the restored image and the features before the last layer."""
        features = self.body(lr)
        return self.tail(features), features


class Published:
    """The published student step."""

    def __init__(self, student: Network, teacher: Network, head: VariationalHead) -> None:
        self.student, self.head = PublishedFSRCNN(student), head
        self.encoder = teacher.get_submodule("encoder")
        decoder = teacher.get_submodule("decoder")
        self.decoder = PublishedFSRCNN(decoder) if isinstance(decoder, Network) else None
        self.learned = [*self.student.parameters(), *head.parameters()]

    def step(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Returns the gradient of the student's loss, (P,); gradients of the teacher are computed and not used."""
        assert self.decoder is not None
        modules = (self.student, self.head, self.encoder, self.decoder)
        for module in modules:
            module.zero_grad(set_to_none=True)
        _, target = self.decoder(self.encoder(hr))
        restored, features = self.student(lr)
        loss = F.l1_loss(restored, hr) + WEIGHT * laplace_information(*self.head(features), target)
        loss.backward()
        return torch.cat([value.grad.flatten() for value in self.learned if value.grad is not None])


class Ours:
    """metarestore's student step."""

    def __init__(self, student: Network, teacher: Network, head: VariationalHead) -> None:
        distillation = DistillationSpec(teacher=Path("unused"), weight=WEIGHT)
        frozen = teacher.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learner = StudentLearner(
            PretrainSpec(kind="pretrain", distillation=distillation),
            student,
            "float32",
            teacher=frozen,
            heads=nn.ModuleDict({"vid_laplace_expanding": head}),
        )
        network = Layout.of(student)
        self.layout = self.learner.layout(network)
        modules = (student, head)
        self.flat = torch.cat([value.detach().flatten() for module in modules for value in module.parameters()])

    def step(self, lr: Tensor, hr: Tensor) -> Tensor:
        """Returns the gradient of the student's loss, (P,)."""
        half = BATCH // 2
        task = Task(lr[None, :half], hr[None, :half], lr[None, half:], hr[None, half:])
        return torch.from_numpy(vectorised_gradients(self.learner, self.layout, self.flat, task).gradients[0])


def steps() -> tuple[Step, Step]:
    """Returns the published step and ours, with equal weights and images."""
    rng = torch.Generator().manual_seed(0)
    lr = torch.rand(BATCH, 1, PATCH, PATCH, generator=rng)
    hr = torch.rand(BATCH, 1, SCALE * PATCH, SCALE * PATCH, generator=rng)
    forms: list[Step] = []
    for form in (Published, Ours):
        torch.manual_seed(0)
        student = build_model(PUBLISHED, SCALE, 0)
        teacher = build_model(PISRTeacherSpec(kind="pisr_teacher", decoder=PUBLISHED), SCALE, 1)
        forms.append(partial(form(student, teacher, VariationalHead(56, 56)).step, lr, hr))
    return forms[0], forms[1]


def peak(number: int) -> float:
    """Returns the peak memory of a process that takes three of the steps, in MiB."""
    prepare_process()
    step = steps()[number]
    for _ in range(3):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def inference(rounds: int) -> tuple[list[str], float]:
    """Times all students, and returns the rows of a table and the relative difference of both forms of FSRCNN."""
    image = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    fsrcnn = build_model(PUBLISHED, SCALE, 0)
    published = PublishedFSRCNN(fsrcnn)
    others = {
        "FSRCNN, one slope per channel and bicubic skip": build_model(FSRCNNSpec(), SCALE, 0),
        "superultracompact (RGB)": build_model(CompactSpec(kind="compact", size="superultracompact"), SCALE, 0),
        "ecbsr, folded": build_model(ECBSRSpec(kind="ecbsr", branches=False), SCALE, 0),
    }
    with torch.no_grad():
        expected = published(image)[0]
        difference = float((expected - fsrcnn(image)).abs().max() / expected.abs().max())

        def forward(network: nn.Module, channels: str) -> None:
            with torch.no_grad():
                network(image.expand(-1, 3 if channels == "rgb" else 1, -1, -1))

        forms = [partial(forward, published, "y"), partial(forward, fsrcnn, "y")]
        forms += [partial(forward, network, network.channels) for network in others.values()]
        times = interleaved(rounds, *forms)
    names = ("published FSRCNN, transposed convolution", "the same, sub-pixel form", *others)
    sizes = [sum(value.numel() for value in network.parameters()) for network in (published, fsrcnn, *others.values())]
    rows = zip(names, sizes, times, strict=True)
    return [f"| {name} | {size:,} | {own:.0f} ms | x{times[0] / own:.2f} |" for name, size, own in rows], difference


PAGE = """\
# How fast is PISR?

At x4, in one run, interleaved, one thread; medians of {rounds} rounds, processor time.

    python experiments/benchmarks/pisr.py --rounds {rounds} --out experiments/results/pisr_speed.md

{date}, {chip}, torch {torch}, load of the machine {load:.1f}.

A student's training step, batch {batch}, LR {patch} x {patch}, against the published procedure (transposed convolution,
teacher with autograd and not detached):

| step | time | | peak memory of the process |
| :-- | --: | --: | --: |
| published | {slow:.0f} ms | | {slow_peak:.0f} MiB |
| metarestore | {fast:.0f} ms | x{ratio:.2f} | {fast_peak:.0f} MiB |

Largest difference of the gradient {gradient:.0e} of its norm.

The forward pass at 1 x 1 x {side} x {side} (RGB networks: 1 x 3), against the transposed form:

| network | parameters | time | |
| :-- | --: | --: | --: |
{rows}

Largest difference between both forms of FSRCNN: {output:.0e} of the largest value.
"""


def main() -> None:
    """Measures, prints, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    prepare_process()
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = pool.map(peak, (0, 1), chunksize=1)
    published, ours = steps()
    expected, found = published(), ours()
    slow, fast = interleaved(options.rounds, published, ours)
    rows, output = inference(options.rounds)
    page = PAGE.format(
        rounds=options.rounds,
        date=datetime.datetime.now(datetime.UTC).date(),
        chip=chip(),
        torch=torch.__version__,
        load=os.getloadavg()[0],
        batch=BATCH,
        patch=PATCH,
        side=SIDE,
        slow=slow,
        fast=fast,
        ratio=slow / fast,
        slow_peak=peaks[0],
        fast_peak=peaks[1],
        gradient=float((expected - found).norm() / expected.norm()),
        rows="\n".join(rows),
        output=output,
    )
    print(page) if options.out is None else options.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
