"""The objects a process needs to run jobs: images, task distributions, network and learner, opened from plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from metarestore.config.estimators import DescriptorEstimatorSpec, estimate_behind
from metarestore.config.experiment import Experiment
from metarestore.errors import UserError
from metarestore.learners.adapted import adapted_names
from metarestore.learners.build import build_learner
from metarestore.learners.describer import open_describer
from metarestore.learners.gradients import TaskGradients, split_gradients
from metarestore.learners.learn2learn import reference_gradients
from metarestore.learners.learner import Learner, MAMLLearner, PretrainLearner
from metarestore.models.build import build_model, to_channels
from metarestore.models.checkpoint import load_vector
from metarestore.models.kdsr import KDSR
from metarestore.models.low_frequencies import keep_low_frequencies
from metarestore.models.network import Network
from metarestore.models.parameters import Layout, initial_vector
from metarestore.seeds import derived_seed
from metarestore.tasks.distribution import OpenDistribution, TaskDistribution
from metarestore.tasks.few_shot import FewShotDraw, FewShotGeometry, FewShotTarget, ShotTasks
from metarestore.tasks.images import ImageStore
from metarestore.tasks.shot_colour import off_colour_shots
from metarestore.tasks.spec import DistributionSpec
from metarestore.tasks.task import Episode, Split, Task, stack
from metarestore.workspace.refs import TaskRef
from metarestore.workspace.study import Study

_SEEN = 256
"""Side of the central part of a shot that estimators use, in HR pixels."""


class Workspace:
    """Opens the data, network and learner of a study lazily.

    Args:
        study: The study.
        device: Device of the network; images are decoded and degraded on the CPU.
    """

    def __init__(self, study: Study, device: str = "cpu") -> None:
        self.study = study
        self.device = torch.device(device)
        self._stores: dict[Split, ImageStore] = {}
        self._auxiliary: dict[str, OpenDistribution] = {}

    @property
    def experiment(self) -> Experiment:
        """The study's resolved configuration."""
        return self.study.experiment

    @cached_property
    def model(self) -> Network:
        """The network, with the initial weights of the experiment's seed."""
        return self._fresh_model().to(self.device)

    @cached_property
    def layout(self) -> Layout:
        """Names and shapes of the network's parameters."""
        return Layout.of(self.model)

    @cached_property
    def learned(self) -> Layout:
        """Names and shapes of all learned parameters: the network's, followed by those that the learner adds."""
        return self.learner.layout(self.layout)

    def network(self, flat: Tensor) -> Tensor:
        """Returns the network's parameters among all learned parameters."""
        return flat[: self.layout.size]

    def inner_rates(self, flat: Tensor) -> dict[str, Tensor]:
        """Returns the learned rate of each of the network's parameters, by name; empty if none are learned."""
        return self.learner.inner_rates(self.layout, flat.cpu().clone())

    def initial(self) -> Tensor:
        """Returns the initial vector of all learned parameters, (P,); the network's are random or `training.init`.

        Raises:
            UserError: `training.init` is not a network, or not one of this architecture.
        """
        init = self.experiment.training.init
        fresh = self._fresh_model()
        if init is None:
            return self.learner.initial(initial_vector(fresh))
        return self.learner.initial(load_vector(init, self.experiment.model, self.study.scale, "training.init", fresh))

    def _fresh_model(self) -> Network:
        return build_model(self.experiment.model, self.study.scale, derived_seed(self.experiment.seed, "model"))

    @cached_property
    def describer(self) -> KDSR:
        """The trained network that the `descriptor` estimator computes descriptors with.

        Raises:
            UserError: The network is invalid.
        """
        return open_describer(self.experiment.graph.estimator, self.study.scale).to(self.device)

    @cached_property
    def learner(self) -> Learner:
        """The experiment's learner."""
        return build_learner(self.experiment.learner, self.model, self.experiment.training.precision)

    @property
    def episode(self) -> Episode:
        """Geometry of a training task."""
        training = self.experiment.training
        return Episode(training.support, training.query, training.patch, training.support_set == "internal")

    def images(self, split: Split) -> ImageStore:
        """Opens the photographs of a split; training photographs smaller than a patch are skipped."""
        if split not in self._stores:
            store = ImageStore.open(self.study.images[split])
            patch = self.experiment.training.patch
            self._stores[split] = store.at_least(patch, patch) if split == "train" else store
        return self._stores[split]

    def distribution(self, name: str) -> TaskDistribution:
        """Returns an auxiliary distribution, or the shots of the target under the target's name."""
        return self._shot_tasks if name == self.experiment.graph.target else self.auxiliary(name)

    @cached_property
    def _shot_tasks(self) -> ShotTasks:
        return ShotTasks(self.experiment.graph.target, self.target.content, self.shots, self.episode)

    def auxiliary(self, name: str) -> OpenDistribution:
        """Opens an auxiliary distribution."""
        if name not in self._auxiliary:
            self._auxiliary[name] = self.open_tasks(name, self.study.auxiliary[name], "train")
        return self._auxiliary[name]

    def open_tasks(self, name: str, spec: DistributionSpec, split: Split) -> OpenDistribution:
        """Opens a distribution; if it degrades photographs, those of `split`.

        Raises:
            UserError: Its tasks cannot have the geometry of the experiment.
        """
        opened, side = spec.open(name, self.episode, self.images, split), self.episode.patch
        if not self.episode.internal:
            return opened
        if not opened.degrades:
            raise UserError(
                f"training.support_set: internal degrades LR images once more, but '{name}' has images of its own; use "
                "distributions of kind synthetic"
            )
        if side % opened.scale**2:
            raise UserError(
                f"training.patch must be a multiple of {opened.scale**2} for support_set: internal at scale "
                f"{opened.scale}, got {side}"
            )
        return opened

    def open_all(self) -> None:
        """Opens every distribution and builds the target, to find errors before anything is written.

        Raises:
            UserError: A folder holds no photographs, an image is smaller than a patch, shot or crop, the learner or
                `training.init` does not fit the network, or the graph's estimator cannot describe by its network.
        """
        self.initial()
        adaptation = self.experiment.adaptation
        for number, method in enumerate((adaptation, *adaptation.alternatives)):
            key = "adaptation" if number == 0 else f"adaptation.alternatives[{number - 1}]"
            adapted_names(self.model, method.adapts, f"{key}.adapts")
        if isinstance(estimate_behind(self.experiment.graph.estimator), DescriptorEstimatorSpec):
            _ = self.describer
        for name in self.study.auxiliary:
            self.auxiliary(name)
        _ = self.target_task

    @cached_property
    def target(self) -> FewShotTarget:
        """The target as a few-shot problem."""
        experiment = self.experiment
        geometry = FewShotGeometry(
            experiment.adaptation.shots,
            experiment.adaptation.shot_size,
            experiment.evaluation.crop,
            experiment.evaluation.crops,
            experiment.adaptation.first_shot,
        )
        return self.study.target.few_shot(experiment.graph.target, self.episode, self.images, geometry)

    @cached_property
    def target_draw(self) -> FewShotDraw:
        """The shots and test crops of this study's seed."""
        return self.target.draw(derived_seed(self.experiment.seed, "target"))

    @cached_property
    def target_task(self) -> Task:
        """Shots (support) and test crops (query) of the target, RGB."""
        return self.target.build(self.target_draw)

    @cached_property
    def off_colour(self) -> tuple[str, ...]:
        """Names of the shots of real pairs whose colour disagrees with that of the others."""
        return tuple(self.target_draw.shots[k].support[0].image for k in self._off_colour)

    @cached_property
    def _off_colour(self) -> tuple[int, ...]:
        # A synthetic target may draw another colour for every shot on purpose.
        if self.study.target.pairs is None:
            return ()
        return off_colour_shots(self.target_task.support_lr, self.target_task.support_hr)

    @property
    def shots(self) -> Task:
        """The target's shots alone: what estimators and learners may see; its query set is empty.

        Their HR images have the low frequencies of LR if `model.keep_low_frequencies` says so.
        """
        return self._learned(self.given_shots)

    @property
    def given_shots(self) -> Task:
        """The target's shots as they are; its query set is empty.

        Shots whose colour differs from the others are excluded if `adaptation.off_colour_shots` is `leave_out`.
        """
        task = self.target_task
        lr, hr = task.support_lr, task.support_hr
        if self._off_colour and self.experiment.adaptation.off_colour_shots == "leave_out":
            kept = [k for k in range(len(lr)) if k not in self._off_colour]
            lr, hr = lr[kept], hr[kept]
        return Task(lr, hr, task.query_lr[:0], task.query_hr[:0])

    def _learned(self, task: Task) -> Task:
        """Returns a task with the HR images that are learned from."""
        if self.experiment.model.keep_low_frequencies == "none":
            return task
        lr, hr, query_lr, query_hr = task
        kept = (keep_low_frequencies(high, low, self.study.scale) for low, high in ((lr, hr), (query_lr, query_hr)))
        return Task(lr, next(kept), query_lr, next(kept))

    def notes(self) -> tuple[str, ...]:
        """Reports shots whose colour differs from that of the others, and whether they are used."""
        if not self.off_colour:
            return ()
        left_out = self.experiment.adaptation.off_colour_shots == "leave_out"
        fate = "nothing learns from them (adaptation.off_colour_shots: keep, to use them)"
        return (
            f"shots whose colour from LR to HR disagrees with that of the other shots: {', '.join(self.off_colour)}; "
            + (fate if left_out else "adaptation.off_colour_shots: keep, so they are learned from"),
        )

    @cached_property
    def seen_shots(self) -> tuple[Tensor, Tensor]:
        """The central part of each shot, LR (K, 3, h, w) and HR (K, 3, s·h, s·w), RGB, which estimators use.

        Over 256x256 HR pixels of a shot carry little more information about its degradation, at a much higher cost.
        """
        lr, hr = self.shots.support_lr, self.shots.support_hr
        side = min(_SEEN // self.study.scale, *lr.shape[-2:])
        # JPEG's blocks of 8x8 pixels start at the same positions as in the whole image.
        top, left = ((length - side) // 16 * 8 for length in lr.shape[-2:])
        s = self.study.scale
        return (
            lr[..., top : top + side, left : left + side].contiguous(),
            hr[..., s * top : s * (top + side), s * left : s * (left + side)].contiguous(),
        )

    def tasks(self, refs: Sequence[TaskRef]) -> Task:
        """Draws, builds and stacks tasks, in the channels of the network."""
        built = []
        for ref in refs:
            distribution = self.distribution(ref.distribution)
            task = distribution.build(distribution.draw(ref.seed, ref.index, ref.patches))
            # Patches of the shots were corrected as parts of whole shots.
            from_shots = ref.distribution == self.experiment.graph.target
            built.append(task if from_shots else self._learned(task))
        return self.for_model(stack(built))

    def for_model(self, task: Task) -> Task:
        """Converts a task's RGB images to the channels and device of the network."""
        return Task(*(to_channels(tensor.to(self.device), self.model.channels) for tensor in task))

    def gradients(
        self, flat: Tensor, tasks: Task, step: int = 0, inner: Sequence[float] | None = None
    ) -> TaskGradients:
        """Computes the gradients of stacked tasks with the experiment's backend, and sketches if requested.

        Args:
            flat: All learned parameters, (P,).
            tasks: T stacked tasks.
            step: The outer step.
            inner: Factor on the inner learning rate of each task, (T,), for a meta-learner.
        """
        flat, training = flat.to(self.device), self.experiment.training
        learner = self.learner
        if inner is not None and isinstance(learner, MAMLLearner):
            learner = replace(learner, rate_factors=torch.tensor(inner, device=self.device))
        if self.experiment.learner.backend == "learn2learn" and isinstance(learner, PretrainLearner | MAMLLearner):
            result = reference_gradients(learner, self.learned, flat, tasks, step)
        else:
            result = split_gradients(learner, self.learned, flat, tasks, step, training.microbatch)
        return result if training.sketch is None else result.sketch(training.sketch, self.layout.size)
