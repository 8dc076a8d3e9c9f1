"""What an experiment file may say about its learner."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from metarestore.config.affects import Affects
from metarestore.config.base import Strict
from metarestore.config.model import BaseModelSpec
from metarestore.config.network_path import NetworkPath
from metarestore.config.registry import Implemented, Registered, Registry

LossName = Literal["l1", "charbonnier", "mse"]
StepWeight = Annotated[float, Field(ge=0)]


class MultiStep(Strict):
    """The query loss is taken after every inner step, not after the last one alone (Antoniou et al., MAML++, 2019)."""

    weights: Literal["annealed", "uniform"] | tuple[StepWeight, ...] = "annealed"
    """Weight of each inner step's query loss: annealed from equal to (nearly) the last step alone, equal throughout,
    or one number per inner step, divided by their sum."""
    steps: float = Field(3333.0, gt=0)
    """Annealed: outer steps over which the weights of the steps before the last would fall to 0."""
    floor: float = Field(0.03, ge=0, le=1)
    """Annealed: the share of its first weight that a step before the last keeps."""


class BaseLearnerSpec(Implemented):
    """What every learner has, and what it can do.

    `implementation` takes the specification, the network and its arithmetic, and returns a
    `metarestore.learners.learner.Learner`.
    """

    has_inner_loop: ClassVar[bool] = False
    """Whether it adapts to the support set of each task."""
    needs_init: ClassVar[bool] = False
    """Whether it starts from trained weights, `training.init`."""
    loss: LossName = "l1"
    """Loss of restored images, outer and (unless it has its own) inner."""
    charbonnier_eps: float = Field(1e-3, gt=0)
    """Where the Charbonnier loss √(d² + ε²) turns from a parabola into |d|, for images in 0..1."""
    backend: Literal["vectorised", "learn2learn"] = "vectorised"

    @property
    def has_own_init(self) -> bool:
        """Whether it brings the weights that it starts from."""
        return False

    @property
    def compares_tasks(self) -> bool:
        """Whether the loss of a task depends on the other tasks of its shard."""
        return False

    @property
    def shared_until(self) -> int:
        """Outer step before which all tasks of a step degrade the same clean patches."""
        return 0

    def mismatch(self, model: BaseModelSpec) -> str | None:
        """Returns why the learner cannot train a network, and what to write instead; None if it can."""
        if model.privileged:
            return (
                f"{model.teacher_key} restores from the HR images themselves; train it with learner: "
                "{kind: pretrain} (vectorised)"
            )
        return None


class _InnerLoop(BaseLearnerSpec):
    """What every learner has that adapts to the support set."""

    has_inner_loop: ClassVar[bool] = True

    inner_steps: int = Field(1, ge=1)
    inner_lr: float = Field(1e-2, gt=0)
    inner_loss: LossName | None = None
    """Loss of the inner steps and of adaptation to the shots; that of the outer level if left out."""
    inner_clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient of an inner step, and of a step of SGD on the shots."""


class _MultiStepLoop(_InnerLoop):
    """What every learner has whose outer loss is that of the query set."""

    multi_step: MultiStep | None = None

    @model_validator(mode="after")
    def _one_weight_per_step(self) -> Self:
        weights = self.multi_step.weights if self.multi_step else "uniform"
        if isinstance(weights, tuple) and (len(weights) != self.inner_steps or not sum(weights)):
            raise ValueError(
                f"multi_step.weights must be {self.inner_steps} numbers (one per inner step), not all 0, "
                f"got {list(weights)}"
            )
        return self


class Contrast(Strict):
    """Embeddings D′ of one task's images are drawn together, those of other tasks apart (Khosla et al., 2020).

    The tasks of a shard are compared with each other. In the `warmup_steps` all tasks of a step degrade the same clean
    patches, so that contents cannot tell them apart.
    """

    weight: float = Field(0.03, gt=0)
    """Weight of the contrast beside the image loss."""
    temperature: float = Field(0.2, gt=0)
    """What the cosine of two embeddings is divided by."""


class FeatureLoss(Strict):
    """A loss between named features of a network that learns and of its teacher (`model` has the names)."""

    layers: tuple[str, ...] | dict[str, str] = Field(("expanding",), min_length=1)
    """Features that are compared, one by one; a mapping gives the teacher's feature for each of the student's."""
    loss: Literal["vid_laplace", "vid_gaussian", "l2", "attention"] = "vid_laplace"
    """Variational information distillation with a Laplace or Gaussian density (Ahn et al., 2019), the mean squared
    difference (through a learned 1×1 convolution where the numbers of channels differ), or that of attention maps
    (Zagoruyko and Komodakis, 2017)."""
    weight: float = Field(1e-6, ge=0)
    """Weight of the mean over the layers, beside the image loss; at 0 the loss is not computed."""

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The features, as (student's, teacher's)."""
        if isinstance(self.layers, dict):
            return tuple(self.layers.items())
        return tuple((layer, layer) for layer in self.layers)


class Distillation(FeatureLoss):
    """A frozen teacher, of which named features are learned; it may be given the HR images."""

    teacher: NetworkPath
    """The trained teacher: a run's folder or its model.safetensors (a relative path starts at the project's folder), or
    the name of a shipped network."""
    initialise: bool = True
    """Whether the student starts as the teacher, or as the decoder of a teacher that has one."""
    also: tuple[FeatureLoss, ...] = ()
    """Further losses, added to the first one."""

    @property
    def losses(self) -> tuple[FeatureLoss, ...]:
        """The losses whose weight is not 0."""
        return tuple(loss for loss in (self, *self.also) if loss.weight)


class _Pooled(BaseLearnerSpec):
    """What every learner has that takes support and query together."""

    contrast: Contrast | None = None
    """For KDSR: makes its estimator tell tasks apart, for descriptors; left out, it learns from restoring alone."""
    warmup_steps: int = Field(0, ge=0)
    """Outer steps at first in which KDSR's estimator learns alone, from the contrast and what a teacher says."""

    @model_validator(mode="after")
    def _contrast_is_vectorised(self) -> Self:
        if self.contrast is not None and self.backend != "vectorised":
            raise ValueError("contrast compares the tasks of a shard; it needs backend: vectorised")
        return self

    @property
    def compares_tasks(self) -> bool:
        """Whether there is a contrast."""
        return self.contrast is not None

    @property
    def shared_until(self) -> int:
        """The warm-up of a contrast: contents must not tell tasks apart."""
        return self.warmup_steps if self.compares_tasks else 0

    def mismatch(self, model: BaseModelSpec) -> str | None:
        """Returns why the learner cannot train a network; None if it can."""
        if self.compares_tasks and not model.describes:
            return "learner.contrast needs model: {kind: kdsr}, with an estimator"
        return super().mismatch(model)


class _FromImages(_Pooled):
    """What every learner has that learns from images, and from a teacher's features if it is given one."""

    distillation: Distillation | None = Field(None, exclude_if=lambda value: value is None)
    """Learns named features of a teacher, beside the images."""
    imitation: float | None = Field(None, ge=0, exclude_if=lambda value: value is None)
    """For a PISR teacher: weight of the mean absolute difference between its encoding and LR, which is logged. As
    published it is 1e-4; a larger one makes the decoder's input resemble what a student is given."""

    @model_validator(mode="after")
    def _warms_up_by_something(self) -> Self:
        if self.warmup_steps and self.contrast is None:
            raise ValueError("in the warmup_steps the estimator learns from the contrast alone; add contrast: {}")
        return self

    @model_validator(mode="after")
    def _one_addition(self) -> Self:
        added = [key for key in ("contrast", "distillation", "imitation") if getattr(self, key) is not None]
        if len(added) > 1:
            raise ValueError(f"{added[0]} and {added[1]} cannot be combined; leave one of them out")
        if added and self.backend != "vectorised":
            raise ValueError(f"{added[0]} needs backend: vectorised")
        return self

    @property
    def has_own_init(self) -> bool:
        """Whether it starts as its teacher."""
        return self.distillation is not None and self.distillation.initialise

    def mismatch(self, model: BaseModelSpec) -> str | None:
        """Returns why the learner cannot train a network; a teacher it can."""
        if self.imitation is not None and not model.encodes:
            return "learner.imitation compares an encoding of HR with LR; it needs model: {kind: pisr_teacher}"
        if self.distillation is not None and model.privileged:
            return f"learner.distillation is for students, and {model.teacher_key} is a teacher; leave it out"
        problem = super().mismatch(model)
        return None if problem and model.privileged and self.backend == "vectorised" else problem


class Pretrain(_FromImages):
    """Learns from support and query together: the task loss is L(θ; S∪Q)."""

    implementation: ClassVar[str] = "metarestore.learners.build:pretrain"

    kind: Annotated[Literal["pretrain"], Affects.BUILDING]


class Finetune(_FromImages):
    """Goes on from trained weights (`training.init`) with the loss of pre-training, L(θ; S∪Q)."""

    needs_init: ClassVar[bool] = True
    implementation: ClassVar[str] = "metarestore.learners.build:pretrain"

    kind: Annotated[Literal["finetune"], Affects.BUILDING]


class Distill(_Pooled):
    """Student stage of KDSR (Xia et al., 2023): the loss of pre-training, and the divergence from a teacher.

    The network must be `kdsr` with `estimator: student`; its restorer starts as the teacher's.
    """

    implementation: ClassVar[str] = "metarestore.learners.distill:DistillLearner.build"

    kind: Annotated[Literal["distill"], Affects.BUILDING]
    teacher: Annotated[NetworkPath, Affects.BUILDING]
    """The trained teacher: a run's folder or its model.safetensors (a relative path starts at the project's folder), or
    the name of a shipped network."""
    temperature: float = Field(0.15, gt=0)
    """τ of KL(softmax(D′ of the teacher / τ) ‖ softmax(D′ of the student / τ))."""
    weight: float = Field(1.0, ge=0)
    """Weight of the divergence beside the image loss."""
    backend: Literal["vectorised"] = "vectorised"

    @model_validator(mode="after")
    def _warms_up_by_something(self) -> Self:
        if self.warmup_steps and not self.weight and self.contrast is None:
            raise ValueError(
                "in the warmup_steps the estimator learns from the divergence and the contrast; give the divergence a "
                "weight, or add contrast: {}"
            )
        return self

    @property
    def has_own_init(self) -> bool:
        """It starts as its teacher."""
        return True

    def mismatch(self, model: BaseModelSpec) -> str | None:
        """Returns why the learner cannot train a network; None if it is a student."""
        if model.privileged or not model.describes:
            return "learner.kind: distill needs model: {kind: kdsr, estimator: student}"
        return super().mismatch(model)


class MAML(_MultiStepLoop):
    """Learns to adapt: the task loss is L(U^k(θ; S); Q), with second-order gradients."""

    first_order: ClassVar[bool] = False
    implementation: ClassVar[str] = "metarestore.learners.learner:MAMLLearner"

    kind: Annotated[Literal["maml"], Affects.BUILDING]


class FOMAML(_MultiStepLoop):
    """First-order MAML: the inner gradients are constants of the outer one."""

    first_order: ClassVar[bool] = True
    implementation: ClassVar[str] = "metarestore.learners.learner:MAMLLearner"

    kind: Annotated[Literal["fomaml"], Affects.BUILDING]


class MetaSGD(_MultiStepLoop):
    """Meta-SGD (Li et al., 2017): learns a rate for every parameter of the inner loop too; they start at `inner_lr`."""

    implementation: ClassVar[str] = "metarestore.learners.variants:MetaSGDLearner"

    kind: Annotated[Literal["meta_sgd"], Affects.BUILDING]
    first_order: bool = False
    """Whether the inner gradients are constants of the outer one."""


class ANIL(_MultiStepLoop):
    """ANIL (Raghu et al., 2020): MAML where only named parts of the network adapt; everything is learned."""

    implementation: ClassVar[str] = "metarestore.learners.build:anil"

    kind: Annotated[Literal["anil"], Affects.BUILDING]
    adapts: Annotated[tuple[str, ...], Affects.BUILDING] = Field(min_length=1)
    """Names or patterns of the parameters that adapt, in the inner loop and to the shots, e.g. `tail.*`."""
    first_order: bool = False
    """Whether the inner gradients are constants of the outer one."""


class Reptile(_InnerLoop):
    """Reptile (Nichol et al., 2018): a task's gradient is θ − U^k(θ; S∪Q)."""

    first_order: ClassVar[bool] = True
    implementation: ClassVar[str] = "metarestore.learners.variants:ReptileLearner"

    kind: Annotated[Literal["reptile"], Affects.BUILDING]
    inner_steps: int = Field(5, ge=1)


AnyLearnerSpec = Pretrain | MAML | FOMAML | MetaSGD | ANIL | Reptile | Finetune | Distill
"""The learners of this package."""

LEARNERS: Registry[BaseLearnerSpec] = Registry("metarestore.learners", BaseLearnerSpec, get_args(AnyLearnerSpec))
"""The specifications of all learners, by their kinds."""

LearnerSpec = Annotated[AnyLearnerSpec, Registered(LEARNERS)]
