"""One contract for every relation estimator, and planted relations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from metarestore.config import estimators
from metarestore.config.graph import WeightsSpec
from metarestore.graphs.estimate import best_single, estimate, inverted
from metarestore.graphs.gradient import _averaged, cosine_relations
from metarestore.graphs.graph import build_graph, load_graph, relations_of, save_graph
from metarestore.graphs.relations import Relations
from metarestore.graphs.reliability import bootstrap_error, jackknife_error, rank_correlation
from metarestore.graphs.weights import relation_weights
from metarestore.project import Project
from metarestore.tasks.synthetic import SyntheticSpec
from metarestore.tasks.task import Task
from metarestore.testing import EstimatorContract
from metarestore.testing import estimators as contract
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

ESTIMATORS: dict[str, dict[str, Any]] = {
    "response": {"draws": 4},
    "response, identification": {"kind": "response", "draws": 4, "features": "identification"},
    "descriptor": {"draws": 4},
    "gradient": {"draws": 4},
    "learned": {"steps": 4, "draws": 3, "dimension": 8},
    "transfer": {"steps": 2, "adaptation_steps": 2, "draws": 1},
    "uniform": {},
    "random": {},
    "inverted": {"of": {"kind": "response", "draws": 4}},
    "best_single": {"of": {"kind": "response", "draws": 4}},
    "expert": {},
}


EXAMPLES = {
    name: {"estimator": {"kind": name.split(",", maxsplit=1)[0], **options}} for name, options in ESTIMATORS.items()
}
EXAMPLES["expert"]["edges"] = [{"from": "blur_iso_wide", "relation": 0.8}]


class TestEveryEstimator(EstimatorContract):
    examples = EXAMPLES
    without_errors = ("uniform", "random", "expert")


def test_every_kind_has_an_example() -> None:
    assert {example["estimator"]["kind"] for example in EXAMPLES.values()} == set(estimators.ESTIMATORS)


def related(kind: str, forbidden: Sequence[str] = (), **changes: Any) -> Relations:
    """Estimates the relations of a small study; `kind` is the name of an example."""
    return contract.related({**EXAMPLES[kind], "forbidden": list(forbidden)}, **changes)


def test_controls(small_study: Callable[..., Study]) -> None:
    response_values = related("response").values
    np.testing.assert_array_equal(related("inverted").values, -response_values)
    np.testing.assert_array_equal(related("uniform").values, np.zeros(3))
    np.testing.assert_array_equal(related("expert").values, [0, 0.8, 0])
    assert not np.array_equal(related("random").values, related("random", seed=1).values)


def test_expert_edges_replace_estimates(small_study: Callable[..., Study]) -> None:
    workspace = Workspace(small_study(graph={"edges": [{"from": "bicubic", "relation": -0.5}]}))
    relations = estimate(workspace, lambda jobs, flat: [job.run(workspace, flat) for job in jobs], workspace.initial())
    assert relations.values[0] == -0.5
    assert relations.standard_errors[0] == 0
    np.testing.assert_array_equal(relations.values[1:], related("response").values[1:])


def test_edges_leave_the_controls_alone(small_study: Callable[..., Study]) -> None:
    edges = [{"from": "bicubic", "relation": 1.0}]

    def values(estimator: dict[str, Any]) -> np.ndarray:
        workspace = Workspace(small_study(graph={"edges": edges, "estimator": estimator}))
        run = lambda jobs, flat: [job.run(workspace, flat) for job in jobs]  # noqa: E731
        return estimate(workspace, run, workspace.initial()).values

    np.testing.assert_array_equal(values({"kind": "uniform"}), np.zeros(3))
    assert values({"kind": "random"})[0] != 1.0
    plain = values({"kind": "response", "draws": 4})
    np.testing.assert_array_equal(values({"kind": "inverted", "of": {"kind": "response", "draws": 4}}), -plain)


def test_transfer_scores_on_shots_that_it_did_not_learn_from(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every halving splits the shots in two, and each half is learned from once and scored once."""
    from metarestore.config.estimators import TransferEstimatorSpec
    from metarestore.graphs import transfer

    halves: list[tuple[set[int], set[int]]] = []

    def score(workspace: Any, flat: Any, shots: Any, learn: np.ndarray, test: np.ndarray, options: Any) -> float:
        halves.append((set(learn.tolist()), set(test.tolist())))
        return 0.0

    monkeypatch.setattr(transfer, "_score", score)
    options = TransferEstimatorSpec(kind="transfer", steps=1, draws=3)
    assert transfer.TransferJob(None, options).run(workspace, workspace.initial()).shape == (3, 2)
    assert len(halves) == 6
    for learn, test in halves:
        assert learn | test == {0, 1, 2, 3}
        assert not learn & test
    assert all(halves[k] == halves[k + 1][::-1] for k in (0, 2, 4))


def test_one_shot_has_no_split_half_reliability(small_study: Callable[..., Study]) -> None:
    for kind in ("response", "descriptor", "gradient"):
        relations = related(kind, adaptation={"shots": 1})
        assert np.isnan(relations.reliability)
        assert np.isfinite(relations.standard_errors).all()
    from metarestore.errors import UserError

    with pytest.raises(UserError, match="at least 2 shots"):
        related("transfer", adaptation={"shots": 1})


def test_bootstrap_of_a_mean_is_its_standard_error() -> None:
    sample = np.random.default_rng(0).standard_normal((400, 3))
    found = bootstrap_error(lambda drawn: sample[drawn].mean(axis=0), 400, seed=0)
    np.testing.assert_allclose(found, sample.std(axis=0, ddof=1) / 20, rtol=0.3)


PLANTED = ["bicubic", "blur_iso_mild", "blur_iso_wide", "noise_gaussian", "jpeg", "blur_noise"]


def planted_study(small_study: Callable[..., Study], target: SyntheticSpec, seed: int) -> Workspace:
    """A study whose target is hidden under another name."""
    study = small_study(
        seed=seed,
        graph={"auxiliary": PLANTED, "estimator": {"kind": "response", "draws": 12, "features": "identification"}},
        adaptation={"shots": 5, "shot_size": 128},
    )
    return Workspace(dataclasses.replace(study, target=target))


def specification(name: str) -> SyntheticSpec:
    spec = Project(small_root()).task(name)
    assert isinstance(spec, SyntheticSpec)
    return spec


def nearest(workspace: Workspace) -> list[str]:
    """Names of the auxiliary distributions, the most related one first."""
    relations = estimate(workspace, lambda jobs, flat: [job.run(workspace, flat) for job in jobs], workspace.initial())
    return [relations.auxiliary[i] for i in np.argsort(-relations.values)]


@pytest.mark.parametrize("planted", ["blur_iso_wide", "noise_gaussian", "jpeg", "blur_noise"])
def test_response_finds_a_planted_relation(small_study: Callable[..., Study], planted: str) -> None:
    """A target that secretly is one of the auxiliary distributions is related to that one most."""
    for seed in range(2):
        assert nearest(planted_study(small_study, specification(planted), seed))[0] == planted


@pytest.mark.parametrize("parts", [("blur_iso_wide", "noise_gaussian"), ("jpeg", "bicubic")])
def test_response_finds_both_parts_of_a_mixture(small_study: Callable[..., Study], parts: tuple[str, ...]) -> None:
    """A target whose shots come from two distributions is related to both; a seed that draws one alone is left out."""
    groups = [{"op": "group", "steps": specification(name).model_dump(mode="json")["pipeline"]} for name in parts]
    mixture = SyntheticSpec.model_validate(
        {"kind": "synthetic", "scale": 4, "pipeline": [{"op": "one_of", "choices": groups}]}
    )
    found = []
    for seed in range(3):
        workspace = planted_study(small_study, mixture, seed)
        branches = {shot.degradations[0].position[1] for shot in workspace.target_draw.shots}
        if len(branches) == 2:
            found.append(set(parts) <= set(nearest(workspace)[:3]))
    assert len(found) >= 2
    assert all(found)


def small_root() -> Any:
    from pathlib import Path

    return Path(__file__).parents[2]


def test_cosines() -> None:
    target = np.asarray([1.0, 0.0])
    draws = np.asarray([[[2.0, 0.0]], [[0.0, 3.0]], [[-1.0, 0.0]], [[1.0, 1.0]]])
    np.testing.assert_allclose(cosine_relations(target, draws), [1, 0, -1, np.sqrt(0.5)], atol=1e-12)


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    sample = np.random.default_rng(0).standard_normal((12, 3))
    replicates = [np.delete(sample, k, axis=0).mean(axis=0) for k in range(12)]
    np.testing.assert_allclose(jackknife_error(replicates, 3), sample.std(axis=0, ddof=1) / np.sqrt(12))
    assert np.isnan(jackknife_error(replicates[:1], 3)).all()


def test_rank_correlation() -> None:
    assert rank_correlation(np.asarray([1.0, 2, 3]), np.asarray([10.0, 20, 90])) == pytest.approx(1)
    assert np.isnan(rank_correlation(np.zeros(3), np.asarray([1.0, 2, 3])))


def test_inverted_turns_the_order_around() -> None:
    relations = Relations("t", ("a", "b"), np.asarray([0.2, 0.7]), np.zeros(2), "response", 3)
    assert inverted(relations).values.argmax() == 0


def test_best_single_allows_the_nearest_alone() -> None:
    relations = Relations("t", ("a", "b", "c"), np.asarray([0.2, 0.7, 0.1]), np.zeros(3), "response", 3)
    np.testing.assert_array_equal(best_single(relations).allowed, [False, True, False])


def test_best_single_never_chooses_what_is_forbidden(small_study: Callable[..., Study]) -> None:
    nearest = related("best_single")
    name = nearest.auxiliary[int(np.flatnonzero(nearest.allowed)[0])]
    other = related("best_single", forbidden=[name])
    assert int(other.allowed.sum()) == 1
    assert not other.allowed[nearest.allowed].any()


def test_relations_that_are_not_finite_are_named(small_study: Callable[..., Study]) -> None:
    from metarestore.errors import UserError

    with pytest.raises(UserError, match="transfer gives no finite relation for bicubic, blur_iso_wide, noise_gaussian"):
        related("transfer", training={"optimizer": {"lr": 1e30}})


def test_inverted_turns_what_was_estimated_before_a_prior() -> None:
    own = np.asarray([[0.3, -0.1], [0.05, 0.04]])
    relations = Relations("t", ("a", "b"), np.asarray([0.2, 0.1]), np.zeros(2), "response", 3, estimated=own)
    np.testing.assert_array_equal(inverted(relations).estimated, [[-0.3, 0.1], [0.05, 0.04]])


def test_directions_are_remembered_at_unit_length() -> None:
    """μ of what was carried along and 1 − μ of now, each of length 1."""
    target, auxiliary = np.asarray([[3.0, 0.0]]), np.asarray([[[[0.0, 5.0]]]])
    before = Relations(
        "t", ("a",), np.zeros(1), np.zeros(1), "gradient", 1, carried=np.asarray([0, 1, 1, 0], np.float32)
    )
    now = _averaged(target, auxiliary, 0.75, before)
    np.testing.assert_allclose(now[0], [[0.25, 0.75]])
    np.testing.assert_allclose(now[1], [[[[0.75, 0.25]]]])
    np.testing.assert_array_equal(_averaged(target, auxiliary, 0.75, None)[0], [[1, 0]])
    np.testing.assert_array_equal(_averaged(target, auxiliary, 0.0, before)[0], target)


def test_halves_of_the_shots_that_disagree_are_an_error(workspace: Workspace) -> None:
    """Draws that all agree, and halves with the cosines 1 and 0: an error of half their difference alone."""
    from metarestore.config.estimators import GradientEstimatorSpec
    from metarestore.graphs.gradient import estimate_gradient

    one, other = np.asarray([1.0, 0.0]), np.asarray([0.0, 1.0])
    target = np.stack([one, one])[None]
    found = [target, np.stack([[one, other]] * 3), np.stack([[one, one]] * 3), np.stack([[other, other]] * 3)]
    options = GradientEstimatorSpec(kind="gradient", draws=3)
    relations = estimate_gradient(workspace, lambda jobs, flat: found, torch.zeros(1), options)
    np.testing.assert_allclose(relations.standard_errors, [0.5, 0, 0], atol=1e-12)
    np.testing.assert_allclose(relations.values, [np.sqrt(0.5), 1, 0], atol=1e-12)


def test_transfer_adapts_what_the_learner_adapts(
    small_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    from metarestore.config.estimators import TransferEstimatorSpec
    from metarestore.graphs import transfer

    rules = []
    adapt = transfer.adapt

    def noted(*arguments: Any, **options: Any) -> Any:
        rules.append(options["rule"])
        return adapt(*arguments, **options)

    monkeypatch.setattr(transfer, "adapt", noted)
    for learner in ({"kind": "anil", "adapts": ["tail.*"]}, {"kind": "meta_sgd", "inner_lr": 0.02}):
        workspace = Workspace(small_study(learner=learner))
        job = transfer.TransferJob(None, TransferEstimatorSpec(kind="transfer", draws=1, adaptation_steps=1))
        job.run(workspace, workspace.network(workspace.initial()))
    assert 0 < float(rules[0].mask.sum()) < len(rules[0].mask)
    assert (rules[-1].rates == 0.02).all()


@pytest.mark.parametrize("draws", [1, 20])
def test_halving_the_shots_more_often_does_not_make_noise_reliable(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, draws: int
) -> None:
    """Gains that are noise of the shots alone: reliability 0, and errors as large as the values scatter."""
    from metarestore.config.estimators import TransferEstimatorSpec
    from metarestore.graphs.transfer import estimate_transfer

    names, shots = tuple("abcdefghij"), 10
    study = dataclasses.replace(workspace.study, auxiliary=dict.fromkeys(names, workspace.study.target))
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        of_shots = 0.3 * rng.standard_normal((len(names), shots))
        halves = [rng.permutation(shots).reshape(2, -1) for _ in range(draws)]
        scores = [np.asarray([[gain[h].mean() for h in halving] for halving in halves]) for gain in of_shots]
        monkeypatch.setattr(Workspace, "shots", Task(*(torch.zeros(shots, 3, 8, 8),) * 4))
        options = TransferEstimatorSpec(kind="transfer", draws=draws)
        run = lambda jobs, flat, s=scores: [np.zeros((draws, 2)), *s]  # noqa: E731
        found.append(estimate_transfer(Workspace(study), run, torch.zeros(1), options))
    assert abs(np.mean([relations.reliability for relations in found])) < 0.12
    errors = np.sqrt(np.mean([np.square(relations.standard_errors) for relations in found]))
    scatter = np.std([relations.values for relations in found])
    assert errors == pytest.approx(scatter, rel=0.25)


def test_forbidden_distributions_stay_and_weigh_nothing(small_study: Callable[..., Study]) -> None:
    relations = related("response", forbidden=["blur_*"])
    assert relations.auxiliary == ("bicubic", "blur_iso_wide", "noise_gaussian")
    np.testing.assert_array_equal(relations.allowed, [True, False, True])
    assert relation_weights(relations, WeightsSpec())[1] == 0


@pytest.mark.parametrize(
    ("forbidden", "said"),
    [
        (["jpeg"], "'jpeg' is and matches no auxiliary distribution"),
        (["b*", "noise_*"], "forbids all auxiliary distributions"),
    ],
)
def test_forbidden_patterns_are_checked(small_study: Callable[..., Study], forbidden: list[str], said: str) -> None:
    from metarestore.errors import UserError

    with pytest.raises(UserError, match=said):
        small_study(graph={"forbidden": forbidden})


@pytest.mark.parametrize("compares", ["gradients", "adaptations"])
def test_a_gradient_estimate_relates_a_distribution_to_itself_most(
    small_study: Callable[..., Study], compares: str
) -> None:
    """Its matrix has the cosine 1 with itself, and lower ones with the others."""
    workspace = Workspace(
        small_study(
            graph={"estimator": {"kind": "gradient", "draws": 2, "compares": compares}}, adaptation={"lr": 1e-3}
        )
    )
    relations = estimate(workspace, lambda jobs, flat: [j.run(workspace, flat) for j in jobs], workspace.initial())
    assert relations.matrix is not None
    assert (relations.matrix[~np.eye(4, dtype=bool)] < 1 - 1e-6).all()


def test_graph_round_trip(small_study: Callable[..., Study], tmp_path: Any) -> None:
    study = small_study()
    relations = related("response")
    weights = {"bicubic": 0.5, "blur_iso_wide": 2.0, "noise_gaussian": 0.5}
    graph = build_graph(relations, weights, study.auxiliary, study.target, {"seed": 3})
    save_graph(graph, tmp_path)
    loaded = load_graph(tmp_path / "graph.json")
    assert loaded.nodes["phone_camera"]["kind"] == "target"
    assert loaded.edges["blur_iso_wide", "phone_camera"]["weight"] == 2.0
    assert loaded.nodes["phone_camera"]["seed"] == 3
    np.testing.assert_allclose(relations_of(loaded).values, relations.values)
    import networkx as nx

    again = nx.read_graphml(tmp_path / "graph.graphml")
    assert again.edges["blur_iso_wide", "phone_camera"]["relation"] == pytest.approx(relations.values[1])


def test_relations_survive_json() -> None:
    relations = Relations("t", ("a", "b"), np.asarray([0.2, 0.7]), np.zeros(2), "response", 3, 0.5, np.eye(3))
    again = Relations.from_json(relations.to_json())
    np.testing.assert_array_equal(again.values, relations.values)
    np.testing.assert_array_equal(again.matrix, relations.matrix)
    assert (again.auxiliary, again.estimator, again.draws) == (("a", "b"), "response", 3)
