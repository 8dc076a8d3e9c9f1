"""Options of the learners: one model per kind."""

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


class MultiStepSpec(Strict):
    """Computes the query loss after every inner step instead of only the last one (Antoniou et al., MAML++, 2019)."""

    weights: Literal["annealed", "uniform"] | tuple[StepWeight, ...] = "annealed"
    """Weights of the query losses of the inner steps: annealed from equal weights to (nearly) only the last step,
    uniform, or one number per inner step, normalised by their sum."""
    steps: float = Field(3333.0, gt=0)
    """For `annealed`: outer steps over which the weights of all steps but the last would decay to 0."""
    floor: float = Field(0.03, ge=0, le=1)
    """For `annealed`: the fraction of its initial weight below which the weight of a step does not fall."""


class BaseLearnerSpec(Implemented):
    """What every learner has, and what it can do.

    `implementation` takes the specification, the network and its arithmetic, and returns a
    `metarestore.learners.learner.Learner`.
    """

    has_inner_loop: ClassVar[bool] = False
    """Whether the learner adapts to the support set of each task."""
    has_query_loss: ClassVar[bool] = False
    """Whether the outer loss is that of the query set alone, after adaptation to the support set."""
    needs_init: ClassVar[bool] = False
    """Whether the learner requires trained weights, `training.init`."""
    loss: LossName = "l1"
    """Loss of restored images, of the outer loop and (unless `inner_loss` is set) of the inner loop."""
    charbonnier_eps: float = Field(1e-3, gt=0)
    """ε of the Charbonnier loss √(d² + ε²), for images in 0..1."""
    backend: Literal["vectorised", "learn2learn"] = "vectorised"

    @property
    def has_own_init(self) -> bool:
        """Whether the learner provides its own initial weights."""
        return False

    @property
    def compares_tasks(self) -> bool:
        """Whether the loss of a task depends on the other tasks of its shard."""
        return False

    @property
    def shared_until(self) -> int:
        """Outer step up to which all tasks of a step degrade the same clean patches."""
        return 0

    def mismatch(self, model: BaseModelSpec) -> str | None:
        """Returns why the learner cannot train a network, with a suggestion; None if it can."""
        if model.privileged:
            return (
                f"{model.teacher_key} restores from the HR images themselves; train it with learner: "
                "{kind: pretrain} (vectorised)"
            )
        return None


class _InnerLoop(BaseLearnerSpec):
    """Options of learners that adapt to the support set."""

    has_inner_loop: ClassVar[bool] = True

    inner_steps: int = Field(1, ge=1)
    inner_lr: float = Field(1e-2, gt=0)
    inner_loss: LossName | None = None
    """Loss of the inner steps and of the adaptation to the shots; defaults to the outer loss."""
    inner_clip: float | None = Field(None, gt=0)
    """Maximum norm of the gradient of an inner step, and of an SGD step on the shots."""


class _MultiStepLoop(_InnerLoop):
    """Options of learners whose outer loss is the loss of the query set."""

    has_query_loss: ClassVar[bool] = True

    multi_step: MultiStepSpec | None = None

    @model_validator(mode="after")
    def _one_weight_per_step(self) -> Self:
        weights = self.multi_step.weights if self.multi_step else "uniform"
        if isinstance(weights, tuple) and (len(weights) != self.inner_steps or not sum(weights)):
            raise ValueError(
                f"multi_step.weights must be {self.inner_steps} numbers (one per inner step), not all 0, "
                f"got {list(weights)}"
            )
        return self


class ContrastSpec(Strict):
    """Supervised contrastive loss of the embeddings D′: images of one task attract, others repel (Khosla et al., 2020).

    The tasks of a shard are compared with each other. During `warmup_steps` all tasks of a step degrade the same clean
    patches, so that they cannot be distinguished by image content.
    """

    weight: float = Field(0.03, gt=0)
    """Weight of the contrastive loss relative to the image loss."""
    temperature: float = Field(0.2, gt=0)
    """Temperature: divisor of the cosine similarity of two embeddings."""


class FeatureLossSpec(Strict):
    """A loss between named features of a student and of its teacher (the network defines the names)."""

    layers: tuple[str, ...] | dict[str, str] = Field(("expanding",), min_length=1)
    """Features to compare; a mapping assigns a feature of the teacher to each feature of the student."""
    loss: Literal["vid_laplace", "vid_gaussian", "l2", "attention"] = "vid_laplace"
    """Variational information distillation with a Laplace or Gaussian density (Ahn et al., 2019), the mean squared
    difference (through a learned 1×1 convolution if the numbers of channels differ), or the mean squared difference of
    attention maps (Zagoruyko and Komodakis, 2017)."""
    weight: float = Field(1e-6, ge=0)
    """Weight of the mean over the layers relative to the image loss; at 0 the loss is not computed."""

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Pairs of features: (student, teacher)."""
        if isinstance(self.layers, dict):
            return tuple(self.layers.items())
        return tuple((layer, layer) for layer in self.layers)


class DistillationSpec(FeatureLossSpec):
    """Distillation of named features of a frozen teacher, which may receive the HR images."""

    teacher: NetworkPath
    """The trained teacher: a run's folder or its model.safetensors (relative to the project's folder), or the name of a
    shipped network."""
    initialise: bool = True
    """Whether the student is initialised with the weights of the teacher, or of the teacher's decoder if it has one."""
    also: tuple[FeatureLossSpec, ...] = ()
    """Additional losses, which are added to the first one."""
    cache: int = Field(0, ge=0, exclude_if=lambda value: value == 0)
    """Memory in MiB for the teacher's features in every worker, useful if tasks repeat (`training.distinct`)."""

    @property
    def losses(self) -> tuple[FeatureLossSpec, ...]:
        """The losses whose weight is not 0."""
        return tuple(loss for loss in (self, *self.also) if loss.weight)


class _Pooled(BaseLearnerSpec):
    """Options of learners that use support and query together."""

    contrast: ContrastSpec | None = None
    """For KDSR: trains the degradation encoder to distinguish tasks, for use as descriptors; if omitted, it learns from
    restoration only."""
    warmup_steps: int = Field(0, ge=0)
    """Initial outer steps in which only KDSR's degradation encoder is trained, by the contrastive loss and the
    teacher."""

    @model_validator(mode="after")
    def _contrast_is_vectorised(self) -> Self:
        if self.contrast is not None and self.backend != "vectorised":
            raise ValueError("contrast compares the tasks of a shard; it requires backend: vectorised")
        return self

    @property
    def compares_tasks(self) -> bool:
        """Whether there is a contrastive loss."""
        return self.contrast is not None

    @property
    def shared_until(self) -> int:
        """The warm-up of a contrastive loss, during which image content must not distinguish tasks."""
        return self.warmup_steps if self.compares_tasks else 0

    def mismatch(self, model: BaseModelSpec) -> str | None:
        """Returns why the learner cannot train a network; None if it can."""
        if self.compares_tasks and not model.describes:
            return "learner.contrast requires model: {kind: kdsr}, with an estimator"
        return super().mismatch(model)


class _FromImages(_Pooled):
    """Options of learners that learn from images, and optionally from the features of a teacher."""

    distillation: DistillationSpec | None = Field(None, exclude_if=lambda value: value is None)
    """Distillation of named features of a teacher, in addition to the image loss."""
    imitation: float | None = Field(None, ge=0, exclude_if=lambda value: value is None)
    """For a PISR teacher: weight of the mean absolute difference between its encoding and LR, which is also logged. The
    published value is 1e-4; a larger one makes the input of the decoder more similar to the input of a student."""

    @model_validator(mode="after")
    def _warm_up_has_a_loss(self) -> Self:
        if self.warmup_steps and self.contrast is None:
            raise ValueError("in the warmup_steps the estimator learns from the contrast only; add contrast: {}")
        return self

    @model_validator(mode="after")
    def _one_addition(self) -> Self:
        added = [key for key in ("contrast", "distillation", "imitation") if getattr(self, key) is not None]
        if len(added) > 1:
            raise ValueError(f"{added[0]} and {added[1]} cannot be combined; remove one of them")
        if added and self.backend != "vectorised":
            raise ValueError(f"{added[0]} requires backend: vectorised")
        return self

    @property
    def has_own_init(self) -> bool:
        """Whether the student is initialised from its teacher."""
        return self.distillation is not None and self.distillation.initialise

    def mismatch(self, model: BaseModelSpec) -> str | None:
        """Returns why the learner cannot train a network; None if it can, which includes teachers."""
        if self.imitation is not None and not model.encodes:
            return "learner.imitation compares an encoding of HR with LR; it requires model: {kind: pisr_teacher}"
        if self.distillation is not None and model.privileged:
            return f"learner.distillation is for students, but {model.teacher_key} is a teacher; remove it"
        problem = super().mismatch(model)
        return None if problem and model.privileged and self.backend == "vectorised" else problem


class PretrainSpec(_FromImages):
    """Learns from support and query together: the task loss is L(θ; S∪Q)."""

    implementation: ClassVar[str] = "metarestore.learners.build:pretrain"

    kind: Annotated[Literal["pretrain"], Affects.BUILDING]


class FinetuneSpec(_FromImages):
    """Continues from trained weights (`training.init`) with the pre-training loss, L(θ; S∪Q)."""

    needs_init: ClassVar[bool] = True
    implementation: ClassVar[str] = "metarestore.learners.build:pretrain"

    kind: Annotated[Literal["finetune"], Affects.BUILDING]


class DistillSpec(_Pooled):
    """Student stage of KDSR (Xia et al., 2023): the pre-training loss plus the divergence from a teacher.

    The network must be `kdsr` with `estimator: student`; its restorer is initialised from the teacher.
    """

    implementation: ClassVar[str] = "metarestore.learners.distill:DistillLearner.build"

    kind: Annotated[Literal["distill"], Affects.BUILDING]
    teacher: Annotated[NetworkPath, Affects.BUILDING]
    """The trained teacher: a run's folder or its model.safetensors (relative to the project's folder), or the name of a
    shipped network."""
    temperature: float = Field(0.15, gt=0)
    """τ of KL(softmax(D′ of the teacher / τ) ‖ softmax(D′ of the student / τ))."""
    weight: float = Field(1.0, ge=0)
    """Weight of the divergence relative to the image loss."""
    backend: Literal["vectorised"] = "vectorised"

    @model_validator(mode="after")
    def _warm_up_has_a_loss(self) -> Self:
        if self.warmup_steps and not self.weight and self.contrast is None:
            raise ValueError(
                "in the warmup_steps the estimator learns from the divergence and the contrast; give the divergence a "
                "weight, or add contrast: {}"
            )
        return self

    @property
    def has_own_init(self) -> bool:
        """The student is initialised from its teacher."""
        return True

    def mismatch(self, model: BaseModelSpec) -> str | None:
        """Returns why the learner cannot train a network; None if it is a student."""
        if model.privileged or not model.describes:
            return "learner.kind: distill requires model: {kind: kdsr, estimator: student}"
        return super().mismatch(model)


class MAMLSpec(_MultiStepLoop):
    """Learns to adapt: the task loss is L(U^k(θ; S); Q), with second-order gradients."""

    first_order: ClassVar[bool] = False
    implementation: ClassVar[str] = "metarestore.learners.learner:MAMLLearner"

    kind: Annotated[Literal["maml"], Affects.BUILDING]


class FOMAMLSpec(_MultiStepLoop):
    """First-order MAML: inner gradients are treated as constants in the outer gradient."""

    first_order: ClassVar[bool] = True
    implementation: ClassVar[str] = "metarestore.learners.learner:MAMLLearner"

    kind: Annotated[Literal["fomaml"], Affects.BUILDING]


class MetaSGDSpec(_MultiStepLoop):
    """Meta-SGD (Li et al., 2017): also learns an inner learning rate for every parameter, initialised to `inner_lr`."""

    implementation: ClassVar[str] = "metarestore.learners.variants:MetaSGDLearner"

    kind: Annotated[Literal["meta_sgd"], Affects.BUILDING]
    first_order: bool = False
    """Whether inner gradients are treated as constants in the outer gradient."""


class ANILSpec(_MultiStepLoop):
    """ANIL (Raghu et al., 2020): MAML in which only selected parameters adapt; all parameters are meta-learned."""

    implementation: ClassVar[str] = "metarestore.learners.build:anil"

    kind: Annotated[Literal["anil"], Affects.BUILDING]
    adapts: Annotated[Literal["tail", "norms"] | Annotated[tuple[str, ...], Field(min_length=1)], Affects.BUILDING]
    """The parameters that adapt, in the inner loop and to the shots: `tail`, those of the last layer; `norms`, those of
    the normalisation layers; or names or glob patterns, e.g. `[tail.*]`."""
    first_order: bool = False
    """Whether inner gradients are treated as constants in the outer gradient."""


class ReptileSpec(_InnerLoop):
    """Reptile (Nichol et al., 2018): a task's gradient is θ − U^k(θ; S∪Q)."""

    first_order: ClassVar[bool] = True
    implementation: ClassVar[str] = "metarestore.learners.variants:ReptileLearner"

    kind: Annotated[Literal["reptile"], Affects.BUILDING]
    inner_steps: int = Field(5, ge=1)


AnyLearnerSpec = (
    PretrainSpec | MAMLSpec | FOMAMLSpec | MetaSGDSpec | ANILSpec | ReptileSpec | FinetuneSpec | DistillSpec
)
"""The learners of this package."""

LEARNERS: Registry[BaseLearnerSpec] = Registry("metarestore.learners", BaseLearnerSpec, get_args(AnyLearnerSpec))
"""The specifications of all learners, by their kinds."""

LearnerSpec = Annotated[AnyLearnerSpec, Registered(LEARNERS)]
