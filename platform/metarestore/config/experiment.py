"""What an experiment file may say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from metarestore.config.affects import SEVERAL, Affects
from metarestore.config.base import Strict
from metarestore.config.graph import GraphSpec
from metarestore.config.learner import LearnerSpec
from metarestore.config.model import FSRCNNModel, ModelSpec
from metarestore.config.network_path import NetworkPath
from metarestore.config.search import SearchParameter, Tuning

ArmName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class FolderData(Strict):
    """Folders of photographs (PNG, JPEG, BMP, TIFF, WebP), of any size."""

    train: Path
    """Photographs that tasks are drawn from; a relative path starts at the project's folder."""
    validation: Path | None = None
    """Photographs for the validation figures during training."""
    test: Path | None = None
    """Photographs for the test figures; needed when the target is a synthetic distribution."""


class OptimizerSpec(Strict):
    """The outer optimizer."""

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = Field(1e-3, gt=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    """The rate over the outer steps; cosine falls to `min_lr`."""
    min_lr: float = Field(0.0, ge=0)
    """Where the cosine ends."""
    warmup_steps: int = Field(0, ge=0)
    """Outer steps over which the rate rises linearly to `lr`; the schedule begins after them."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of `sgd`."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay of `adamw`; learned inner rates do not decay."""
    clip: float | None = Field(None, gt=0)
    """Largest norm of the outer gradient."""

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> Self:
        if self.momentum and self.kind != "sgd":
            raise ValueError(f"momentum is for kind: sgd, not for {self.kind}; leave it out")
        if self.weight_decay and self.kind != "adamw":
            raise ValueError(f"weight_decay is for kind: adamw, not for {self.kind}; leave it out")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr must not be above lr ({self.lr:g}), got {self.min_lr:g}")
        return self


def _parts(count: int, size: int) -> set[int]:
    """Returns the sizes of the parts of `count` things that are cut off `size` at a time."""
    return {size, count % size or size} if count > size else {count}


class Training(Strict):
    """The outer loop."""

    steps: Annotated[int, Affects.TRAINING] = Field(2000, ge=0)
    tasks_per_step: Annotated[int, Affects.TRAINING] = Field(8, ge=1)
    shard_size: Annotated[int, Affects.TRAINING] = Field(4, ge=1)
    """Tasks that one worker takes in one call; part of the result's definition, unlike the number of workers."""
    support: Annotated[int, Affects.TRAINING] = Field(5, ge=1)
    """Support patches of a task."""
    query: Annotated[int, Affects.TRAINING] = Field(5, ge=1)
    """Query patches of a task."""
    patch: Annotated[int, Affects.TRAINING | Affects.OPENING] = Field(64, ge=8)
    """Side of an HR patch, in pixels; a multiple of the scale."""
    source: Annotated[Literal["auxiliary", "target"], Affects.TRAINING] = "auxiliary"
    """Learn from the auxiliary distributions, or from the target's few shots alone (a baseline)."""
    shot_tasks: Annotated[int, Affects.TRAINING] = Field(0, ge=0)
    """How many of the tasks of a step are patches of the target's shots, beside the auxiliary distributions; their
    weight is 1. Where `source` is target, all are."""
    optimizer: Annotated[OptimizerSpec, Affects.TRAINING] = OptimizerSpec()
    ema: Annotated[float | None, Affects.TRAINING] = Field(None, gt=0, lt=1)
    """Decay of a running mean of the parameters, e.g. 0.999; validation, adaptation and the saved network use it."""
    init: Annotated[NetworkPath | None, Affects.TRAINING | Affects.BUILDING] = None
    """Trained network to start from, for any learner: a run's folder or its weights (a relative path starts at the
    project's folder), or the name of a shipped network."""
    precision: Annotated[Literal["float32", "bfloat16"], Affects.TRAINING] = "float32"
    """Arithmetic of the network in training; bfloat16 is for GPUs, and for what autocast would lower. Parameters stay
    float32."""
    microbatch: Annotated[int | None, Affects.TRAINING] = Field(None, ge=1)
    """Tasks of a shard that are computed at once, for shards that do not fit the memory. Part of the result's
    definition like `shard_size`: the last bits depend on how many tasks are computed at once."""
    sketch: Annotated[int | None, Affects.TRAINING] = Field(None, ge=1)
    """Size of the sketch of each task's gradient, e.g. 256: the mean cosine between the tasks of a step is logged."""
    validate_every: Annotated[int, Affects.TRAINING] = Field(250, ge=1)
    checkpoint_every: Annotated[int, Affects.TRAINING] = Field(250, ge=1)
    """Steps between two checkpoints; a run that is killed loses at most so many."""
    keep: Annotated[int, Affects.NOTHING] = Field(1, ge=1)
    """Checkpoints that are kept. The network with the best validation figure is kept besides, as best.safetensors."""

    @model_validator(mode="after")
    def _shots_beside_others(self) -> Self:
        if self.shot_tasks >= self.tasks_per_step:
            raise ValueError(
                f"shot_tasks must leave some of the {self.tasks_per_step} tasks_per_step to the auxiliary "
                f"distributions, got {self.shot_tasks}; to learn from the shots alone write source: target"
            )
        return self

    @property
    def fewest_together(self) -> int:
        """Smallest number of tasks of a step that are computed at once."""
        shards = _parts(self.tasks_per_step, self.shard_size)
        return min(part for shard in shards for part in _parts(shard, self.microbatch or shard))


class AdaptationOptimizer(Strict):
    """One way to adapt to the shots."""

    optimizer: Annotated[Literal["adam", "sgd"], Affects.RELATIONS | Affects.MEASUREMENT] = "adam"
    steps: Annotated[int, Affects.RELATIONS | Affects.MEASUREMENT] = Field(100, ge=0)
    lr: Annotated[float, Affects.RELATIONS | Affects.MEASUREMENT] = Field(3e-4, gt=0)
    schedule: Annotated[Literal["constant", "cosine"], Affects.RELATIONS | Affects.MEASUREMENT] = "constant"
    """The rate over the steps; cosine falls to 0."""
    patch: Annotated[int | None, Affects.RELATIONS | Affects.MEASUREMENT | Affects.OPENING] = Field(None, ge=8)
    """Side of the HR patches, cut at random from the shots, turned and mirrored, that a step learns from; a multiple of
    the scale. Leave it out to learn from all shots as they are in every step."""
    batch: Annotated[int, Affects.RELATIONS | Affects.MEASUREMENT] = Field(8, ge=1)
    """Patches of a step."""


class Adaptation(AdaptationOptimizer):
    """Few-shot adaptation to the target's support pairs."""

    shots: Annotated[int, Affects.TRAINING | Affects.SHOTS | Affects.OPENING] = Field(5, ge=1)
    """Real pairs that may be learned from."""
    shot_size: Annotated[int, Affects.TRAINING | Affects.SHOTS | Affects.OPENING] = Field(192, ge=32)
    """Side of a shot, in HR pixels; a multiple of the scale."""
    off_colour_shots: Annotated[Literal["leave_out", "keep"], Affects.TRAINING | Affects.SHOTS] = "leave_out"
    """Real pairs whose colour or brightness changes from LR to HR unlike that of the other shots (by 7% between the
    channels, or by 15% in all of them) are named; leave_out: nothing learns from them."""
    alternatives: Annotated[tuple[AdaptationOptimizer, ...], Affects.MEASUREMENT] = ()
    """Other ways to adapt, reported beside the main one."""

    @model_validator(mode="after")
    def _patches_fit_the_shots(self) -> Self:
        ways: tuple[AdaptationOptimizer, ...] = (self, *self.alternatives)
        for how in ways:
            if how.patch is not None and how.patch > self.shot_size:
                raise ValueError(f"patch must not be above shot_size ({self.shot_size}), got {how.patch}")
            if how.patch is None and how.batch != AdaptationOptimizer.model_fields["batch"].default:
                raise ValueError("batch counts patches; write patch, too, or leave batch out")
        return self


class Evaluation(Strict):
    """Which figures are taken on the target."""

    crop: Annotated[int, Affects.MEASUREMENT | Affects.OPENING] = Field(192, ge=32)
    """Side of an HR test crop, in pixels; a multiple of the scale."""
    crops: Annotated[int, Affects.MEASUREMENT | Affects.OPENING] = Field(4, ge=1)
    """Largest number of crops of one test photograph."""
    self_ensemble: Annotated[bool, Affects.MEASUREMENT] = False
    """Restore every crop in the eight orientations of the square and take the mean of the results turned back: better,
    and eight times the work."""
    every: Annotated[int, Affects.MEASUREMENT] = Field(1, ge=1)
    """Adaptation steps between two measurements; the network is always measured before the first and after the last."""


class LocalEngine(Strict):
    """Computes in this process, on one thread."""

    kind: Annotated[Literal["local"], Affects.NOTHING]


class RayEngine(Strict):
    """Computes on Ray actors, one thread each."""

    kind: Annotated[Literal["ray"], Affects.NOTHING]
    workers: Annotated[int | Literal["auto"], Affects.NOTHING] = "auto"
    """Number of actors; auto: one per core of the cluster, or per share of a GPU, and more when machines join."""
    address: Annotated[str | None, Affects.NOTHING] = None
    """A running cluster: `auto` on one of its machines, `host:6379`, or `ray://host:10001` from elsewhere; leave it out
    to start a local one."""
    cpus_per_worker: Annotated[float, Affects.NOTHING] = Field(1.0, gt=0)
    """CPUs that a worker reserves; 0.5 places two workers on each core."""
    gpus_per_worker: Annotated[float, Affects.NOTHING] = Field(0.0, ge=0)
    """GPUs that a worker reserves; a fraction also limits the worker to that share of the GPU's memory."""
    placement: Annotated[Literal["pack", "spread"], Affects.NOTHING] = "pack"
    """Fill machines one after the other, or spread workers over all machines."""
    reduction: Annotated[Literal["driver", "tree"], Affects.NOTHING] = "driver"
    """Where gradients are summed: the driver fetches one per task, or workers sum them among themselves and the driver
    fetches one per step, for large networks on many machines. Both give the same bytes."""
    max_restarts: Annotated[int, Affects.NOTHING] = Field(3, ge=-1)
    """How often a lost worker is started again; -1: always."""

    @model_validator(mode="after")
    def _some_worker(self) -> Self:
        if self.workers != "auto" and self.workers < 1:
            raise ValueError(f"workers must be auto or at least 1, got {self.workers}")
        return self


EngineSpec = Annotated[LocalEngine | RayEngine, Field(discriminator="kind")]


class Experiment(Strict):
    """One study: what is learned, from what, and how it is measured."""

    seed: Annotated[int, Affects.TRAINING | Affects.COMPARISON] = Field(0, ge=0)
    scale: Annotated[Literal[2, 3, 4] | None, Affects.TRAINING | Affects.COMPARISON | Affects.OPENING] = None
    """Upscaling factor of all synthetic distributions, in place of the one in each task file."""
    data: Annotated[Literal["embedded"] | FolderData, Affects.TRAINING | Affects.COMPARISON | Affects.OPENING] = (
        "embedded"
    )
    graph: GraphSpec
    model: Annotated[ModelSpec, Affects.TRAINING | Affects.BUILDING] = FSRCNNModel()
    learner: Annotated[LearnerSpec, Affects.TRAINING]
    training: Training = Training()
    adaptation: Adaptation = Adaptation()
    evaluation: Annotated[Evaluation, Affects.COMPARISON] = Evaluation()
    engine: EngineSpec = RayEngine(kind="ray")
    arms: Annotated[dict[ArmName, dict[str, Any]], Affects.COMPARE | Affects.ABLATE] = Field({})
    """Named variants for `metarestore compare`: each is a patch of this file. A mapping whose `kind` differs from the
    file's replaces it; every other mapping is merged key by key."""
    search: Annotated[dict[str, SearchParameter], Affects.TUNE] = Field({})
    """The space of `metarestore tune`: key paths of this file, as `--set` takes them, with ranges or choices."""
    tuning: Annotated[Tuning, Affects.TUNE] = Tuning()
    """How `metarestore tune` searches."""
    grid: Annotated[dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]], Affects.ABLATE] = Field({})
    """Axes of `metarestore ablate`: key paths of this file, as `--set` takes them, with lists of values. Every arm is
    run with every combination. A mapping is called by its `kind`, or by a `label` in it, which is no part of the value.
    """
    grid_exclude: Annotated[tuple[Annotated[dict[str, Any], Field(min_length=1)], ...], Affects.ABLATE] = ()
    """Combinations that are left out of the grid: values, or lists of some, of `arm` and of axes; all must fit."""

    @model_validator(mode="after")
    def _learner_and_training_fit(self) -> Self:
        if self.learner.needs_init and self.training.init is None:
            raise ValueError(
                f"learner.kind: {self.learner.kind} needs training.init: a run's folder or its model.safetensors"
            )
        if self.training.precision != "float32" and self.learner.backend != "vectorised":
            raise ValueError("training.precision: bfloat16 needs learner.backend: vectorised")
        return self

    @model_validator(mode="after")
    def _patches_fit_the_shots(self) -> Self:
        from_shots = self.training.source == "target" or self.training.shot_tasks
        if from_shots and self.training.patch > self.adaptation.shot_size:
            raise ValueError(
                f"training.patch: patches are cut from the shots, whose adaptation.shot_size is "
                f"{self.adaptation.shot_size}; write no more, got {self.training.patch}"
            )
        return self

    @model_validator(mode="after")
    def _learner_fits_the_network(self) -> Self:
        if problem := self.learner.mismatch(self.model):
            raise ValueError(problem)
        if self.learner.has_own_init and self.training.init is not None:
            raise ValueError(
                f"training.init: learner.kind: {self.learner.kind} starts from its teacher; leave init out"
            )
        return self

    @model_validator(mode="after")
    def _a_contrast_has_two_sides(self) -> Self:
        if not self.learner.compares_tasks:
            return self
        if self.training.source == "target":
            raise ValueError("learner.contrast compares distributions; training.source: target has only one")
        if self.training.shot_tasks:
            raise ValueError("learner.contrast compares synthetic tasks on the same patches; leave shot_tasks out")
        if self.training.fewest_together < 2:
            raise ValueError(
                "learner.contrast compares tasks that are computed together; training.tasks_per_step, shard_size and "
                "microbatch must be at least 2, and leave no task alone when they divide each other"
            )
        return self

    @model_validator(mode="after")
    def _inner_weights_need_inner_steps(self) -> Self:
        acts_on = self.graph.weights.acts_on if isinstance(self.graph, GraphSpec) else "gradients"
        if acts_on in ("inner", "both") and not self.learner.has_inner_loop:
            raise ValueError(
                f"graph.weights.acts_on: {acts_on} scales inner rates, which learner.kind: {self.learner.kind} lacks; "
                "write gradients or sampling"
            )
        return self

    @property
    def shared_until(self) -> int:
        """Outer step before which all tasks of a step degrade the same clean patches."""
        return self.learner.shared_until

    @model_validator(mode="after")
    def _a_teacher_only_learns(self) -> Self:
        """Refuses what would have to restore without HR images."""
        if not self.model.privileged:
            return self
        wrong = f"{self.model.teacher_key} restores from the HR images themselves"
        if self.evaluation.self_ensemble:
            raise ValueError(f"{wrong}, which are not turned with LR; leave evaluation.self_ensemble out")
        if self.adaptation.steps or self.adaptation.alternatives:
            raise ValueError(f"{wrong} and cannot adapt; write adaptation: {{steps: 0}}, without alternatives")
        if isinstance(self.graph, GraphSpec) and self.graph.estimator.kind == "transfer":
            raise ValueError(f"{wrong} and cannot adapt; choose another graph.estimator than transfer")
        return self

    @model_validator(mode="after")
    def _arms_have_names_of_their_own(self) -> Self:
        folded = [name.casefold() for name in self.arms]
        for name, low in zip(self.arms, folded, strict=True):
            if low == "bicubic":
                raise ValueError(f"the arm '{name}' cannot have this name: bicubic is always measured; choose another")
            if folded.count(low) > 1:
                raise ValueError(f"the arm '{name}' differs from another only in upper and lower case; rename it")
        return self


MANY = tuple(key for key, field in Experiment.model_fields.items() if (Affects.of(field) or Affects.NOTHING) & SEVERAL)
"""Sections that speak of several experiments; a single one is told without them."""


class ExperimentFile(Experiment):
    """An experiment as written: its graph may be the name of a graph file."""

    graph: str | GraphSpec  # type: ignore[assignment]
    """Name of a file in `graphs/`, or the graph itself."""
