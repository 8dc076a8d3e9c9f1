"""Options of the adaptation to shots, or to a photograph alone."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from metarestore.config.affects import Affects
from metarestore.config.base import Strict


class LoRASpec(Strict):
    """Low-rank changes of all weights (Hu et al., LoRA, 2022), merged into the weights after the adaptation."""

    lora: int = Field(ge=1)
    """Largest rank of the change of a weight, seen as a matrix of outputs × inputs."""


Adapts = Literal["all", "tail", "norms"] | LoRASpec | Annotated[tuple[str, ...], Field(min_length=1)]
"""The parameters that change: all, those of the last layer or of the normalisation layers, or those whose names match
one of the patterns; or low-rank changes of all weights."""


class AdaptationOptimizerSpec(Strict):
    """Optimizer of the adaptation to the shots."""

    optimizer: Annotated[Literal["adam", "sgd"], Affects.RELATIONS | Affects.MEASUREMENT] = "adam"
    steps: Annotated[int, Affects.RELATIONS | Affects.MEASUREMENT] = Field(100, ge=0)
    lr: Annotated[float, Affects.RELATIONS | Affects.MEASUREMENT] = Field(3e-4, gt=0)
    schedule: Annotated[Literal["constant", "cosine"], Affects.RELATIONS | Affects.MEASUREMENT] = "constant"
    """Learning-rate schedule over the steps; `cosine` decays to 0."""
    patch: Annotated[int | None, Affects.RELATIONS | Affects.MEASUREMENT | Affects.OPENING] = Field(None, ge=8)
    """Side of the HR patches on which a step is taken, cropped at random from the shots, flipped and rotated; a
    multiple of the scale. If omitted, every step uses all shots as they are."""
    batch: Annotated[int, Affects.RELATIONS | Affects.MEASUREMENT] = Field(8, ge=1)
    """Number of patches per step."""
    adapts: Annotated[Adapts, Affects.RELATIONS | Affects.MEASUREMENT | Affects.BUILDING] = Field(
        "all", exclude_if=lambda value: value == "all"
    )
    """The parameters that change: `all`; `tail`, those of the last layer; `norms`, those of the normalisation layers;
    names or glob patterns; or `{lora: RANK}`, low-rank changes of all weights."""


class AdaptationSpec(AdaptationOptimizerSpec):
    """Few-shot adaptation to the target's support pairs, or zero-shot to each test crop alone."""

    method: Annotated[Literal["shots", "zero_shot", "teacher_student"], Affects.MEASUREMENT] = Field(
        "shots", exclude_if=lambda value: value == "shots"
    )
    """zero_shot: the network learns from each test crop's LR alone, which is degraded once more; no shot is used, and
    `patch` counts pixels of LR. teacher_student: the restoration of `restore --adapt zero-shot`, with back-projection
    before the network, which learns as a teacher and then as a student, and is new for each crop; it requires
    `model: {kind: zero_shot}`, `training: {steps: 0}` and `schedule: cosine`."""
    kernel: Annotated[Literal["estimated", "bicubic"], Affects.MEASUREMENT] = Field(
        "estimated", exclude_if=lambda value: value == "estimated"
    )
    """Blur kernel of the internal pairs of zero_shot and teacher_student: estimated from the crop, or that of bicubic
    downsampling."""

    shots: Annotated[int, Affects.TRAINING | Affects.SHOTS | Affects.OPENING] = Field(5, ge=1)
    """Number of real pairs that may be used for learning."""
    first_shot: Annotated[int, Affects.TRAINING | Affects.SHOTS | Affects.OPENING] = Field(
        0, ge=0, exclude_if=lambda value: value == 0
    )
    """Index of the first shot: of real pairs, in the support pool, which continues with its first pair after its last
    one; of a synthetic target, in its sequence of drawn shots. The test set is the same for every index."""
    shot_size: Annotated[int, Affects.TRAINING | Affects.SHOTS | Affects.OPENING] = Field(192, ge=32)
    """Side of a shot, in HR pixels; a multiple of the scale."""
    off_colour_shots: Annotated[Literal["leave_out", "keep"], Affects.TRAINING | Affects.SHOTS] = "leave_out"
    """How to treat real pairs whose change of colour or brightness from LR to HR differs from that of the other shots
    (by 7% between the channels, or by 15% in all of them). They are always reported; with `leave_out` they are not used
    for learning."""
    alternatives: Annotated[tuple[AdaptationOptimizerSpec, ...], Affects.MEASUREMENT] = ()
    """Other adaptation options, reported in addition to the main one."""

    @model_validator(mode="after")
    def _patches_fit_the_shots(self) -> Self:
        optimizers: tuple[AdaptationOptimizerSpec, ...] = (self, *self.alternatives)
        for options in optimizers:
            if options.patch is not None and options.patch > self.shot_size and self.method == "shots":
                raise ValueError(f"patch must not be above shot_size ({self.shot_size}), got {options.patch}")
            if options.patch is None and options.batch != AdaptationOptimizerSpec.model_fields["batch"].default:
                raise ValueError("batch requires patch; add patch, or remove batch")
        return self

    @model_validator(mode="after")
    def _shots_have_no_kernel(self) -> Self:
        if self.kernel != "estimated" and self.method == "shots":
            raise ValueError("kernel is for method: zero_shot or teacher_student; leave it out, or write method, too")
        return self

    @model_validator(mode="after")
    def _both_stages_are_adam(self) -> Self:
        methods: tuple[AdaptationOptimizerSpec, ...] = (self, *self.alternatives)
        if self.method != "teacher_student":
            return self
        if any(one.adapts != "all" for one in methods):
            raise ValueError("method: teacher_student learns all of a new network; remove adapts")
        if any(one.optimizer != "adam" for one in methods):
            raise ValueError("method: teacher_student adapts by Adam; write optimizer: adam")
        if any(one.schedule != "cosine" for one in methods):
            raise ValueError("method: teacher_student decays both learning rates to 0; write schedule: cosine")
        return self
