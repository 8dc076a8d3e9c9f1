"""All figures of a study, by name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from metarestore.config.estimators import CONTROLS
from metarestore.evaluation.results import ArmResult, StudyResult
from metarestore.reports.graph.figures import attention_heatmap, graph_drawing
from metarestore.reports.graph.relations import relation_bars, relation_heatmap
from metarestore.reports.pictures import before_after
from metarestore.reports.study.curves import (
    adaptation_curves,
    relations_over_time,
    result_bars,
    training_curves,
    weights_over_time,
)
from metarestore.reports.study.table import learned_arms

__all__ = [
    "adaptation_curves",
    "arms_by_relations",
    "arms_with_weights",
    "before_after",
    "group_figures",
    "relation_bars",
    "relation_heatmap",
    "result_bars",
    "study_figures",
    "training_curves",
    "weights_over_time",
]


def arms_by_relations(study: StudyResult) -> tuple[tuple[ArmResult, ...], ...]:
    """Groups the arms with equal relations and weights, in the study's order; includes controls only if alone."""
    related = [arm for arm in study.arms if arm.relations is not None and arm.relations.auxiliary]
    estimated = [arm for arm in related if arm.relations and arm.relations.estimator not in CONTROLS]
    groups: list[list[ArmResult]] = []
    for arm in estimated or related:
        same = next((group for group in groups if _same_relations(group[0], arm)), None)
        groups += [[arm]] if same is None else []
        if same is not None:
            same.append(arm)
    return tuple(tuple(group) for group in groups)


def arms_with_weights(study: StudyResult) -> tuple[ArmResult, ...]:
    """Returns the arms trained on several weighted distributions, those with estimated relations first."""
    trained = [arm for arm in study.arms if arm.history and len(arm.history.steps)]
    weighted = [arm for arm in trained if arm.history and len(arm.history.sources) > 1]
    return tuple(sorted(weighted, key=lambda arm: arm.relations is None or arm.relations.estimator in CONTROLS))


def study_figures(study: StudyResult) -> dict[str, Figure]:
    """Draws every figure that the study has data for, by a name that is valid as a file name."""
    return dict(_figures(study))


def _figures(study: StudyResult) -> Iterator[tuple[str, Figure]]:
    if learned_arms(study):
        yield "results", result_bars(study)
        yield "adaptation", adaptation_curves(study)
    if any(arm.history and len(arm.history.steps) for arm in study.arms):
        yield "training", training_curves(study.arms)
    for group in arms_by_relations(study):
        yield from group_figures(group[0])
    for arm in arms_with_weights(study):
        if arm.history is not None:
            yield f"weights-{arm.name}", weights_over_time(arm.history)
    for index, example in enumerate(study.examples, 1):
        yield f"example-{index}", before_after(example)


def group_figures(arm: ArmResult) -> Iterator[tuple[str, Figure]]:
    """Draws the figures of an arm's relations, by name."""
    relations = arm.relations
    if relations is None:
        return
    yield f"relations-{arm.name}", relation_heatmap(relations)
    yield f"relation-weights-{arm.name}", relation_bars(relations, arm.weights)
    if arm.graph is not None:
        yield f"graph-{arm.name}", graph_drawing(arm.graph)
    if relations.attention is not None:
        yield f"attention-{arm.name}", attention_heatmap(relations)
    if arm.history is not None and len(arm.history.related) > 1:
        yield f"refreshes-{arm.name}", relations_over_time(arm.history)


def _same_relations(first: ArmResult, second: ArmResult) -> bool:
    a, b = first.relations, second.relations
    return (
        a is not None
        and b is not None
        and (a.target, a.auxiliary, a.estimator) == (b.target, b.auxiliary, b.estimator)
        and np.array_equal(a.values, b.values, equal_nan=True)
        and first.weights == second.weights
    )
