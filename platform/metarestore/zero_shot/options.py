"""How one photograph is restored, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from metarestore.degradations.kernels import Kernel
from metarestore.zero_shot.kernel import KernelEstimate


@dataclass(frozen=True)
class Stage:
    """One adaptation: Adam with a cosine to 0.

    Attributes:
        steps: Most steps.
        lr: Learning rate at the beginning.
        share: Share of the time budget, if there is one.
    """

    steps: int
    lr: float
    share: float


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms beside the error on internal pairs; 0 leaves a term out.

    Attributes:
        preprocessing: Error of the pre-processing module alone on internal pairs.
        consistency: Difference of the degraded restoration from LR; multiplied by the confidence of the kernel.
        distillation: Difference from the teacher on internal pairs.
        pseudo_label: Difference from the teacher's restoration of LR.
    """

    preprocessing: float = 0.5
    consistency: float = 0.0
    distillation: float = 0.0
    pseudo_label: float = 0.0


@dataclass(frozen=True)
class ZeroShotOptions:
    """How one photograph is restored.

    Attributes:
        kernel: The kernel, if it is known: (K, K), K even if and only if the scale is. It is estimated otherwise.
        teacher: The first adaptation, from new weights or those of `start`.
        student: The second one, from the teacher's weights; with no steps, the teacher restores.
        losses: Terms of the losses; all but the pre-processing's are the student's alone.
        budget: Seconds after which learning ends, from the start and both stages together; the restoration that follows
            is not counted. Only steps limit learning if it is None.
        patch: Side of the patches that are learned from, in LR pixels.
        batch: Patches of a step.
        back_projections: Iterations before the network, both in learning and in restoring; fewer on noisy images.
        final_projections: Iterations after it.
        preprocessing: Channels of the pre-processing module; 0 leaves it out.
        self_ensemble: Restores LR rotated by 180 degrees as well and takes the mean.
        keep_colour: Keeps the local mean colour of bicubic enlarging.
        start: Weights to start from, (P,), e.g. meta-learned ones; new ones if it is None.
        seed: Seed of weights, noise and patches.
    """

    kernel: Kernel | None = None
    teacher: Stage = Stage(600, 1e-3, 0.7)
    student: Stage = Stage(200, 3e-4, 0.3)
    losses: LossWeights = LossWeights()
    budget: float | None = None
    patch: int = 64
    batch: int = 2
    back_projections: int = 8
    final_projections: int = 2
    preprocessing: int = 32
    self_ensemble: bool = False
    keep_colour: bool = True
    start: Tensor | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class ZeroShotResult:
    """A restored photograph.

    Attributes:
        image: (3, s·h, s·w) in [0, 1].
        kernel: The kernel that it was restored with; of full confidence if it was given.
        steps: Steps taken by each stage.
        seconds: Time until learning ended.
        skipped: What was left out, and why.
        parameters: The network's weights after learning, (P,); None if nothing was learned.
        diagnostics: Further numbers, by name.
    """

    image: Tensor
    kernel: KernelEstimate
    steps: Mapping[str, int]
    seconds: float
    skipped: tuple[str, ...] = ()
    parameters: Tensor | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)
