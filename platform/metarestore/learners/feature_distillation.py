"""Distillation of named features: a student that sees only LR learns the features of a teacher that may also see HR.

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
from metarestore.learners.feature_cache import FeatureCache
from metarestore.learners.feature_losses import feature_loss, head_of
from metarestore.learners.learner import Metrics, Precision, PretrainLearner, all_patches, each, squared_errors
from metarestore.learners.teacher import open_teacher, started_as_taught
from metarestore.models.network import Network, features_of, seeded
from metarestore.models.parameters import Layout, Params, initial_vector
from metarestore.seeds import derived_seed
from metarestore.tasks.task import Task

HEADS = "distillation."
"""Prefix of the parameters that the losses learn; they follow the network's parameters and are not saved with it."""

_PROBE = 8
"""Side, in LR pixels, of the images used to determine numbers of channels."""

_KEY = "learner.distillation"


@dataclass(frozen=True)
class ImitationLearner(PretrainLearner):
    """Teacher stage of PISR: L(θ; S∪Q) + imitation · mean |encoding − LR|.

    Source: section 3.1, eqs. 1 and 2.
    """

    def losses(self, params: Params, tasks: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the losses over support and query; the distance is logged as `imitation`."""
        lr, hr = all_patches(tasks)
        restored, features = self.restore_with_features(params, lr, ("encoding",), hr)
        distance = (features["encoding"] - lr).abs().flatten(1).mean(dim=1)
        losses = self.image_losses(restored, hr) + (self.spec.imitation or 0.0) * distance
        mse = squared_errors(restored[:, tasks.support_lr.shape[1] :], tasks.query_hr)
        return losses, Metrics(losses.detach(), mse, {"imitation": distance.detach()})


@dataclass(frozen=True)
class StudentLearner(PretrainLearner):
    """Student stage of PISR, for any network with named features: L(θ; S∪Q) + Σ weight · feature loss.

    The teacher is frozen, and its features are constants. The student adapts to the shots with the image loss alone.

    Args:
        spec: Options, including a distillation.
        model: The student.
        precision: Precision of the student.
        teacher: The trained teacher.
        heads: Modules that the losses learn, by the name under which each pair of features is logged.
        cache: The teacher's features of tasks that repeat.

    Source: section 3.2, eqs. 3 to 7.
    """

    teacher: Network = field(kw_only=True)
    heads: nn.ModuleDict = field(kw_only=True)
    cache: FeatureCache = field(default_factory=lambda: FeatureCache(0), kw_only=True)

    @classmethod
    def build(cls, spec: PretrainSpec | FinetuneSpec, model: nn.Module, precision: Precision) -> StudentLearner:
        """Builds the learner of a student, opens its teacher on the student's device, and builds the heads.

        Raises:
            UserError: The teacher is missing, or does not match the student.
        """
        options = spec.distillation
        if options is None or not isinstance(model, Network):
            raise TypeError("distillation requires a Network and spec.distillation")
        teacher = open_teacher(options.teacher, model, f"{_KEY}.teacher")
        _require_fitting(options, model, teacher)
        heads = seeded(_heads, derived_seed(0, HEADS), options=options, student=model, teacher=teacher)
        heads, cache = heads.to(next(model.parameters()).device), FeatureCache(options.cache * 2**20)
        return cls(spec, model, precision, teacher=teacher, heads=heads, cache=cache)

    @property
    def distillation(self) -> DistillationSpec:
        """The options of the distillation."""
        if self.spec.distillation is None:
            raise TypeError("spec.distillation is missing")
        return self.spec.distillation

    def layout(self, network: Layout) -> Layout:
        """Returns the layout of the network's parameters, followed by those of the heads."""
        return Layout((*network.entries, *((HEADS + name, shape) for name, shape in Layout.of(self.heads).entries)))

    def initial(self, network: Tensor) -> Tensor:
        """Returns the parameters of the network, optionally those of the teacher, followed by those of the heads."""
        if self.distillation.initialise:
            network = started_as_taught(self.teacher, Layout.of(self.model), network)
        return torch.cat([network, initial_vector(self.heads).to(network)]) if len(self.heads) else network

    def losses(self, params: Params, tasks: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the losses over support and query; feature losses are logged by loss and layer."""
        lr, hr = all_patches(tasks)
        own = {name: value for name, value in params.items() if not name.startswith(HEADS)}
        heads = {name.removeprefix(HEADS): value for name, value in params.items() if name.startswith(HEADS)}
        layers = tuple(dict.fromkeys(student for loss in self.distillation.losses for student, _ in loss.pairs))
        restored, features = self.restore_with_features(own, lr, layers)
        losses, terms = self.image_losses(restored, hr), dict[str, Tensor]()
        targets = self.taught(lr, hr)
        for loss in self.distillation.losses:
            for student, teacher in loss.pairs:
                name = term_name(loss, student)
                terms[name] = self._term(loss, name, heads, features[student], targets[teacher])
                losses = losses + loss.weight / len(loss.pairs) * terms[name]
        mse = squared_errors(restored[:, tasks.support_lr.shape[1] :], tasks.query_hr)
        return losses, Metrics(losses.detach(), mse, {name: term.detach() for name, term in terms.items()})

    def taught(self, lr: Tensor, hr: Tensor) -> Mapping[str, Tensor]:
        """Computes the teacher's features (T, N, ...) for the images of T tasks, without autograd."""
        layers = tuple(dict.fromkeys(teacher for loss in self.distillation.losses for _, teacher in loss.pairs))
        return self.cache.get((lr, hr), lambda: taught_features(self.teacher, layers, lr, hr))

    def _term(self, loss: FeatureLossSpec, name: str, heads: Params, student: Tensor, teacher: Tensor) -> Tensor:
        """Computes a loss between features (T, N, ...), with separate heads for each task; (T,)."""
        head, prefix = dict(self.heads).get(name), f"{name}."
        own = {key.removeprefix(prefix): value for key, value in heads.items() if key.startswith(prefix)}

        def one(own: Params, student: Tensor, teacher: Tensor) -> Tensor:
            if head is None:
                return feature_loss(loss, student, teacher, None)
            return feature_loss(loss, student, teacher, lambda features: functional_call(head, own, (features,)))

        return each(one, own, student, teacher)


def taught_features(teacher: Network, names: tuple[str, ...], lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
    """Computes named features of a teacher for the images of T tasks, (T, N, ...), without autograd.

    Args:
        teacher: The teacher.
        names: Names of the features; if there are none, the teacher is not evaluated.
        lr: (T, N, C, h, w).
        hr: (T, N, C, s·h, s·w); only a privileged teacher sees it.
    """
    images = (lr.flatten(0, 1), hr.flatten(0, 1)) if teacher.privileged else (lr.flatten(0, 1),)
    with torch.no_grad():
        features = features_of(teacher, names, *images)
    return {name: value.view(*lr.shape[:2], *value.shape[1:]) for name, value in features.items()}


def term_name(loss: FeatureLossSpec, layer: str) -> str:
    """Returns the name under which the loss of a student's layer is logged."""
    return f"{loss.loss}_{layer}"


def _heads(options: DistillationSpec, student: Network, teacher: Network) -> nn.ModuleDict:
    inputs, outputs = feature_channels(student), feature_channels(teacher)
    heads = {
        term_name(loss, layer): head_of(loss, inputs[layer], outputs[target])
        for loss in options.losses
        for layer, target in loss.pairs
    }
    return nn.ModuleDict({name: head for name, head in heads.items() if head is not None})


def feature_channels(network: Network) -> Mapping[str, int]:
    """Returns the number of channels of each named feature."""
    planes, first = 1 if network.channels == "y" else 3, next(network.parameters())
    sides = (_PROBE, _PROBE * network.scale) if network.privileged else (_PROBE,)
    images = [first.new_zeros(1, planes, side, side) for side in sides]
    with torch.no_grad():
        features = features_of(network, tuple(network.feature_layers), *images)
    return {name: value.shape[1] for name, value in features.items()}


def _require_fitting(options: DistillationSpec, student: Network, teacher: Network) -> None:
    """Checks that a teacher has the required features, scale, channels and weights."""
    if (teacher.scale, teacher.channels) != (student.scale, student.channels):
        raise UserError(
            f"{_KEY}.teacher: {options.teacher} is for scale {teacher.scale} and channels {teacher.channels}, the "
            f"student for {student.scale} and {student.channels}; use the teacher's scale and channels"
        )
    names: list[str] = []
    for loss in options.losses:
        for pair in loss.pairs:
            for layer, network, owner in zip(pair, (student, teacher), ("student", "teacher"), strict=True):
                if layer not in network.feature_layers:
                    known = ", ".join(network.feature_layers)
                    raise UserError(f"{_KEY}.layers: the {owner} has no feature '{layer}'; choose from {known}")
            names.append(term_name(loss, pair[0]))
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{_KEY}.also: {repeated} occurs twice; give each loss different layers")
    taught, own = _shapes(teacher.for_student()), _shapes(dict(student.named_parameters()))
    if options.initialise and taught != own:
        raise UserError(
            f"{_KEY}.initialise: the weights of {options.teacher} do not match the student; use the teacher's model "
            "(for a PISR teacher, its decoder), or write initialise: false"
        )


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in params.items()}
