"""The `descriptor` estimator: what it describes, what it finds, and which networks it refuses."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarestore.config.experiment import Experiment
from metarestore.config.model import FSRCNNSpec, KDSRSpec
from metarestore.errors import UserError
from metarestore.graphs.descriptor import DescriptorJob, descriptors
from metarestore.graphs.estimate import estimate
from metarestore.graphs.relations import Relations
from metarestore.learners.describer import open_describer
from metarestore.models.build import build_model
from metarestore.models.checkpoint import save_model
from metarestore.models.kdsr import KDSR
from metarestore.models.parameters import initial_vector
from metarestore.project import Project, resolve
from metarestore.tasks.synthetic import SyntheticSpec
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

ROOT = Path(__file__).parents[2]
TEACHER = KDSRSpec(kind="kdsr", size="tiny", estimator="teacher")
STUDENT = KDSRSpec(kind="kdsr", size="tiny", estimator="student")
BARE = KDSRSpec(kind="kdsr", size="tiny", estimator="none")
FSRCNN = FSRCNNSpec(d=8, s=4, m=1)


def saved(folder: Path, spec: KDSRSpec | FSRCNNSpec, scale: int = 4, seed: int = 0) -> Path:
    """Saves an untrained network as the result of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    flat = initial_vector(build_model(spec, scale, seed=seed))
    save_model(folder / "model.safetensors", spec, scale, flat)
    return folder


def by(network: Path | str, draws: int = 4) -> dict[str, Any]:
    """The graph section of an estimate by a network."""
    return {"estimator": {"kind": "descriptor", "network": str(network), "draws": draws}}


def related(workspace: Workspace) -> Relations:
    return estimate(workspace, lambda jobs, flat: [job.run(workspace, flat) for job in jobs], workspace.initial())


def network_of(spec: KDSRSpec) -> KDSR:
    network = build_model(spec, 4, seed=0).eval()
    assert isinstance(network, KDSR)
    return network


@pytest.mark.parametrize("spec", [TEACHER, STUDENT])
@pytest.mark.parametrize("side", [8, 16, 40])
def test_pairs_of_any_size_are_described_as_the_network_does(spec: KDSRSpec, side: int) -> None:
    network, rng = network_of(spec), torch.Generator().manual_seed(0)
    lr, hr = torch.rand(3, 3, side, side, generator=rng), torch.rand(3, 3, 4 * side, 4 * side, generator=rng)
    with torch.no_grad():
        expected = network.encode(lr, hr if spec.estimator == "teacher" else None).distilled.numpy()
    found = descriptors(network, lr, hr)
    assert found.shape == (3, 64)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_teacher_tells_what_was_done_from_what_was_there() -> None:
    """The same LR image beside another HR image is another degradation to it; a student cannot see that."""
    network, rng = network_of(TEACHER), torch.Generator().manual_seed(0)
    lr = torch.rand(1, 3, 16, 16, generator=rng)
    one, other = torch.rand(2, 1, 3, 64, 64, generator=rng)
    assert np.abs(descriptors(network, lr, one) - descriptors(network, lr, other)).max() > 1e-3
    student = network_of(STUDENT)
    np.testing.assert_array_equal(descriptors(student, lr, one), descriptors(student, lr, other))


@pytest.mark.parametrize("planted", ["blur_iso_wide", "noise_gaussian", "jpeg"])
def test_a_planted_relation_is_found(small_study: Callable[..., Study], planted: str) -> None:
    """A target that secretly is one of the auxiliary distributions is related to that one most, in most of 4 draws."""
    spec = Project(ROOT).task(planted)
    assert isinstance(spec, SyntheticSpec)
    found = []
    for seed in range(4):
        graph = {"auxiliary": ["blur_iso_wide", "noise_gaussian", "jpeg"], "estimator": {"kind": "descriptor"}}
        study = small_study(seed=seed, graph=graph, adaptation={"shots": 5, "shot_size": 128})
        relations = related(Workspace(dataclasses.replace(study, target=spec)))
        found.append(relations.auxiliary[int(relations.values.argmax())])
    assert found.count(planted) >= 3, found


def test_jobs_describe_each_draw_on_each_shot_and_travel(small_study: Callable[..., Study]) -> None:
    workspace = Workspace(small_study(graph={"estimator": {"kind": "descriptor", "draws": 3}}))
    job = pickle.loads(pickle.dumps(DescriptorJob("noise_gaussian", 3)))
    rows = job.run(workspace, workspace.initial())
    assert rows.shape[:2] == (3, 4)
    again = Workspace(pickle.loads(pickle.dumps(workspace.study)))
    np.testing.assert_array_equal(job.run(again, again.initial()), rows)
    assert not np.array_equal(rows[0], rows[1])


def test_a_control_describes_by_the_network_of_what_it_controls(
    small_study: Callable[..., Study], tmp_path: Path
) -> None:
    plain = by(saved(tmp_path / "net", STUDENT))
    behind = related(Workspace(small_study(graph=plain))).values
    for kind in ("inverted", "best_single"):
        workspace = Workspace(small_study(graph={"estimator": {"kind": kind, "of": plain["estimator"]}}))
        workspace.open_all()
        np.testing.assert_array_equal(related(workspace).values, -behind if kind == "inverted" else behind)


def test_a_path_starts_at_the_project_and_a_name_is_shipped(
    small_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    (tmp_path / "tasks").mkdir()
    saved(tmp_path / "runs/net", TEACHER)
    study = resolve(small_experiment(graph=by("runs/net")), tmp_path)
    assert study.experiment.graph.estimator.network == tmp_path / "runs/net"
    named = resolve(small_experiment(graph=by("kdsr_tiny_mixed")), tmp_path).experiment.graph.estimator
    assert named.network.is_file()
    assert open_describer(named, 4).privileged is False


def test_a_missing_network_is_one_line(small_experiment: Callable[..., Experiment], tmp_path: Path) -> None:
    graph = by("kdsr_tiny_mixedx")
    with pytest.raises(UserError, match=r"^graph.estimator.network: there is no .*did you mean 'kdsr_tiny_mixed'"):
        resolve(small_experiment(graph=graph), ROOT)
    with pytest.raises(UserError, match=r"^graph.estimator.of.network: there is no "):
        resolve(small_experiment(graph={"estimator": {"kind": "inverted", "of": graph["estimator"]}}), ROOT)


@pytest.mark.parametrize(
    ("spec", "scale", "text"),
    [
        (FSRCNN, 4, "has no degradation encoder; give a KDSR"),
        (BARE, 4, "has no degradation encoder; give a KDSR"),
        (TEACHER, 2, "has scale 2, but the target has scale 4"),
    ],
)
def test_a_network_that_cannot_describe_is_found_before_training(
    small_study: Callable[..., Study], tmp_path: Path, spec: KDSRSpec | FSRCNNSpec, scale: int, text: str
) -> None:
    workspace = Workspace(small_study(graph=by(saved(tmp_path / "net", spec, scale))))
    with pytest.raises(UserError, match=rf"^graph.estimator.network: .*{text}") as caught:
        workspace.open_all()
    assert len(caught.value.problems) == 1


def test_a_file_that_is_no_network_is_named(small_study: Callable[..., Study], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"^graph.estimator.network: .*not a safetensors file"):
        Workspace(small_study(graph=by(tmp_path / "model.safetensors"))).open_all()


def test_a_network_that_diverged_is_one_line(small_study: Callable[..., Study], tmp_path: Path) -> None:
    flat = initial_vector(build_model(TEACHER, 4, seed=0))
    save_model(tmp_path / "model.safetensors", TEACHER, 4, torch.full_like(flat, torch.nan))
    with pytest.raises(UserError, match="are not finite; use another network"):
        related(Workspace(small_study(graph=by(tmp_path))))


def test_a_run_is_resumed_with_the_network_that_it_began_with_only(
    small_study: Callable[..., Study], tmp_path: Path
) -> None:
    from metarestore.training.run import RunFolder

    network = saved(tmp_path / "net", TEACHER)
    for kind, estimator in (("plain", by(network)["estimator"]), ("control", None)):
        graph = {"estimator": estimator or {"kind": "inverted", "of": by(network)["estimator"]}}
        study = small_study(graph=graph)
        RunFolder(tmp_path / kind, study, resume=False)
        RunFolder(tmp_path / kind, study, resume=True)
        saved(network, TEACHER, seed=1)
        with pytest.raises(UserError, match=r'another configuration \(networks\["graph.estimator(.of)?.network"\] was'):
            RunFolder(tmp_path / kind, study, resume=True)
        saved(network, TEACHER, seed=0)
