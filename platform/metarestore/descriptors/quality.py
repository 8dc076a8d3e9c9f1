"""Measures how well descriptors identify degradations, and how much of the photographs' content leaks into them.

A row is the descriptor of one image. Cross-validation holds out whole photographs and whole tasks. Otherwise a patch
could be recognised by the content of its photograph, or by the exact degradation of its task, and the results would not
generalise to new ones.
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
    """The accuracy of predictions.

    Attributes:
        value: Fraction of correct predictions, 0..1.
        chance: Accuracy of always predicting the most frequent label.
        count: Number of rows.
    """

    value: float
    chance: float
    count: int


@dataclass(frozen=True)
class Quality:
    """The quality of descriptors.

    Attributes:
        families: Accuracy of identifying the family of a degradation by nearest neighbours; should be high.
        linear: R² of predicting each drawn parameter by a linear map: 1 is perfect, 0 or less means no information.
        content: Accuracy of identifying the photograph by nearest neighbours; should be at chance.
    """

    families: Accuracy
    linear: Mapping[str, float]
    content: Accuracy


def descriptor_quality(
    descriptors: ArrayLike, families: Labels, values: Mapping[str, ArrayLike], photographs: Labels, tasks: Labels
) -> Quality:
    """Measures the quality of descriptors; families and parameters are predicted for new photographs in new tasks.

    Args:
        descriptors: One per image, (N, C).
        families: Task distribution of each image.
        values: Drawn parameters by name, (N,) each; NaN where a task lacks the parameter.
        photographs: Clean photograph of each image.
        tasks: Task of each image; for distributions drawn with the same seed, the number of the draw, which has the
            same clean patches in all distributions (see `content_leakage`).

    Raises:
        ValueError: There are too few photographs or tasks to hold some out.
    """
    linear = {name: linear_r2(descriptors, value, photographs, tasks) for name, value in values.items()}
    accuracy = neighbour_accuracy(descriptors, families, photographs, tasks=tasks)
    return Quality(accuracy, linear, content_leakage(descriptors, photographs, tasks))


def neighbour_accuracy(
    descriptors: ArrayLike, families: Labels, photographs: Labels, k: int = 5, tasks: Labels | None = None
) -> Accuracy:
    """Returns the accuracy of identifying families by the k nearest standardised descriptors of other photographs.

    Args:
        descriptors: (N, C).
        families: N labels to predict.
        photographs: N labels; a photograph is never in both the fitted and the predicted part.
        k: Number of neighbours.
        tasks: N labels that are held out too; without them, an image may be identified by others of its own task.

    Raises:
        ValueError: There is only one photograph, or one task.
    """
    groups = [photographs] if tasks is None else [photographs, tasks]
    return _neighbours(_rows(descriptors), families, _splits(groups), k)


def content_leakage(descriptors: ArrayLike, photographs: Labels, tasks: Labels, k: int = 5) -> Accuracy:
    """Returns the accuracy of identifying photographs by the k nearest standardised descriptors of other tasks.

    It is at chance if no content leaks into the descriptors.

    Args:
        descriptors: (N, C).
        photographs: N labels to predict; each should occur in several tasks.
        tasks: N labels; a task, which is one degradation, is never in both the fitted and the predicted part. Draws
            with the same number and seed have the same clean patches in all distributions: label them by the number
            only, because otherwise the patch itself is recognised instead of its photograph.
        k: Number of neighbours.

    Raises:
        ValueError: There is only one task.
    """
    return _neighbours(_rows(descriptors), photographs, _splits([tasks]), k)


def linear_r2(descriptors: ArrayLike, values: ArrayLike, photographs: Labels, tasks: Labels | None = None) -> float:
    """Returns R² of a linear prediction (ridge regression) on held-out rows.

    Args:
        descriptors: (N, C).
        values: Values to predict, (N,); rows with NaN are ignored.
        photographs: N labels; a photograph is never in both the fitted and the predicted part.
        tasks: N labels that are held out too. All images of a task have the same value, so without them a linear map of
            many channels may memorise the value of each task.

    Returns:
        At most 1; 0 corresponds to predicting the mean; NaN if all values are equal.

    Raises:
        ValueError: Too few photographs, or tasks, have a value.
    """
    targets = np.asarray(values, dtype=np.float64)
    present = np.flatnonzero(np.isfinite(targets)).tolist()
    labels = [photographs] if tasks is None else [photographs, tasks]
    splits = _splits([[one[row] for row in present] for one in labels])
    if np.ptp(targets[present]) == 0:
        return float("nan")
    model = make_pipeline(StandardScaler(), RidgeCV(_PENALTIES))
    predicted = cross_val_predict(model, _rows(descriptors)[present], targets[present], cv=splits)
    return float(r2_score(targets[present], predicted))


def _neighbours(rows: Floats, labels: Labels, splits: list[Split], k: int) -> Accuracy:
    smallest = min(len(fit) for fit, _ in splits)
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(min(k, smallest)))
    names = np.asarray(labels)
    predicted = cross_val_predict(model, rows, names, cv=splits)
    most = max(Counter(names.tolist()).values())
    return Accuracy(float(np.mean(predicted == names)), most / len(names), len(names))


def _splits(groups: Sequence[Labels]) -> list[Split]:
    """Splits rows into those to fit on and those to predict, which have no label of any group in common.

    Every row is predicted once. With two groups of labels, a split predicts the rows in one fold of each, and fits on
    the rows in neither fold.
    """
    cells = np.stack([_folds(labels) for labels in groups])
    splits = []
    for cell in np.unique(cells, axis=1).T[..., None]:
        predict = np.flatnonzero((cells == cell).all(axis=0))
        fit = np.flatnonzero((cells != cell).all(axis=0))
        if not len(fit):
            raise ValueError(
                "photographs and tasks coincide, so holding them out leaves no rows to fit on; draw more tasks"
            )
        splits.append((fit, predict))
    return splits


def _folds(labels: Labels) -> NDArray[np.intp]:
    """Returns the fold of each row; rows with the same label are in the same fold."""
    names, labelled = np.unique(np.asarray(labels), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"at least 2 photographs and tasks are needed to hold one out, got {len(names)}")
    # In random order: with labels assigned cyclically, as by GroupKFold, a periodic order would bias the folds.
    assigned = generator("folds").permutation(len(names)) % min(_FOLDS, len(names))
    return np.asarray(assigned[labelled], dtype=np.intp)


def _rows(descriptors: ArrayLike) -> Floats:
    return np.asarray(descriptors, dtype=np.float64)
