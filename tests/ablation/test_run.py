"""Grids end with the figures of single studies, however they were run: shared, resumed, side by side, with failures."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import ray
from mlflow.tracking import MlflowClient
from rich.console import Console

from metarestore.ablation import unit
from metarestore.ablation.plan import cell_folder, plan_cells, plan_units, training_study
from metarestore.ablation.run import reference_arm, run_ablation
from metarestore.ablation.unit import Failed, read_result, run_unit
from metarestore.config.engine import RayEngineSpec
from metarestore.config.experiment import Experiment
from metarestore.config.grid import Grid
from metarestore.engines.local import LocalEngine
from metarestore.errors import UserError
from metarestore.evaluation.ablation import AblationResult, CellResult
from metarestore.project import resolve
from metarestore.reports.ablation.progress import AblationDisplay
from metarestore.reports.study.progress import TrainingDisplay
from metarestore.study.run import run_study
from metarestore.tasks.images import write_image
from metarestore.training.interrupt import Interrupted
from metarestore.training.log import LogRow
from metarestore.training.run import RunFolder, train

REPOSITORY = Path(__file__).parents[2]
Build = Callable[..., Experiment]
ARMS: dict[str, Any] = {
    "response": {},
    "uniform": {"graph": {"estimator": {"kind": "uniform"}}},
    "target_only": {"training": {"source": "target"}, "learner": {"kind": "pretrain"}},
}


@pytest.fixture
def store(mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    return MlflowClient(tracking_uri=mlflow_store)


def run(experiment: Experiment, out: Path, name: str = "grid", **options: Any) -> AblationResult:
    display = AblationDisplay(Console(file=io.StringIO()))
    return run_ablation(experiment, REPOSITORY, out, display, name=name, command="metarestore ablate", **options)


def figures(result: CellResult | Failed) -> dict[str, Any]:
    """Returns what has to be the same, however a cell was run: all but the times."""
    assert isinstance(result, CellResult), result
    return result.to_json() | {"training_seconds": None, "relating_seconds": None}


def by_name(result: AblationResult) -> dict[str, dict[str, Any]]:
    return {cell.name: figures(cell) for cell in result.cells}


@pytest.mark.usefixtures("store")
def test_a_cell_has_the_figures_of_its_experiment_trained_alone(small_experiment: Build, tmp_path: Path) -> None:
    experiment = small_experiment(arms=ARMS, grid={"adaptation.shots": [2, 4], "seed": [3]})
    grid = Grid(experiment)
    cell = next(cell for cell in grid.cells() if cell.name == "response,shots=2,seed=3")
    found = by_name(run(experiment, tmp_path / "grid"))[cell.name]
    display = TrainingDisplay(Console(file=io.StringIO()))
    alone = run_study(
        grid.cell_experiment(cell), REPOSITORY, tmp_path / "one", display, name="one", command="", arms=False
    )
    bicubic, arm = alone.arms
    assert arm.main.colour is not None
    luma = {"psnr_y": arm.psnr_y.tolist(), "ssim_y": arm.main.ssim_y.tolist()}
    assert found["after"] == luma | arm.main.colour.to_json()
    assert found["before"]["psnr_y"] == arm.main.psnr_y[0].tolist()
    assert found["bicubic"]["psnr_y"] == bicubic.psnr_y.tolist()
    assert found["weights"] == arm.weights
    assert found["photographs"] == list(arm.photographs)


def test_cells_share_a_training_where_it_cannot_tell_them_apart(small_experiment: Build, tmp_path: Path) -> None:
    axes = {"learner": [{"kind": "pretrain"}, {"kind": "fomaml"}], "adaptation.shots": [2, 4], "seed": [0, 1]}
    units = plan_units(plan_cells(small_experiment(arms=ARMS, grid=axes), REPOSITORY), tmp_path, keep=False)
    sizes = {arm: [len(u.cells) for u in units if u.cells[0].cell.arm == arm] for arm in ARMS}
    assert sizes == {"response": [1] * 8, "uniform": [2] * 4, "target_only": [2] * 4}


CHANGES: dict[str, tuple[dict[str, Any], bool]] = {
    "target": ({"graph": {"target": "camera_dslr"}}, True),
    "shots": ({"adaptation": {"shots": 2}}, True),
    "adaptation": ({"adaptation": {"lr": 1e-2}}, True),
    "crops": ({"evaluation": {"crop": 32}}, True),
    "seed": ({"seed": 1}, False),
    "steps": ({"training": {"steps": 3}}, False),
    "learner": ({"learner": {"kind": "pretrain"}}, False),
    "model": ({"model": {"d": 9}}, False),
    "sources": ({"graph": {"auxiliary": ["bicubic", "jpeg", "noise_gaussian"]}}, False),
    "balance": ({"graph": {"weights": {"balance": "ema"}}}, False),
    "forbidden": ({"graph": {"forbidden": ["bicubic"]}}, False),
    "scale": ({"scale": 2}, False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_uniform_trainings_are_shared_exactly_where_they_are_the_same(
    small_experiment: Build, tmp_path: Path, change: str
) -> None:
    """Two arms in which only one thing differs: told apart, or shared and trained to the same bits."""
    patch, shared = CHANGES[change]
    uniform = small_experiment(graph={"estimator": {"kind": "uniform"}})
    first = resolve(uniform, REPOSITORY)
    data = uniform.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for section, entries in patch.items():
        data[section] = {**data[section], **entries} if isinstance(entries, dict) and "kind" not in entries else entries
    second = resolve(Experiment.model_validate(data), REPOSITORY)
    assert (training_study(first) == training_study(second)) == shared
    if shared:
        assert np.array_equal(trained(second, tmp_path / "own"), trained(training_study(first), tmp_path / "shared"))


@pytest.mark.parametrize(
    ("patch", "shared"),
    [
        ({"graph": {"target": "camera_dslr"}}, False),
        ({"adaptation": {"shots": 2}}, False),
        ({"adaptation": {"lr": 1e-2}}, True),
        ({"evaluation": {"self_ensemble": True}}, True),
    ],
)
def test_trainings_on_shots_are_shared_where_the_shots_are(
    small_experiment: Build, patch: dict[str, Any], shared: bool
) -> None:
    setting = {"graph": {"estimator": {"kind": "uniform"}}, "training": {"shot_tasks": 1}}
    both = (small_experiment(**setting), small_experiment(**_merged(setting, patch)))
    first, second = (training_study(resolve(one, REPOSITORY)) for one in both)
    assert (first == second) == shared


def test_where_all_tasks_are_of_the_shots_none_is_added(small_experiment: Build, tmp_path: Path) -> None:
    """An arm that learns from the shots alone may inherit `shot_tasks`: it is the same training."""
    plain, inherited = (
        resolve(small_experiment(training={"source": "target", **more}), REPOSITORY) for more in ({}, {"shot_tasks": 1})
    )
    assert training_study(plain) == training_study(inherited)
    assert np.array_equal(trained(plain, tmp_path / "plain"), trained(inherited, tmp_path / "inherited"))


def _merged(setting: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    return setting | {section: setting.get(section, {}) | entries for section, entries in patch.items()}


SHARED: dict[str, dict[str, Any]] = {
    "uniform, shots": {"graph": {"estimator": {"kind": "uniform"}}, "training": {"shot_tasks": 1}},
    "random": {"graph": {"estimator": {"kind": "random"}, "weights": {"temperature": 0.2, "top": 2}}},
    "expert": {"graph": {"estimator": {"kind": "expert"}, "edges": [{"from": "blur_iso_wide", "relation": 0.9}]}},
    "target": {"training": {"source": "target"}},
    "response": {},
}


@pytest.mark.parametrize("case", SHARED)
def test_what_is_left_out_of_a_training_changes_no_bit(small_experiment: Build, tmp_path: Path, case: str) -> None:
    study = resolve(small_experiment(**SHARED[case]), REPOSITORY)
    assert np.array_equal(trained(study, tmp_path / "own"), trained(training_study(study), tmp_path / "shared"))


def trained(study: Any, place: Path) -> Any:
    session = LocalEngine().session(study)
    return train(session.workspace, RunFolder(place, study, resume=False), session, Mock()).flat.numpy()


@pytest.mark.usefixtures("store")
def test_photographs_need_only_hold_the_crops_that_are_asked_for(small_experiment: Build, tmp_path: Path) -> None:
    """Test photographs below the default crop: shots and figures come from what is there."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for number in range(2):
            pixels = rng.integers(0, 256, (96, 96, 3), np.uint8)
            write_image(tmp_path / split / f"{number}.png", pixels)
    data = {split: str(tmp_path / split) for split in ("train", "test")}
    experiment = small_experiment(data=data, arms=ARMS, grid={"seed": [0]}, evaluation={"crop": 64, "crops": 1})
    assert not run(experiment, tmp_path / "grid").failures


@pytest.mark.usefixtures("store")
def test_a_stopped_grid_goes_on_to_the_same_figures(
    small_experiment: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small_experiment(arms=ARMS, grid={"seed": [0, 1]}, training={"steps": 5})
    whole = by_name(run(experiment, tmp_path / "whole"))

    steps: list[int] = []

    def step(self: object, row: LogRow) -> None:
        steps.append(row.step)
        if len(steps) == 8:  # in the middle of the second training
            signal.raise_signal(signal.SIGINT)

    out = tmp_path / "parts"
    with monkeypatch.context() as patched:
        patched.setattr(unit.Observer, "step", step)
        with pytest.raises(Interrupted):
            run(experiment, out)
        first = [place.name for place in (out / "cells").iterdir() if (place / "result.json").is_file()]
        assert first == ["response,seed=0"]
        finished = (out / "cells/response,seed=0/result.json").stat().st_mtime_ns
        patched.setattr(unit.Observer, "step", lambda self, row: steps.append(row.step))
        parts = by_name(run(experiment, out, resume=True))
    assert parts == whole
    assert steps[8:10] == [4, 5], "the stopped training began anew"
    assert (out / "cells/response,seed=0/result.json").stat().st_mtime_ns == finished
    assert not list((out / "trained").iterdir())


@pytest.mark.usefixtures("store")
def test_cells_may_be_added_to_a_grid_and_not_changed(small_experiment: Build, tmp_path: Path) -> None:
    out = tmp_path / "grid"
    small = run(small_experiment(arms=ARMS, grid={"seed": [0]}), out)
    with pytest.raises(UserError, match="holds a run already"):
        run(small_experiment(arms=ARMS, grid={"seed": [0]}), out)
    with pytest.raises(UserError, match=r"3 cells were run with another configuration, e\.g\. response,seed=0"):
        run(small_experiment(arms=ARMS, grid={"seed": [0]}, training={"steps": 3}), out, resume=True)
    more = by_name(run(small_experiment(arms=ARMS, grid={"seed": [0, 1]}), out, resume=True))
    assert len(more) == 6
    assert {name: more[name] for name in by_name(small)} == by_name(small)
    with pytest.raises(UserError, match=r"--resume: .* contains no ablation to continue"):
        run(small_experiment(arms=ARMS, grid={"seed": [0]}), tmp_path / "none", resume=True)


def test_failing_cells_lose_nothing(small_experiment: Build, tmp_path: Path, store: MlflowClient) -> None:
    arms = {
        "uniform": ARMS["uniform"],
        "halves": {"graph": {"estimator": {"kind": "transfer", "steps": 1, "adaptation_steps": 1}}},
        "diverging": {"learner": {"inner_lr": 1e30}},
    }
    experiment = small_experiment(arms=arms, grid={"adaptation.shots": [1, 2]})
    result = run(experiment, tmp_path / "grid", name="failing")
    assert [cell.name for cell in result.cells] == ["uniform,shots=1", "uniform,shots=2", "halves,shots=2"]
    assert set(result.failures) == {"halves,shots=1", "diverging,shots=1", "diverging,shots=2"}
    assert "transfer requires at least 2 shots" in result.failures["halves,shots=1"]
    assert "not finite" in result.failures["diverging,shots=2"]
    text = (tmp_path / "grid/results.md").read_text()
    assert all(f"{name} failed: {error}" in text for name, error in result.failures.items())
    found = store.search_runs([store.get_experiment_by_name("failing").experiment_id])
    (parent,) = (run for run in found if "mlflow.parentRunId" not in run.data.tags)
    nested = {run.info.run_name: run for run in found if run is not parent}
    assert parent.info.status == "FINISHED"
    assert {name: run.info.status for name, run in nested.items()} == {
        **{cell.name: "FINISHED" for cell in result.cells},
        **dict.fromkeys(result.failures, "FAILED"),
    }
    measured = nested["halves,shots=2"].data
    assert measured.params["arm"] == "halves"
    assert measured.params["graph.estimator.kind"] == "transfer"
    cell = next(cell for cell in result.cells if cell.name == "halves,shots=2")
    assert measured.metrics["psnr_y"] == pytest.approx(np.mean(cell.after.psnr_y))


@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("store")
def test_side_by_side_gives_the_same_bytes_as_one_after_the_other(small_experiment: Build, tmp_path: Path) -> None:
    arms = {**ARMS, "diverging": {"learner": {"inner_lr": 1e30}}}
    experiment = small_experiment(arms=arms, grid={"seed": [0, 1]})
    serial = run(experiment, tmp_path / "serial")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        engine = RayEngineSpec(kind="ray", workers=2)
        parallel = run(experiment.model_copy(update={"engine": engine}), tmp_path / "parallel")
    finally:
        ray.shutdown()
    assert by_name(parallel) == by_name(serial)
    assert parallel.failures == serial.failures
    assert len(serial.failures) == 2


def test_cells_on_gpus_are_refused(small_experiment: Build) -> None:
    engine = {"kind": "ray", "gpus_per_worker": 0.5}
    with pytest.raises(UserError, match="gpus_per_worker: the cells of an ablation run on one CPU thread"):
        plan_cells(small_experiment(arms=ARMS, grid={"seed": [0]}, engine=engine), REPOSITORY)


def test_names_that_mean_nothing_are_found_before_anything_runs(small_experiment: Build) -> None:
    experiment = small_experiment(arms=ARMS, grid={"graph.target": ["phone_camera", "phone_camra"]})
    with pytest.raises(UserError, match=r"no task 'phone_camra'.*did you mean 'phone_camera'.*cell response,target=ph"):
        plan_cells(experiment, REPOSITORY)
    with pytest.raises(UserError, match="grid: is missing"):
        plan_cells(small_experiment(arms=ARMS), REPOSITORY)
    with pytest.raises(UserError, match="arms: is missing"):
        plan_cells(small_experiment(grid={"seed": [0]}), REPOSITORY)
    with pytest.raises(UserError, match="excludes every cell"):
        plan_cells(small_experiment(arms=ARMS, grid={"seed": [0]}, grid_exclude=[{"seed": 0}]), REPOSITORY)


def test_arms_are_compared_with_the_first_that_is_uniform(small_experiment: Build) -> None:
    control = {"graph": {"estimator": {"kind": "uniform"}}}
    arms = {"target_only": {**ARMS["target_only"], **control}, "response": {}, "plain": control, "again": control}
    assert reference_arm(small_experiment(arms=arms, grid={"seed": [0]}), None) == "plain"
    assert reference_arm(small_experiment(arms={"b": {}, "a": {}}, grid={"seed": [0]}), None) == "b"
    assert reference_arm(small_experiment(arms=arms, grid={"seed": [0]}), "again") == "again"
    with pytest.raises(UserError, match="--against: there is no arm 'plane'; did you mean 'plain'"):
        reference_arm(small_experiment(arms=arms, grid={"seed": [0]}), "plane")


def test_trainings_and_networks_are_kept_when_asked(small_experiment: Build, tmp_path: Path) -> None:
    plans = plan_cells(small_experiment(arms={"response": {}}, grid={"seed": [0]}), REPOSITORY)
    for keep in (False, True):
        out = tmp_path / str(keep)
        (one,) = plan_units(plans, out, keep=keep)
        (outcome,) = run_unit(one)
        place = cell_folder(out, plans[0].cell)
        assert read_result(place) == outcome
        assert (place / "adapted.safetensors").is_file() == keep
        assert (one.folder / "model.safetensors").is_file() == keep


def test_a_cell_of_a_failing_training_keeps_it_for_the_next_time(small_experiment: Build, tmp_path: Path) -> None:
    """Measuring fails for one of the two cells that share a training."""
    plans = plan_cells(small_experiment(arms={"u": ARMS["uniform"]}, grid={"adaptation.shots": [2, 4]}), REPOSITORY)
    good, bad = plans
    (one,) = plan_units([good, bad], tmp_path, keep=False)
    cell_folder(tmp_path, bad.cell).parent.mkdir(parents=True)
    cell_folder(tmp_path, bad.cell).write_text("in the way")
    outcomes = run_unit(one)
    assert isinstance(outcomes[0], CellResult)
    assert isinstance(outcomes[1], Failed)
    assert "cannot be written" in outcomes[1].error
    assert (one.folder / "model.safetensors").is_file()
