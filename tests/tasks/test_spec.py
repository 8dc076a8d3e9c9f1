"""Task files: what decides a draw, scales, and protocols."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from metarestore.degradations import OPERATIONS, Pipeline
from metarestore.errors import UserError
from metarestore.project import Project, catalogue, read_experiment, read_task, resolve
from metarestore.tasks.pairs import PairsSpec
from metarestore.tasks.protocol import ProtocolSpec
from metarestore.tasks.spec import content_hash
from metarestore.tasks.synthetic import PipelineSpec

TASK = "kind: synthetic\nscale: 4\npipeline:\n  - {op: gaussian_blur, sigma: [0.4, 2]}\n  - {op: downsample}\n"


def spec_of(tmp_path: Path, text: str, name: str = "task") -> PipelineSpec:
    (tmp_path / "tasks").mkdir(exist_ok=True)
    path = tmp_path / "tasks" / f"{name}.yaml"
    path.write_text(text)
    spec = read_task(path)
    assert isinstance(spec, PipelineSpec)
    return spec


def draws(spec: PipelineSpec) -> list[object]:
    return [spec.degradation(content_hash(spec), 0, index) for index in range(4)]


@pytest.mark.parametrize(
    "same",
    [
        "# A comment.\n" + TASK,
        TASK.replace("{op: gaussian_blur, sigma: [0.4, 2]}", "op: gaussian_blur\n    sigma: [0.4, 2.0]"),
        TASK.replace("[0.4, 2]", "[0.4, 2], ratio: 1"),
        TASK.replace("{op: downsample}", "{op: downsample, method: bicubic, probability: 1}"),
    ],
    ids=["comment", "layout", "default written", "more defaults written"],
)
def test_what_means_the_same_draws_the_same(tmp_path: Path, same: str) -> None:
    assert draws(spec_of(tmp_path, same)) == draws(spec_of(tmp_path, TASK))


@pytest.mark.parametrize(
    "other",
    [
        TASK.replace("[0.4, 2]", "[0.4, 2.1]"),
        TASK.replace("[0.4, 2]", "{log_uniform: [0.4, 2]}"),
        TASK.replace("scale: 4", "scale: 2"),
        TASK.replace("{op: downsample}", "{op: downsample, method: area}"),
        TASK + "  - {op: jpeg, quality: 90}\n",
        TASK.replace("[0.4, 2]", "[0.4, 2], probability: 0.9"),
    ],
)
def test_what_means_something_else_draws_otherwise(tmp_path: Path, other: str) -> None:
    first, second = spec_of(tmp_path, TASK), spec_of(tmp_path, other)
    assert content_hash(first) != content_hash(second)
    sigmas = [[draw.params.get("sigma") for draw in each] for each in (draws(first)[0], draws(second)[0])]
    assert sigmas[0] != sigmas[1]


def test_structures_are_part_of_the_content(tmp_path: Path) -> None:
    inside = "[{op: gamma, exponent: 1}, {op: gamma, exponent: 2}]"
    different = [
        f"op: one_of, choices: {inside}",
        f"op: one_of, choices: {inside}, weights: [1, 2]",
        f"op: one_of, choices: {inside}, weights: [2, 1]",
        f"op: one_of, choices: {inside}, probability: 0.5",
        f"op: group, steps: {inside}",
        f"op: group, steps: {inside}, probability: 0.5",
        f"op: shuffle, steps: {inside}",
        f"op: shuffle, steps: {inside}, ordered: [0, 1]",
        f"op: repeat, steps: {inside}",
        f"op: repeat, steps: {inside}, times: 3",
        f"op: repeat, steps: {inside.replace('exponent: 2', 'exponent: 3')}",
    ]
    hashes = [content_hash(spec_of(tmp_path, f"{TASK}  - {{{entry}}}\n")) for entry in different]
    assert len(set(hashes)) == len(different)
    same = (f"op: repeat, steps: {inside}, times: 2", f"op: group, steps: {inside}, probability: 1")
    assert [content_hash(spec_of(tmp_path, f"{TASK}  - {{{entry}}}\n")) for entry in same] == [hashes[8], hashes[4]]


def test_what_another_scale_draws_does_not_matter(tmp_path: Path) -> None:
    texts = [TASK.replace("[0.4, 2]", f"{{per_scale: {{{extra}4: [0.4, 2]}}}}") for extra in ("", "2: [0.2, 1], ")]
    assert len({content_hash(spec_of(tmp_path, text)) for text in (TASK, *texts)}) == 1


CATALOGUE = sorted((catalogue() / "tasks").glob("*.yaml"))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("path", CATALOGUE, ids=lambda path: path.stem)
def test_the_catalogue_serves_every_scale(path: Path, scale: int) -> None:
    scales = getattr(read_task(path), "scales", (2, 3, 4))
    if scale not in scales:
        defined = ", ".join(map(str, scales))
        with pytest.raises(UserError, match=f"is defined only for scale {defined}, not for {scale}"):
            read_task(path, scale)
        return
    spec = read_task(path, scale)
    assert isinstance(spec, PipelineSpec)
    assert spec.scale == scale
    last = [draw for draw in spec.degradation(content_hash(spec), 0, 0) if draw.op == "downsample"]
    assert [draw.params["scale"] for draw in last] == [scale]


def test_a_parameter_without_this_scale_is_named(tmp_path: Path) -> None:
    spec_of(tmp_path, TASK.replace("[0.4, 2]", "{per_scale: {2: 1, 4: 2}}"))
    with pytest.raises(UserError, match=r"task.yaml:4:32: pipeline\[0\].sigma: .* for scale 3, only for 2, 4"):
        read_task(tmp_path / "tasks/task.yaml", 3)


def test_one_key_changes_the_scale_of_a_study(tmp_path: Path) -> None:
    experiment = read_experiment(catalogue() / "experiments/demo.yaml").model_copy(update={"scale": 2})
    study = resolve(experiment, catalogue())
    assert {spec.scale for spec in (study.target, *study.auxiliary.values())} == {2}


def test_pairs_have_one_scale(tmp_path: Path) -> None:
    for folder in ("tasks", "lr", "hr"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tasks/pairs.yaml").write_text("kind: pairs\nscale: 4\nlr: lr\nhr: hr\n")
    assert isinstance(read_task(tmp_path / "tasks/pairs.yaml", 4), PairsSpec)
    with pytest.raises(UserError, match="for scale 4, not for 2; remove scale"):
        read_task(tmp_path / "tasks/pairs.yaml", 2)


@pytest.mark.parametrize(
    ("scale", "sigmas"),
    [
        (2, [0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]),
        (4, [1.8, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0, 3.2]),
    ],
)
def test_gaussian8_has_its_eight_widths(scale: int, sigmas: list[float]) -> None:
    spec = Project(Path.cwd()).protocol("gaussian8", scale)
    assert [case[0].params["sigma"] for case in spec.cases] == sigmas
    assert [spec.degradation("", 5, index) for index in range(16)] == [*spec.cases, *spec.cases]


def source_kernel(long: float, short: float, degrees: float) -> np.ndarray:
    """Returns the source's Gaussian of 21x21 pixels: x to the right, y down, the first axis at (cos θ, sin θ)."""
    axes = np.array(
        [
            [math.cos(math.radians(degrees)), -math.sin(math.radians(degrees))],
            [math.sin(math.radians(degrees)), math.cos(math.radians(degrees))],
        ]
    )
    inverse = np.linalg.inv(axes @ np.diag([long**2, short**2]) @ axes.T)
    y, x = np.mgrid[-10:11, -10:11]
    place = np.stack([x, y], axis=-1)
    weights = np.exp(-0.5 * np.einsum("...i,ij,...j->...", place, inverse, place))
    return weights / weights.sum()


def test_the_anisotropic_protocol_is_nine_kernels_by_three_noises() -> None:
    spec = Project(Path.cwd()).protocol("aniso9_noise3", 4)
    kernels = [[case[0].params[key] for key in ("sigma", "across", "angle")] for case in spec.cases]
    found = [(*kernel, case[-1].params["sigma"]) for kernel, case in zip(kernels, spec.cases, strict=True)]
    assert len(set(found)) == 27
    # (lambda_1, lambda_2, theta) as published, theta clockwise on the screen.
    published = [(2, 0.2, 0), (2, 1, 10), (3.5, 1.5, 30), (3.5, 2, 45), (3.5, 2, 90), (4, 1.5, 120), (4, 2, 135)]
    published += [(4, 3, 165), (4, 4, 180)]
    for (long, short, angle), case in zip(published, spec.cases[::3], strict=True):
        kernel = OPERATIONS["gaussian_blur"].kernel(case[0].params)
        ours = np.outer(kernel, kernel) if kernel.ndim == 1 else kernel
        assert np.abs(ours - source_kernel(long, short, angle)).max() < 1e-6
    assert {noise for *_, noise in found} == {0.0, 10.0, 20.0}


def test_a_protocol_is_refused_where_it_cannot_be_meant() -> None:
    experiment = read_experiment(catalogue() / "experiments/demo.yaml")
    graphs = (
        ("graph.target", {"target": "gaussian8"}),
        ("graph.auxiliary", {"auxiliary": ["bicubic", "gaussian8"]}),
    )
    for key, change in graphs:
        changed = experiment.model_copy(update={"graph": experiment.graph.model_copy(update=change)})
        with pytest.raises(UserError, match=f"{key}: 'gaussian8' is an evaluation protocol"):
            resolve(changed, catalogue())
    with pytest.raises(UserError, match="'jpeg' is of kind synthetic; name a task file of kind protocol"):
        Project(Path.cwd()).protocol("jpeg", 4)


def test_a_pattern_passes_over_protocols_and_the_target() -> None:
    experiment = read_experiment(catalogue() / "experiments/demo.yaml")
    graph = experiment.graph.model_copy(update={"auxiliary": ("*",)})
    found = Project(catalogue()).auxiliary(graph)
    assert "jpeg" in found
    assert graph.target not in found
    assert not any(isinstance(spec, ProtocolSpec) for spec in found.values())


def test_a_protocol_of_ranges_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task.yaml:4:32: pipeline\[0\].sigma: .* write a number or"):
        spec_of(tmp_path, TASK.replace("synthetic", "protocol"))


def test_per_scale_ranges_are_drawn_from_by_scale() -> None:
    sigma = {"per_scale": {2: {"choice": [1]}, 4: {"choice": [2]}}}
    pipeline = Pipeline.model_validate([{"op": "gaussian_blur", "sigma": sigma}, {"op": "downsample"}])
    assert [pipeline.draw((0,), scale)[0].params["sigma"] for scale in (2, 4)] == [1.0, 2.0]
