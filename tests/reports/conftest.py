"""A small study made of invented figures, with everything that a report can show."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from metarestore.evaluation.results import ArmResult, Curve, Example, History, StudyResult
from metarestore.graphs.graph import build_graph
from metarestore.graphs.relations import Relations
from metarestore.graphs.weights import effective_tasks, softmax_weights
from metarestore.project import Project

DISTRIBUTIONS = (
    "bicubic",
    "blur_aniso",
    "blur_iso_mild",
    "blur_iso_wide",
    "blur_jpeg",
    "blur_noise",
    "jpeg",
    "noise_gaussian",
    "noise_jpeg",
    "noise_poisson",
)
ARMS = (
    "target_only",
    "pretrain_uniform",
    "pretrain_weighted",
    "pretrain_inverted",
    "fomaml_uniform",
    "fomaml_weighted",
    "fomaml_inverted",
)
PHOTOGRAPHS = ("0801.png", "0802.png", "0803.png", "0804.png", "0805.png")


def configuration(name):
    """What tells the invented arms apart: learner, estimator, and where they learn from; read off their names."""
    learner, _, variant = name.rpartition("_")
    kind = "response" if variant == "weighted" else variant
    source = "target" if name == "target_only" else "auxiliary"
    return {"learner": {"kind": learner}, "training": {"source": source}, "graph": {"estimator": {"kind": kind}}}


def make_curve(label, final, *, steps=20, start=-0.8):
    """A curve that rises to `final` (P,)."""
    rise = np.exp(-np.arange(steps + 1) / 6)[:, None]
    return Curve(label, final + start * rise, np.clip(0.6 + 0.01 * (final - 20), 0, 1), tuple(range(len(rise))))


def make_arm(name, psnr_y, **rest):
    """An arm with these figures (P,) and nothing else."""
    values = np.atleast_2d(np.asarray(psnr_y, np.float64))
    names = tuple(f"{index}.png" for index in range(values.shape[1]))
    steps = tuple(range(len(values)))
    rest = {"configuration": configuration(name), **rest}
    return ArmResult(name, names, Curve("adam 0.0003", values, np.full(len(names), 0.7), steps), **rest)


def make_relations(rng):
    count = len(DISTRIBUTIONS)
    values = np.sort(rng.uniform(-0.4, 0.95, count))[rng.permutation(count)]
    factor = np.linspace(1, 0.3, count)
    matrix = np.ones((count + 1, count + 1))
    matrix[:count, :count] = np.outer(factor, factor)
    matrix[:count, count] = matrix[count, :count] = values
    np.fill_diagonal(matrix, 1)
    return Relations("phone_camera", DISTRIBUTIONS, values, np.full(count, 0.043), "response", 20, 0.91, matrix)


def make_graph(relations, weights):
    project = Project(Path(__file__).parents[2])
    auxiliary = {name: project.task(name) for name in relations.auxiliary}
    return build_graph(relations, weights, auxiliary, project.task(relations.target), {"seed": 0})


def make_history(rng, distributions, weights, steps=300):
    count = len(distributions)
    norms = rng.gamma(2.0, 1.0, (steps, count)) * np.geomspace(1, 20, count)
    norms[rng.random((steps, count)) < 0.5] = np.nan
    norms[:, 0] = np.nan_to_num(norms[:, 0], nan=1.0)
    effects = np.nan_to_num(norms) * weights
    at = np.arange(steps)
    return History(
        steps=at + 1,
        loss=0.02 + 0.03 * np.exp(-at / 60) + rng.normal(0, 0.003, steps),
        psnr=27 - 4 * np.exp(-at / 60) + rng.normal(0, 0.7, steps),
        validation=((100, 25.6), (200, 26.3), (300, 26.5)),
        sources=tuple(distributions),
        weights=np.tile(weights, (steps, 1)),
        effective=np.full(steps, effective_tasks(weights)),
        gradient_norms=norms,
        shares=effects / effects.sum(axis=1, keepdims=True),
        seconds=42.0,
    )


def make_example(rng, index, side=192):
    image = rng.integers(0, 255, (side // 8, side // 8, 3), np.uint8)
    hr = np.kron(image, np.ones((8, 8, 1), np.uint8))
    images = {
        label: (hr // k).astype(np.uint8)
        for k, label in enumerate(("LR", "bicubic", "target_only", "pretrain_weighted"), 1)
    }
    figures = {"bicubic": 25.31 + index, "target_only": 25.62 + index, "pretrain_weighted": 26.01 + index}
    return Example(f"080{index}.png: sigma 1.23, ratio 1.4, peak 123, quality 53", hr, images, figures)


def make_study():
    rng = np.random.default_rng(0)
    bicubic = rng.normal(25, 2, len(PHOTOGRAPHS))
    relations = make_relations(rng)
    relations = dataclasses.replace(relations, attention=np.random.default_rng(1).dirichlet(np.ones(8), 11))
    arms = [ArmResult("bicubic", PHOTOGRAPHS, Curve("bicubic", bicubic[None], np.full(len(PHOTOGRAPHS), 0.7)))]
    for index, name in enumerate(ARMS):
        final = bicubic + 0.25 + 0.08 * index + rng.normal(0, 0.07, len(PHOTOGRAPHS))
        kind = name.rsplit("_")[-1]
        related = dataclasses.replace(relations, values=relations.values * {"weighted": 1, "inverted": -1}.get(kind, 0))
        if kind != "weighted":
            related = dataclasses.replace(related, matrix=None, estimator=kind)
        distributions = ("phone_camera",) if kind == "only" else DISTRIBUTIONS
        weights = np.ones(1) if kind == "only" else softmax_weights(related.values, 0.5)
        named = {} if kind == "only" else dict(zip(DISTRIBUTIONS, weights.tolist(), strict=True))
        history = make_history(rng, distributions, weights)
        if kind == "weighted":
            refreshed = tuple((100 * k, (1 - 0.1 * k) * related.values, related.standard_errors) for k in range(3))
            history = dataclasses.replace(history, related=refreshed)
        arms.append(
            ArmResult(
                name,
                PHOTOGRAPHS,
                make_curve("adam 0.0003", final),
                (make_curve("sgd 0.01", final - 0.1, start=-0.5),),
                history,
                None if kind == "only" else related,
                named,
                None if kind == "only" else make_graph(related, named),
                configuration(name),
            )
        )
    return StudyResult("my_camera", tuple(arms), tuple(make_example(rng, index) for index in (1, 2)), 754.0)


@pytest.fixture(scope="session")
def study():
    return make_study()


@pytest.fixture(scope="session")
def invent():
    """What else tests need to make up."""
    return SimpleNamespace(
        arm=make_arm,
        relations=make_relations,
        history=make_history,
        example=make_example,
        arms=ARMS,
        distributions=DISTRIBUTIONS,
    )
