"""Contract tests of relation estimators."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from metarestore.graphs.estimate import estimate
from metarestore.graphs.relations import Relations
from metarestore.testing.contract import Contract
from metarestore.testing.study import small_study
from metarestore.workspace.workspace import Workspace


def related(graph: Mapping[str, Any], **changes: Any) -> Relations:
    """Estimates the relations of a small study in this process.

    Args:
        graph: Keys of the section `graph` in addition to target and auxiliary distributions.
        changes: Changes to other sections.
    """
    workspace = Workspace(small_study(graph=dict(graph), **changes))
    return estimate(workspace, lambda jobs, flat: [job.run(workspace, flat) for job in jobs], workspace.initial())


class EstimatorContract(Contract):
    """Tests relation estimators; an example is a section `graph` without target and auxiliary distributions.

    For instance `{"estimator": {"kind": ..., "draws": 4}}`.
    """

    without_errors: ClassVar[Collection[str]] = ()
    """Kinds that do not estimate standard errors."""

    @pytest.fixture
    def relations(self, example: Mapping[str, Any]) -> Relations:
        """The relations of a small study."""
        return related(example)

    def test_relates_every_auxiliary_distribution(self, example: Mapping[str, Any], relations: Relations) -> None:
        """Values lie in [−1, 1], and errors are not negative."""
        kind = example["estimator"]["kind"]
        assert relations.auxiliary == ("bicubic", "blur_iso_wide", "noise_gaussian")
        assert relations.target == "phone_camera"
        assert relations.estimator == kind
        assert relations.values.shape == relations.standard_errors.shape == (3,)
        assert np.abs(relations.values).max() <= 1 + 1e-9
        errors = relations.standard_errors
        assert (errors[np.isfinite(errors)] >= 0).all()
        assert kind in self.without_errors or np.isfinite(errors).all()

    def test_is_the_same_twice(self, example: Mapping[str, Any], relations: Relations) -> None:
        """An estimate depends on the study only."""
        np.testing.assert_array_equal(relations.values, related(example).values)

    def test_a_matrix_agrees_with_the_values(self, relations: Relations) -> None:
        """The matrix of all distributions, if there is one, is symmetric, and its last row contains the values."""
        if relations.matrix is not None:
            np.testing.assert_allclose(relations.matrix, relations.matrix.T, atol=1e-12)
            np.testing.assert_allclose(np.diag(relations.matrix), 1, atol=1e-9)
            np.testing.assert_allclose(relations.matrix[-1, :-1], relations.values, atol=1e-9)

    def test_survives_json(self, relations: Relations) -> None:
        """Relations are unchanged by a round trip through JSON."""
        restored = Relations.from_json(relations.to_json())
        np.testing.assert_array_equal(restored.values, relations.values)
        np.testing.assert_array_equal(restored.standard_errors, relations.standard_errors)
