"""The catalogue's published pipelines, against the numbers of their sources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from metarestore.config.ranges import Range, parse
from metarestore.degradations import replay
from metarestore.degradations.base import Drawn, Step
from metarestore.degradations.kernel_file import load_kernels
from metarestore.project import catalogue, read_task
from metarestore.tasks.spec import content_hash
from metarestore.tasks.synthetic import PipelineSpec


def task(name: str, scale: int = 4) -> PipelineSpec:
    spec = read_task(catalogue() / "tasks" / f"{name}.yaml", scale)
    assert isinstance(spec, PipelineSpec)
    return spec


def draws(spec: PipelineSpec, count: int) -> Iterator[Drawn]:
    content = content_hash(spec)
    return (spec.degradation(content, 0, index) for index in range(count))


def ranges(step: Step, scale: int) -> dict[str, Range]:
    return {name: value.at(scale) for name, value in step if isinstance(value, Range)}


@pytest.mark.parametrize(("scale", "most"), [(2, 2.0), (3, 3.0), (4, 4.0)])
def test_kdsr(scale: int, most: float) -> None:
    iso, aniso = (task(name, scale).pipeline.operations for name in ("kdsr_iso", "kdsr_aniso"))
    assert [step.op for step in iso] == ["gaussian_blur", "downsample"]
    assert [step.op for step in aniso] == ["gaussian_blur", "downsample", "gaussian_noise"]
    assert ranges(iso[0], scale)["sigma"] == ranges(aniso[0], scale)["sigma"] == parse([0.2, most])
    assert ranges(aniso[0], scale)["across"] == parse([0.2, most])
    assert ranges(aniso[0], scale)["angle"] == parse([0, 180])
    assert ranges(aniso[2], scale)["sigma"] == parse([0, 25])
    assert {step.size for step in (iso[0], aniso[0])} == {21}


@pytest.mark.parametrize(("scale", "variance"), [(2, 5.0), (3, 7.5), (4, 10.0)])
def test_mzsr(scale: int, variance: float) -> None:
    blur, down = task("mzsr", scale).pipeline.operations
    for name in ("sigma", "across"):
        assert ranges(blur, scale)[name].low == 1
        assert ranges(blur, scale)[name].high ** 2 == pytest.approx(variance, rel=1e-3)
    assert (blur.size, blur.centre, down.method) == (15, "block", "nearest")


def test_realesrgan_has_the_parameters_of_its_training_file() -> None:
    blur1, resize1, noise1, jpeg1, blur2, resize2, noise2, final = task("realesrgan").pipeline.steps
    for blur, widest, probability in ((blur1, 3, 1), (blur2, 1.5, 0.8)):
        # 0.9 of the published probabilities of the kernels, and 0.1 for sinc.
        assert blur.weights == pytest.approx([0.405, 0.225, 0.108, 0.027, 0.108, 0.027, 0.1])
        assert blur.probability == probability
        for step in (inner for choice in blur.choices for inner in (choice.inner or (choice,))):
            if step.op != "sinc_blur":
                assert step.sigma == parse([0.2, widest])
    assert resize1.weights == (2, 7, 1)
    assert [step.factor for step in resize1.choices] == [parse([1, 1.5]), parse([0.15, 1]), parse(1)]
    assert resize2.weights == (3, 4, 3)
    assert [step.factor for step in resize2.choices] == [parse([1, 1.2]), parse([0.3, 1]), parse(1)]
    assert {step.of for step in resize2.choices} == {"lr"}
    for noise, sigma, strength in ((noise1, [1, 30], [0.05, 3]), (noise2, [1, 25], [0.05, 2.5])):
        gaussian, poisson = noise.choices
        assert (gaussian.sigma, poisson.strength) == (parse(sigma), parse(strength))
        assert gaussian.correlation == poisson.correlation == parse({"choice": [0, 1], "weights": [6, 4]})
    codecs = [jpeg1, *(step for choice in final.choices for step in choice.inner if step.op == "jpeg")]
    assert len(codecs) == 3
    assert all((step.quality.low, step.quality.high) == (30, 95) for step in codecs)


def test_realesrgan_draws_as_often_as_published() -> None:
    found = Counter()
    for drawn in draws(task("realesrgan"), 3000):
        operations = [draw.op for draw in drawn]
        found["second blur"] += any(draw.position[0] == 4 for draw in drawn)
        found["final sinc"] += "sinc_blur" in operations[operations.index("downsample") :]
        found["gray"] += next(draw.params["correlation"] for draw in drawn if draw.op.endswith("_noise")) == 1
    for name, share in (("second blur", 0.8), ("final sinc", 0.8), ("gray", 0.4)):
        assert abs(found[name] / 3000 - share) < 4 * (share * (1 - share) / 3000) ** 0.5, name


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bsrgan(scale: int) -> None:
    found = Counter()
    sizes = []
    for drawn in draws(task("bsrgan", scale), 2000):
        operations = Counter(draw.op for draw in drawn)
        halved = drawn[0].op == "resize" and drawn[0].params["factor"] == 0.5 and drawn[0].position[1] == 1
        found["halved"] += halved
        found["jpeg"] += operations["jpeg"] == 2
        found["camera"] += operations["isp"]
        assert operations["downsample"] == 1
        assert drawn[-1].op == "jpeg"
        effective = 2 if halved else scale
        blurs = [draw.params for draw in drawn if draw.op == "gaussian_blur"]
        assert len(blurs) in (2, 3)
        assert all(blur["sigma"] <= max((effective + 4) ** 0.5, 2 + 0.2 * effective) + 1e-3 for blur in blurs)
        order = [draw.op for draw in drawn if draw.op in ("resize", "downsample")]
        assert order[-1] == "downsample"  # whatever the order, the second resampling comes last
        sizes += [1 / draw.params["factor"] for draw in drawn if draw.op == "resize" and draw.position[-1] == 0]
    shares = {"halved": 0.25 if scale == 4 else 0.0, "jpeg": 0.9, "camera": 0.25}
    for name, share in shares.items():
        assert abs(found[name] / 2000 - share) <= 4 * (share * (1 - share) / 2000) ** 0.5, name
    assert max(sizes) <= 2 * scale + 1e-6


@pytest.mark.parametrize(("scale", "side"), [(2, 11), (4, 31)])
def test_div2krk_has_forty_kernels_that_lie_centred(scale: int, side: int) -> None:
    kernels = load_kernels(catalogue() / f"tasks/kernels/div2krk_x{scale}.npy")
    assert {kernel.shape for kernel in kernels} == {(side, side)}
    spec = task(f"div2krk_x{scale}", scale)
    assert len(spec.cases) == 40
    ramp = torch.arange(24 * scale, dtype=torch.float32).expand(1, 3, 24 * scale, -1) / 100
    for blur, down in spec.cases:
        assert down.params["method"] == "nearest"
        middle = replay(ramp, (blur, down), [0])[0, 0, 12, 12]
        assert float(middle) * 100 == pytest.approx(12 * scale + (scale - 1) / 2, abs=0.25)  # 8-bit steps of 0.39


def test_div2krk_at_x4_is_x2_twice() -> None:
    image = torch.from_numpy(np.random.default_rng(0).random((1, 3, 96, 96), np.float32))
    once, twice = task("div2krk_x2", 2).cases, task("div2krk_x4", 4).cases
    for small, large in list(zip(once, twice, strict=True))[:6]:
        by_two = replay(replay(image, small, [0]), small, [0])
        inner = (..., slice(8, -8), slice(8, -8))
        torch.testing.assert_close(replay(image, large, [0])[inner], by_two[inner], atol=2.5 / 255, rtol=0)
