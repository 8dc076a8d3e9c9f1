"""Options and result of restoring one photograph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from metarestore.degradations.kernels import Kernel
from metarestore.zero_shot.kernel import KernelEstimate

Clock = Callable[[], float]
"""Returns seconds."""


@dataclass(frozen=True)
class Stage:
    """One adaptation with Adam and a cosine schedule to 0.

    Attributes:
        steps: Maximum number of steps.
        lr: Initial learning rate.
        share: Its part of the time budget, if there is one, in relation to that of the other stage; a stage without
            steps needs none.
    """

    steps: int
    lr: float
    share: float


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss terms in addition to the error on internal pairs; 0 disables a term.

    Attributes:
        preprocessing: Error of the pre-processing module alone on internal pairs.
        consistency: Difference between the degraded restoration and LR; multiplied by the confidence of the kernel.
        distillation: Difference from the teacher on internal pairs.
        pseudo_label: Difference from the teacher's restoration of LR.
    """

    preprocessing: float = 0.5
    consistency: float = 0.0
    distillation: float = 0.0
    pseudo_label: float = 0.0


@dataclass(frozen=True)
class ZeroShotOptions:
    """Options of restoring one photograph.

    The student and the pre-processing module are off by default: on 18 photographs, neither improved the result
    (experiments/results/zero_shot_restoration_x2.md).

    Attributes:
        kernel: The kernel (K, K) if it is known, with K even if and only if the scale is; otherwise it is estimated.
        teacher: The first adaptation, from new weights or those of `start`.
        student: The second adaptation, from the teacher's weights; with 0 steps, the teacher restores the photograph.
        losses: Weights of the loss terms; all except that of the pre-processing apply to the student only.
        budget: Time limit for learning in seconds, from the start and for both stages together, without the final
            restoration; None for no limit.
        patch: Side of the patches that are learned from, in LR pixels.
        batch: Number of patches per step.
        back_projections: Back-projections before the network, during learning and restoration; fewer for noisy images.
        final_projections: Back-projections after the network.
        preprocessing: Channels of the pre-processing module; 0 disables it.
        self_ensemble: Whether to average the restorations of LR and of LR rotated by 180 degrees.
        keep_colour: Whether to keep the local mean colour of bicubic upscaling.
        start: Initial weights (P,), e.g. meta-learned ones; new weights if None.
        seed: Seed of weights, noise and patches.
    """

    kernel: Kernel | None = None
    teacher: Stage = Stage(800, 1e-3, 0.7)
    student: Stage = Stage(0, 3e-4, 0.3)
    losses: LossWeights = LossWeights()
    budget: float | None = None
    patch: int = 64
    batch: int = 2
    back_projections: int = 8
    final_projections: int = 2
    preprocessing: int = 0
    self_ensemble: bool = False
    keep_colour: bool = True
    start: Tensor | None = None
    seed: int = 0


LEARNS_AT = (2,)
"""Scales at which learning is on by default: at x4 it gained 0.13 dB on blurred photographs, but lost as much on
bicubic LR (experiments/results/zero_shot_restoration_x4_quick.md)."""


def default_options(scale: int) -> ZeroShotOptions:
    """Returns the default options for a scale: without learning where it is not reliably better."""
    options = ZeroShotOptions()
    if scale in LEARNS_AT:
        return options
    return replace(options, teacher=replace(options.teacher, steps=0), student=replace(options.student, steps=0))


@dataclass(frozen=True, eq=False)
class ZeroShotResult:
    """A restored photograph.

    Attributes:
        image: The restored image (3, s·h, s·w) in [0, 1].
        kernel: The kernel used for the restoration; its confidence is 1 if it was given.
        steps: Number of steps taken by each stage.
        seconds: Time until the end of learning.
        skipped: The parts that were skipped, each with the reason.
        parameters: The network's weights after learning, (P,); None if nothing was learned.
        diagnostics: Further measurements, by name.
    """

    image: Tensor
    kernel: KernelEstimate
    steps: Mapping[str, int]
    seconds: float
    skipped: tuple[str, ...] = ()
    parameters: Tensor | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)
