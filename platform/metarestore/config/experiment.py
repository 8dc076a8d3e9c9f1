"""The model of an experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from metarestore.config.affects import SEVERAL, Affects
from metarestore.config.base import Strict
from metarestore.config.engine import EngineSpec, RayEngineSpec
from metarestore.config.graph import GraphSpec
from metarestore.config.learner import LearnerSpec
from metarestore.config.model import FSRCNNSpec, ModelSpec
from metarestore.config.network_path import NetworkPath
from metarestore.config.search import SearchParameter, TuningSpec

ArmName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class FolderDataSpec(Strict):
    """Folders of photographs (PNG, JPEG, BMP, TIFF, WebP) of any size."""

    train: Path
    """Photographs from which tasks are drawn; a relative path is resolved against the project's folder."""
    validation: Path | None = None
    """Photographs for validation during training."""
    test: Path | None = None
    """Photographs for the test metrics; required if the target is a synthetic distribution."""


class OptimizerSpec(Strict):
    """The outer optimizer."""

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning-rate schedule over the outer steps; `cosine` decays to `min_lr`."""
    min_lr: float = Field(0.0, ge=0)
    """Final learning rate of the cosine schedule."""
    warmup_steps: int = Field(0, ge=0)
    """Outer steps of linear warm-up to `lr`; the schedule starts after them."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of `sgd`."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay of `adamw`; learned inner learning rates are not decayed."""
    clip: float | None = Field(None, gt=0)
    """Maximum norm of the outer gradient."""

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> Self:
        if self.momentum and self.kind != "sgd":
            raise ValueError(f"momentum is only valid for kind: sgd, not for {self.kind}; remove it")
        if self.weight_decay and self.kind != "adamw":
            raise ValueError(f"weight_decay is only valid for kind: adamw, not for {self.kind}; remove it")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr must not be above lr ({self.lr:g}), got {self.min_lr:g}")
        return self


def _parts(count: int, size: int) -> set[int]:
    """Returns the distinct sizes of chunks when `count` items are split into chunks of `size`."""
    return {size, count % size or size} if count > size else {count}


class TrainingSpec(Strict):
    """The outer loop."""

    steps: Annotated[int, Affects.TRAINING] = Field(2000, ge=0)
    tasks_per_step: Annotated[int, Affects.TRAINING] = Field(8, ge=1)
    shard_size: Annotated[int, Affects.TRAINING] = Field(4, ge=1)
    """Tasks that a worker processes in one call; unlike the number of workers, it affects the result."""
    support: Annotated[int, Affects.TRAINING] = Field(5, ge=1)
    """Number of support patches of a task; not used for `support_set: internal`."""
    support_set: Annotated[Literal["patches", "internal"], Affects.TRAINING | Affects.OPENING] = Field(
        "patches", exclude_if=lambda value: value == "patches"
    )
    """Where the support set comes from: `support` patches of other photographs, degraded like the query patches; or
    internal pairs of the query patches themselves, each LR patch and the same patch degraded once more, from which
    zero-shot adaptation learns."""
    query: Annotated[int, Affects.TRAINING] = Field(5, ge=1)
    """Number of query patches of a task."""
    patch: Annotated[int, Affects.TRAINING | Affects.OPENING] = Field(64, ge=8)
    """Side of an HR patch, in pixels; a multiple of the scale."""
    distinct: Annotated[int | None, Affects.TRAINING] = Field(None, ge=1, exclude_if=lambda value: value is None)
    """Number of different tasks of a distribution, after which they repeat (a fixed set of crops); if omitted, every
    task is new."""
    source: Annotated[Literal["auxiliary", "target"], Affects.TRAINING] = "auxiliary"
    """Whether to learn from the auxiliary distributions, or only from the target's few shots (a baseline)."""
    shot_tasks: Annotated[int, Affects.TRAINING] = Field(0, ge=0)
    """Number of tasks per step that consist of patches of the target's shots, in addition to tasks of the auxiliary
    distributions; their weight is 1. If `source` is `target`, all tasks do."""
    optimizer: Annotated[OptimizerSpec, Affects.TRAINING] = OptimizerSpec()
    ema: Annotated[float | None, Affects.TRAINING] = Field(None, gt=0, lt=1)
    """Decay of the exponential moving average (EMA) of the parameters, e.g. 0.999; validation, adaptation and the saved
    network use the average."""
    init: Annotated[NetworkPath | None, Affects.TRAINING | Affects.BUILDING] = None
    """Trained network for initialisation, with any learner: a run's folder or its weights (relative to the project's
    folder), or the name of a shipped network."""
    precision: Annotated[Literal["float32", "bfloat16"], Affects.TRAINING] = "float32"
    """Precision of the network during training; bfloat16 is meant for GPUs and is used for the operations that autocast
    would lower. Parameters stay float32."""
    microbatch: Annotated[int | None, Affects.TRAINING] = Field(None, ge=1)
    """Number of tasks of a shard that are computed at once, for shards that do not fit into memory. Like `shard_size`,
    it affects the result: the last bits depend on the number of tasks that are computed at once."""
    sketch: Annotated[int | None, Affects.TRAINING] = Field(None, ge=1)
    """Dimension of the sketch of each task's gradient, e.g. 256; if set, the mean cosine similarity between the tasks
    of a step is logged."""
    validate_every: Annotated[int, Affects.TRAINING] = Field(250, ge=1)
    checkpoint_every: Annotated[int, Affects.TRAINING] = Field(250, ge=1)
    """Steps between checkpoints; a killed run loses at most this many steps."""
    keep: Annotated[int, Affects.NOTHING] = Field(1, ge=1)
    """Number of checkpoints to keep. The network with the best validation metric is also kept, as best.safetensors."""

    @model_validator(mode="after")
    def _shots_beside_others(self) -> Self:
        if self.shot_tasks >= self.tasks_per_step:
            raise ValueError(
                f"shot_tasks must be below tasks_per_step ({self.tasks_per_step}), got {self.shot_tasks}; "
                "to learn only from the shots, write source: target"
            )
        return self

    @model_validator(mode="after")
    def _internal_pairs_come_from_distributions(self) -> Self:
        if self.support_set == "internal" and (self.source == "target" or self.shot_tasks):
            raise ValueError(
                "support_set: internal degrades patches once more, but the degradation of shots is unknown; remove "
                "source: target and shot_tasks"
            )
        return self

    @property
    def fewest_together(self) -> int:
        """Smallest number of tasks of a step that are computed at once."""
        shards = _parts(self.tasks_per_step, self.shard_size)
        return min(part for shard in shards for part in _parts(shard, self.microbatch or shard))


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
        if any(one.optimizer != "adam" for one in methods):
            raise ValueError("method: teacher_student adapts by Adam; write optimizer: adam")
        if any(one.schedule != "cosine" for one in methods):
            raise ValueError("method: teacher_student decays both learning rates to 0; write schedule: cosine")
        return self


class EvaluationSpec(Strict):
    """Measurements on the target."""

    crop: Annotated[int, Affects.MEASUREMENT | Affects.OPENING] = Field(192, ge=32)
    """Side of an HR test crop, in pixels; a multiple of the scale."""
    crops: Annotated[int, Affects.MEASUREMENT | Affects.OPENING] = Field(4, ge=1)
    """Maximum number of crops per test photograph."""
    self_ensemble: Annotated[bool, Affects.MEASUREMENT] = False
    """Whether to restore every crop in all eight flipped and rotated orientations and average the results (geometric
    self-ensemble): more accurate, at eight times the cost."""
    every: Annotated[int, Affects.MEASUREMENT] = Field(1, ge=1)
    """Adaptation steps between measurements; the network is always measured before the first and after the last
    step."""


class Experiment(Strict):
    """One experiment: what is learned, from which data, and how it is measured."""

    seed: Annotated[int, Affects.TRAINING | Affects.COMPARISON] = Field(0, ge=0)
    scale: Annotated[Literal[2, 3, 4] | None, Affects.TRAINING | Affects.COMPARISON | Affects.OPENING] = None
    """Upscaling factor of all synthetic distributions, replacing the one in each task file."""
    data: Annotated[Literal["embedded"] | FolderDataSpec, Affects.TRAINING | Affects.COMPARISON | Affects.OPENING] = (
        "embedded"
    )
    graph: GraphSpec
    model: Annotated[ModelSpec, Affects.TRAINING | Affects.BUILDING] = FSRCNNSpec()
    learner: Annotated[LearnerSpec, Affects.TRAINING]
    training: TrainingSpec = TrainingSpec()
    adaptation: AdaptationSpec = AdaptationSpec()
    evaluation: Annotated[EvaluationSpec, Affects.COMPARISON] = EvaluationSpec()
    engine: EngineSpec = RayEngineSpec(kind="ray")
    arms: Annotated[dict[ArmName, dict[str, Any]], Affects.COMPARE | Affects.ABLATE] = Field({})
    """Named variants (arms) for `metarestore compare`: each is a patch of this file. A mapping with a different `kind`
    replaces that of the file; every other mapping is merged key by key."""
    search: Annotated[dict[str, SearchParameter], Affects.TUNE] = Field({})
    """The search space of `metarestore tune`: key paths of this file, as in `--set`, with ranges or choices."""
    tuning: Annotated[TuningSpec, Affects.TUNE] = TuningSpec()
    """Options of `metarestore tune`."""
    grid: Annotated[dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]], Affects.ABLATE] = Field({})
    """Axes of `metarestore ablate`: key paths of this file, as in `--set`, with lists of values. Every arm is run with
    every combination. A mapping is named by its `kind`, or by a key `label`, which is not part of the value.
    """
    grid_exclude: Annotated[tuple[Annotated[dict[str, Any], Field(min_length=1)], ...], Affects.ABLATE] = ()
    """Combinations to exclude from the grid: values (or lists of values) of `arm` and of axes, which must all match."""

    @model_validator(mode="after")
    def _a_teacher_and_a_student_begin_anew(self) -> Self:
        untrained = self.training.steps == 0 and self.training.init is None
        if self.adaptation.method == "teacher_student" and not (self.model.kind == "zero_shot" and untrained):
            raise ValueError(
                "adaptation.method: teacher_student learns new weights for each crop; write model: {kind: zero_shot} "
                "and training: {steps: 0}, without init"
            )
        return self

    @model_validator(mode="after")
    def _learner_and_training_fit(self) -> Self:
        if self.learner.needs_init and self.training.init is None:
            raise ValueError(
                f"learner.kind: {self.learner.kind} requires training.init: a run's folder or its model.safetensors"
            )
        if self.training.precision != "float32" and self.learner.backend != "vectorised":
            raise ValueError("training.precision: bfloat16 requires learner.backend: vectorised")
        return self

    @model_validator(mode="after")
    def _patches_fit_the_shots(self) -> Self:
        from_shots = self.training.source == "target" or self.training.shot_tasks
        if from_shots and self.training.patch > self.adaptation.shot_size:
            raise ValueError(
                f"training.patch: patches are cut from the shots, whose adaptation.shot_size is "
                f"{self.adaptation.shot_size}; lower it, got {self.training.patch}"
            )
        return self

    @model_validator(mode="after")
    def _learner_fits_the_network(self) -> Self:
        if problem := self.learner.mismatch(self.model):
            raise ValueError(problem)
        if self.learner.has_own_init and self.training.init is not None:
            raise ValueError(f"training.init: learner.kind: {self.learner.kind} starts from its teacher; remove init")
        return self

    @model_validator(mode="after")
    def _contrast_compares_tasks(self) -> Self:
        if not self.learner.compares_tasks:
            return self
        if self.training.source == "target":
            raise ValueError("learner.contrast compares distributions; training.source: target has only one")
        if self.training.shot_tasks:
            raise ValueError("learner.contrast compares synthetic tasks on the same patches; remove shot_tasks")
        if self.training.fewest_together < 2:
            raise ValueError(
                "learner.contrast compares tasks that are computed together; training.tasks_per_step, shard_size and "
                "microbatch must be at least 2 and must not leave a group of a single task"
            )
        return self

    @model_validator(mode="after")
    def _inner_weights_need_inner_steps(self) -> Self:
        acts_on = self.graph.weights.acts_on if isinstance(self.graph, GraphSpec) else "gradients"
        if acts_on in ("inner", "both") and not self.learner.has_inner_loop:
            raise ValueError(
                f"graph.weights.acts_on: {acts_on} scales inner learning rates, but learner.kind: "
                f"{self.learner.kind} has no inner loop; write gradients or sampling"
            )
        return self

    @model_validator(mode="after")
    def _internal_pairs_need_a_query_loss(self) -> Self:
        if self.training.support_set == "internal" and not self.learner.has_query_loss:
            raise ValueError(
                f"training.support_set: internal is what inner steps learn from, but learner.kind: {self.learner.kind} "
                "learns from support and query together; remove it, or choose a meta-learner, e.g. maml"
            )
        return self

    @property
    def shared_until(self) -> int:
        """Outer step before which all tasks of a step degrade the same clean patches."""
        return self.learner.shared_until

    @model_validator(mode="after")
    def _teacher_is_only_trained(self) -> Self:
        """Rejects settings that would require a teacher to restore images without HR."""
        if not self.model.privileged:
            return self
        wrong = f"{self.model.teacher_key} restores from the HR images themselves"
        if self.evaluation.self_ensemble:
            raise ValueError(f"{wrong}, which are not flipped and rotated with LR; remove evaluation.self_ensemble")
        if self.adaptation.steps or self.adaptation.alternatives:
            raise ValueError(f"{wrong} and cannot adapt; write adaptation: {{steps: 0}}, without alternatives")
        if isinstance(self.graph, GraphSpec) and self.graph.estimator.kind == "transfer":
            raise ValueError(f"{wrong} and cannot adapt; choose another graph.estimator than transfer")
        return self

    @model_validator(mode="after")
    def _arm_names_are_unique(self) -> Self:
        folded = [name.casefold() for name in self.arms]
        for name, low in zip(self.arms, folded, strict=True):
            if low == "bicubic":
                raise ValueError(f"the arm name '{name}' is reserved (bicubic is always measured); choose another")
            if folded.count(low) > 1:
                raise ValueError(f"the arm '{name}' differs from another arm only in case; rename it")
        return self


MANY = tuple(key for key, field in Experiment.model_fields.items() if (Affects.of(field) or Affects.NOTHING) & SEVERAL)
"""Sections that describe several experiments; they are removed from a single experiment."""


class ExperimentFile(Experiment):
    """An experiment as written in its file: its graph may be the name of a graph file."""

    graph: str | GraphSpec  # type: ignore[assignment]
    """Name of a file in `graphs/`, or the graph itself."""
