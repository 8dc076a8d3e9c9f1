"""Which network a folder stands for: the adapted one, of a comparison the arm with the greatest mean gain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metarestore.config.model import FSRCNNSpec
from metarestore.errors import UserError
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model, network_hash, save_model
from metarestore.models.choice import choose_network
from metarestore.models.parameters import initial_vector

SPEC = FSRCNNSpec(d=8, s=4, m=1)
ADAPTED, UNADAPTED = "adapted.safetensors", "model.safetensors"


def run(folder: Path, *names: str, seed: int = 0) -> Path:
    for index, name in enumerate(names or (ADAPTED, UNADAPTED)):
        save_model(folder / name, SPEC, 2, initial_vector(build_model(SPEC, 2, seed + index)))
    return folder


def comparison(folder: Path, **psnr: Any) -> Path:
    for index, name in enumerate(psnr):
        run(folder / "arms" / name, seed=10 * index)
    arms = {name: {"psnr_y": values} for name, values in psnr.items()}
    results = {"arms": {"bicubic": {"psnr_y": [20.0, 30.0, 25.0]}, **arms}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.mark.parametrize(("weights", "name"), [(None, ADAPTED), ("adapted", ADAPTED), ("unadapted", UNADAPTED)])
def test_a_run_means_its_adapted_network_unless_the_other_is_named(weights, name, tmp_path):
    choice = choose_network(str(run(tmp_path / "run")), weights=weights)
    assert choice.file == tmp_path / "run" / name
    assert choice.reason == f"the {weights or 'adapted'} network of {tmp_path / 'run'}"


@pytest.mark.parametrize(
    ("psnr", "best"),
    [
        ({"a": [21, 31, 26], "b": [22, 32, 27], "c": [20, 30, 25]}, "b"),
        ({"a": [40, 10, 10], "b": [21, 31, 26]}, "b"),
        ({"a": [21, 31, 26], "b": [None, 32, 27]}, "b"),
        ({"a": [20.5, 30.5, 25.5], "b": [None, None, None]}, "a"),
        ({"b": [19, 29, 24], "a": [18, 28, 23]}, "b"),
        ({"only": [1, 2, 3]}, "only"),
    ],
)
@pytest.mark.parametrize("weights", [None, "unadapted"])
def test_a_comparison_means_its_best_arm_by_mean_gain(psnr, best, weights, tmp_path):
    choice = choose_network(comparison(tmp_path, **psnr), weights=weights)
    assert choice.file == tmp_path / "arms" / best / (UNADAPTED if weights else ADAPTED)
    assert f"arm '{best}' of {tmp_path}" in choice.reason
    assert ("by mean gain" in choice.reason) == (len(psnr) > 1)
    load_model(str(choice.file))


@pytest.mark.parametrize("arm", ["a", "b"])
def test_an_arm_is_chosen_by_its_name_or_its_folder(arm, tmp_path):
    comparison(tmp_path, a=[21, 31, 26], b=[22, 32, 27])
    by_name = choose_network(tmp_path, arm)
    assert by_name.file == choose_network(tmp_path / "arms" / arm).file == tmp_path / "arms" / arm / ADAPTED


@pytest.mark.parametrize("name", [ADAPTED, UNADAPTED])
def test_a_run_with_one_network_means_that(name, tmp_path):
    choice = choose_network(run(tmp_path, name))
    assert choice.file == tmp_path / name
    assert ("unadapted" in choice.reason) == (name == UNADAPTED)


@pytest.mark.parametrize("name", [ADAPTED, UNADAPTED])
def test_content_chooses_between_the_two(name, tmp_path):
    content = network_hash(run(tmp_path) / name)
    assert choose_network(tmp_path, content=content).file == tmp_path / name
    assert choose_network(tmp_path, weights="adapted", content=content).file == tmp_path / ADAPTED
    assert choose_network(tmp_path, content="another").file == tmp_path / ADAPTED


def test_files_and_shipped_networks_mean_themselves(tmp_path):
    file = run(tmp_path) / UNADAPTED
    assert (choose_network(file).file, choose_network(file).reason) == (file, str(file))
    assert choose_network("kdsr_tiny_mixed").reason == "kdsr_tiny_mixed"


WRONG = {
    "nothing": (lambda at: at / "x", {}, "no such file"),
    "empty folder": (lambda at: at, {}, "no such file"),
    "no arms": (run, {"arm": "a"}, "--arm: .* is not a study"),
    "unknown arm": (lambda at: comparison(at, first=[1, 2, 3]), {"arm": "frist"}, "--arm: .* did you mean 'first'"),
    "file with arm": (lambda at: run(at) / ADAPTED, {"arm": "a"}, "--arm: needs the folder of a run"),
    "file with weights": (lambda at: run(at) / ADAPTED, {"weights": "adapted"}, "--weights: needs the folder"),
    "shipped with weights": (lambda at: "kdsr_tiny_mixed", {"weights": "adapted"}, "--weights: needs the folder"),
    "not adapted": (lambda at: run(at, UNADAPTED), {"weights": "adapted"}, "--weights: .* contains no adapted network"),
}


@pytest.mark.parametrize(("make", "options", "message"), WRONG.values(), ids=WRONG)
def test_what_is_not_there_is_said(make, options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        choose_network(make(tmp_path), **options)


@pytest.mark.parametrize("results", [None, "", "{}", '{"arms": {}}', '{"arms": {"bicubic": {"psnr_y": 1}, "a": {}}}'])
def test_a_comparison_without_results_asks_for_an_arm(results, tmp_path):
    comparison(tmp_path, a=[1, 2, 3], b=[1, 2, 3])
    (tmp_path / "results.json").unlink()
    if results is not None:
        (tmp_path / "results.json").write_text(results)
    with pytest.raises(UserError, match="has no results yet to select an arm by; add --arm a or --arm b"):
        choose_network(tmp_path)


def test_elsewhere_a_comparison_is_told_from_a_run(tmp_path):
    comparison(tmp_path, a=[1, 2, 3])
    with pytest.raises(UserError, match=r"is a study; give the folder of one of its arms, e\.g\. .*arms/a"):
        load_model(tmp_path)
