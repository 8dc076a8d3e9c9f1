"""The learner of `toy_query`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.learner import Learner, Metrics, Params, Precision, squared_errors
from metarestore.tasks.task import Task
from toy_restoration.specs import QuerySpec


@dataclass(frozen=True)
class QueryLearner(Learner):
    """The loss of the query set: L(θ; Q)."""

    spec: QuerySpec
    model: nn.Module
    precision: Precision = "float32"

    @property
    def inner_rule(self) -> InnerRule:
        """Adapts to shots with the loss of training."""
        return InnerRule(self.spec.loss, self.spec.charbonnier_eps)

    def losses(self, params: Params, tasks: Task, step: int = 0) -> tuple[Tensor, Metrics]:
        """Computes the losses (T,) of the query sets."""
        restored = self.restore(params, tasks.query_lr)
        losses = self.spec.weight * self.image_losses(restored, tasks.query_hr)
        return losses, Metrics(losses.detach(), squared_errors(restored, tasks.query_hr))
