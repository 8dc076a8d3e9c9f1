"""How much descriptors tell of degradations, and how much of the photographs' content leaks into them.

A row is the descriptor of one image. Whole groups of images are held back from what is fitted: a patch of a photograph
that was fitted on is recognised by its content, and a patch of a task that was fitted on by the very degradation that
was drawn; neither says anything about new ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from metarestore.seeds import generator

Floats = NDArray[np.float64]
Labels = Sequence[str | int]
Split = tuple[NDArray[np.intp], NDArray[np.intp]]

_FOLDS = 5
_PENALTIES = np.logspace(-3, 3, 7)


@dataclass(frozen=True)
class Accuracy:
    """A share of right predictions.

    Attributes:
        value: Share of rows that were predicted right, 0..1.
        chance: Share that naming the most frequent label for every row gets right.
        count: Number of rows.
    """

    value: float
    chance: float
    count: int


@dataclass(frozen=True)
class Quality:
    """What descriptors are worth.

    Attributes:
        families: How well the family of a degradation is told from its neighbours: should be high.
        linear: R² of each drawn parameter by a linear map: 1 is perfect, 0 or below is nothing.
        content: How well the photograph is told from its neighbours: should be at chance.
    """

    families: Accuracy
    linear: Mapping[str, float]
    content: Accuracy


def descriptor_quality(
    descriptors: ArrayLike, families: Labels, values: Mapping[str, ArrayLike], photographs: Labels, tasks: Labels
) -> Quality:
    """Judges descriptors; families and parameters are predicted for new photographs in new tasks.

    Args:
        descriptors: One per image, (N, C).
        families: Task distribution of each image.
        values: Drawn parameters by name, (N,) each; NaN where a task has none.
        photographs: Clean photograph that each image comes from.
        tasks: Task that each image belongs to; for distributions drawn with one seed, the number of the draw, which has
            the same clean patches in all of them (see `content_leakage`).

    Raises:
        ValueError: There are too few photographs or tasks to hold some back.
    """
    linear = {name: linear_r2(descriptors, value, photographs, tasks) for name, value in values.items()}
    families_told = neighbour_accuracy(descriptors, families, photographs, tasks=tasks)
    return Quality(families_told, linear, content_leakage(descriptors, photographs, tasks))


def neighbour_accuracy(
    descriptors: ArrayLike, families: Labels, photographs: Labels, k: int = 5, tasks: Labels | None = None
) -> Accuracy:
    """Tells families by the k nearest descriptors, standardised, of other photographs.

    Args:
        descriptors: (N, C).
        families: What is predicted, N labels.
        photographs: N labels; a photograph is never both fitted on and predicted for.
        k: Number of neighbours.
        tasks: N labels of what is held back as well; without them an image may be told by others of its own task.

    Raises:
        ValueError: There is only one photograph, or one task.
    """
    held_back = [photographs] if tasks is None else [photographs, tasks]
    return _neighbours(_rows(descriptors), families, _splits(held_back), k)


def content_leakage(descriptors: ArrayLike, photographs: Labels, tasks: Labels, k: int = 5) -> Accuracy:
    """Tells photographs by the k nearest descriptors, standardised, of other tasks: chance if no content leaks.

    Args:
        descriptors: (N, C).
        photographs: What is predicted, N labels; each should be in several tasks.
        tasks: N labels; a task, which is one degradation, is never both fitted on and predicted for. Draws of one
            number and seed have the same clean patches in all distributions: label them by the number alone, or the
            very patch is recognised, not its photograph.
        k: Number of neighbours.

    Raises:
        ValueError: There is only one task.
    """
    return _neighbours(_rows(descriptors), photographs, _splits([tasks]), k)


def linear_r2(descriptors: ArrayLike, values: ArrayLike, photographs: Labels, tasks: Labels | None = None) -> float:
    """Returns R² of a linear prediction (ridge regression) on what was held back.

    Args:
        descriptors: (N, C).
        values: What is predicted, (N,); rows with NaN are left out.
        photographs: N labels; a photograph is never both fitted on and predicted for.
        tasks: N labels of what is held back as well. All images of a task have one value, so without them a linear map
            of many channels may learn by heart which task has which.

    Returns:
        At most 1; 0 is what predicting the mean gives; NaN where all values are equal.

    Raises:
        ValueError: Too few photographs, or tasks, have a value.
    """
    found = np.asarray(values, dtype=np.float64)
    present = np.flatnonzero(np.isfinite(found)).tolist()
    labels = [photographs] if tasks is None else [photographs, tasks]
    splits = _splits([[one[row] for row in present] for one in labels])
    if np.ptp(found[present]) == 0:
        return float("nan")
    model = make_pipeline(StandardScaler(), RidgeCV(_PENALTIES))
    predicted = cross_val_predict(model, _rows(descriptors)[present], found[present], cv=splits)
    return float(r2_score(found[present], predicted))


def _neighbours(rows: Floats, labels: Labels, splits: list[Split], k: int) -> Accuracy:
    smallest = min(len(fit) for fit, _ in splits)
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(min(k, smallest)))
    names = np.asarray(labels)
    predicted = cross_val_predict(model, rows, names, cv=splits)
    most = max(Counter(names.tolist()).values())
    return Accuracy(float(np.mean(predicted == names)), most / len(names), len(names))


def _splits(held_back: Sequence[Labels]) -> list[Split]:
    """Splits rows into those to fit on and those to predict for, which share no label of any kind.

    Every row is predicted for once. With two kinds of labels, a split predicts for a fold of each, and fits on what is
    in neither.
    """
    cells = np.stack([_folds(labels) for labels in held_back])
    splits = []
    for cell in np.unique(cells, axis=1).T[..., None]:
        predict = np.flatnonzero((cells == cell).all(axis=0))
        fit = np.flatnonzero((cells != cell).all(axis=0))
        if not len(fit):
            raise ValueError("photographs and tasks go together, so that none are left to fit on; draw more")
        splits.append((fit, predict))
    return splits


def _folds(labels: Labels) -> NDArray[np.intp]:
    """Numbers the fold of each row; rows of one label are in one fold."""
    names, labelled = np.unique(np.asarray(labels), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"at least 2 photographs and tasks are needed to hold one back, got {len(names)}")
    # In an order by chance: labels that are dealt out in turn, as by GroupKFold, may have a period of their own.
    dealt = generator("folds").permutation(len(names)) % min(_FOLDS, len(names))
    return np.asarray(dealt[labelled], dtype=np.intp)


def _rows(descriptors: ArrayLike) -> Floats:
    return np.asarray(descriptors, dtype=np.float64)
