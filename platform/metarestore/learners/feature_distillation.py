"""Distillation of named features: a student that sees LR learns what a teacher, which may see HR, computes of them.

Source: Lee, Lee, Kim, Ham, Learning with Privileged Information for Efficient Image Super-Resolution (ECCV 2020),
section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from metarestore.config.learner import DistillationSpec, FeatureLossSpec, FinetuneSpec, PretrainSpec
from metarestore.errors import UserError
from metarestore.learners.feature_losses import feature_loss, head_of
from metarestore.learners.learner import Metrics, Precision, PretrainLearner, all_patches, each, squared_errors
from metarestore.learners.teacher import open_teacher, started_as_taught
from metarestore.models.network import Network, features_of, seeded
from metarestore.models.parameters import Layout, Params, initial_vector
from metarestore.seeds import derived_seed
from metarestore.tasks.task import Task

HEADS = "distillation."
"""Prefix of the names of parameters that the losses learn; they follow the network's, and are not saved with it."""

_PROBE = 8
"""Side, in LR pixels, of the images by which numbers of channels are found out."""

_KEY = "learner.distillation"


@dataclass(frozen=True)
class ImitationLearner(PretrainLearner):
    """Teacher stage of PISR: L(θ; S∪Q) + imitation · mean |encoding − LR|.

    Source: section 3.1, eqs. 1 and 2.
    """

    def losses(self, params: Params, tasks: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the losses of support and query together; the distance is logged as `imitation`."""
        lr, hr = all_patches(tasks)
        restored, features = self.restore_with_features(params, lr, ("encoding",), hr)
        distance = (features["encoding"] - lr).abs().flatten(1).mean(dim=1)
        losses = self.image_losses(restored, hr) + (self.spec.imitation or 0.0) * distance
        mse = squared_errors(restored[:, tasks.support_lr.shape[1] :], tasks.query_hr)
        return losses, Metrics(losses.detach(), mse, {"imitation": distance.detach()})


@dataclass(frozen=True)
class StudentLearner(PretrainLearner):
    """Student stage of PISR, for any networks with named features: L(θ; S∪Q) + Σ weight · loss of features.

    The teacher is frozen, and its features are constants. To the shots, the student adapts with the image loss.

    Args:
        spec: Options, with a distillation.
        model: The student.
        precision: Arithmetic of the student.
        teacher: The trained teacher.
        heads: What the losses learn, by the name under which each pair of features is logged.

    Source: section 3.2, eqs. 3 to 7.
    """

    teacher: Network = field(kw_only=True)
    heads: nn.ModuleDict = field(kw_only=True)

    @classmethod
    def build(cls, spec: PretrainSpec | FinetuneSpec, model: nn.Module, precision: Precision) -> StudentLearner:
        """Opens the teacher, on the student's device, and builds the heads.

        Raises:
            UserError: There is no such teacher, or it does not fit the student.
        """
        options = spec.distillation
        if options is None or not isinstance(model, Network):
            raise TypeError("distillation is of a Network, with options")
        teacher = open_teacher(options.teacher, model, f"{_KEY}.teacher")
        _require_fitting(options, model, teacher)
        heads = seeded(_heads, derived_seed(0, HEADS), options=options, student=model, teacher=teacher)
        return cls(spec, model, precision, teacher=teacher, heads=heads.to(next(model.parameters()).device))

    @property
    def distillation(self) -> DistillationSpec:
        """The options of the distillation."""
        if self.spec.distillation is None:
            raise TypeError("a student has a distillation")
        return self.spec.distillation

    def layout(self, network: Layout) -> Layout:
        """Returns the layout of the network's parameters and of the heads'."""
        return Layout((*network.entries, *((HEADS + name, shape) for name, shape in Layout.of(self.heads).entries)))

    def initial(self, network: Tensor) -> Tensor:
        """Returns the network's parameters, which may be the teacher's, with the heads' behind them."""
        if self.distillation.initialise:
            network = started_as_taught(self.teacher, Layout.of(self.model), network)
        return torch.cat([network, initial_vector(self.heads).to(network)]) if len(self.heads) else network

    def losses(self, params: Params, tasks: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the losses of support and query together; those of features are logged by loss and layer."""
        lr, hr = all_patches(tasks)
        own = {name: value for name, value in params.items() if not name.startswith(HEADS)}
        heads = {name.removeprefix(HEADS): value for name, value in params.items() if name.startswith(HEADS)}
        wanted = tuple(dict.fromkeys(mine for loss in self.distillation.losses for mine, _ in loss.pairs))
        restored, features = self.restore_with_features(own, lr, wanted)
        losses, terms = self.image_losses(restored, hr), dict[str, Tensor]()
        taught = self.taught(lr, hr)
        for loss in self.distillation.losses:
            for mine, its in loss.pairs:
                name = term_name(loss, mine)
                terms[name] = self._term(loss, name, heads, features[mine], taught[its])
                losses = losses + loss.weight / len(loss.pairs) * terms[name]
        mse = squared_errors(restored[:, tasks.support_lr.shape[1] :], tasks.query_hr)
        return losses, Metrics(losses.detach(), mse, {name: term.detach() for name, term in terms.items()})

    def taught(self, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Computes the teacher's features (T, N, ...) of images of T tasks; they are constants."""
        wanted = tuple(dict.fromkeys(its for loss in self.distillation.losses for _, its in loss.pairs))
        return taught_features(self.teacher, wanted, lr, hr)

    def _term(self, loss: FeatureLossSpec, name: str, heads: Params, student: Tensor, teacher: Tensor) -> Tensor:
        """Computes a loss of features (T, N, ...), with heads of each task's own; (T,)."""
        head, prefix = dict(self.heads).get(name), f"{name}."
        own = {key.removeprefix(prefix): value for key, value in heads.items() if key.startswith(prefix)}

        def one(own: Params, student: Tensor, teacher: Tensor) -> Tensor:
            if head is None:
                return feature_loss(loss, student, teacher, None)
            return feature_loss(loss, student, teacher, lambda given: functional_call(head, own, (given,)))

        return each(one, own, student, teacher)


def taught_features(teacher: Network, names: tuple[str, ...], lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
    """Computes named features of images of T tasks, (T, N, ...), without autograd.

    Args:
        teacher: The teacher.
        names: Some of its features; where there are none, it is not computed.
        lr: (T, N, C, h, w).
        hr: (T, N, C, s·h, s·w); only a privileged teacher sees it.
    """
    images = (lr.flatten(0, 1), hr.flatten(0, 1)) if teacher.privileged else (lr.flatten(0, 1),)
    with torch.no_grad():
        features = features_of(teacher, names, *images)
    return {name: value.view(*lr.shape[:2], *value.shape[1:]) for name, value in features.items()}


def term_name(loss: FeatureLossSpec, layer: str) -> str:
    """Returns the name that a loss of a student's layer is logged under."""
    return f"{loss.loss}_{layer}"


def _heads(options: DistillationSpec, student: Network, teacher: Network) -> nn.ModuleDict:
    given, wanted = feature_channels(student), feature_channels(teacher)
    found = {
        term_name(loss, mine): head_of(loss, given[mine], wanted[its])
        for loss in options.losses
        for mine, its in loss.pairs
    }
    return nn.ModuleDict({name: head for name, head in found.items() if head is not None})


def feature_channels(network: Network) -> Mapping[str, int]:
    """Returns the number of channels of each named feature."""
    planes, first = 1 if network.channels == "y" else 3, next(network.parameters())
    sides = (_PROBE, _PROBE * network.scale) if network.privileged else (_PROBE,)
    images = [first.new_zeros(1, planes, side, side) for side in sides]
    with torch.no_grad():
        features = features_of(network, tuple(network.feature_layers), *images)
    return {name: value.shape[1] for name, value in features.items()}


def _require_fitting(options: DistillationSpec, student: Network, teacher: Network) -> None:
    """Checks that a teacher has the features, the scale, the channels and the weights that are wanted of it."""
    if (teacher.scale, teacher.channels) != (student.scale, student.channels):
        raise UserError(
            f"{_KEY}.teacher: {options.teacher} is for scale {teacher.scale} and channels {teacher.channels}, the "
            f"student for {student.scale} and {student.channels}; make them those of the teacher"
        )
    names: list[str] = []
    for loss in options.losses:
        for pair in loss.pairs:
            for layer, network, owner in zip(pair, (student, teacher), ("student", "teacher"), strict=True):
                if layer not in network.feature_layers:
                    known = ", ".join(network.feature_layers)
                    raise UserError(f"{_KEY}.layers: the {owner} has no feature '{layer}'; name some of {known}")
            names.append(term_name(loss, pair[0]))
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{_KEY}.also: {twice} is there twice; give each loss layers of its own")
    taught, own = _shapes(teacher.for_student()), _shapes(dict(student.named_parameters()))
    if options.initialise and taught != own:
        raise UserError(
            f"{_KEY}.initialise: {options.teacher} has other weights than the student; make model that of the teacher "
            "(its decoder, of a PISR teacher), or write initialise: false"
        )


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in params.items()}
