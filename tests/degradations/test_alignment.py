"""The sampling convention: LR pixels lie at the centres of their blocks of HR pixels, whatever a pipeline does."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metarestore.degradations import OPERATIONS, Backend, Pipeline, bicubic_upsample, replay
from metarestore.degradations.base import Drawn
from metarestore.project import read_task
from metarestore.tasks.spec import content_hash
from metarestore.tasks.synthetic import PipelineSpec

CATALOGUE = sorted((Path(__file__).parents[2] / "tasks").glob("*.yaml"))
# Noise and coding errors do not move anything, but hide from the measurement whether something did. Lateral chromatic
# aberration is meant to move red and blue, how far a bent path moves a wave depends on the wave, and a vignette's slope
# of brightness looks like a movement.
CALM = {"isp": {"shot": 0.0, "read": 0.0}, "motion_blur": {"curvature": 0.0}}
LEFT_OUT = {"chromatic_aberration", "vignette", "jpeg", "webp"}


SIZE, CROP = 192, 36
COUNT, WAVES = 4, 6


def frequencies() -> np.ndarray:
    """Returns the waves of each image (COUNT, WAVES, 2): radians per pixel, down and right."""
    rng = np.random.default_rng(5)
    angle, length = rng.uniform(0, np.pi, (COUNT, WAVES)), rng.uniform(28, 72, (COUNT, WAVES))
    return 2 * np.pi / length[..., None] * np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def smooth_images(shift: float = 0.0) -> np.ndarray:
    """Returns gray images (COUNT, SIZE, SIZE) of slow waves around 0.5, moved right and down by `shift` pixels."""
    y, x = np.mgrid[:SIZE, :SIZE] - shift
    waves = [[0.06 * np.sin(down * y + right * x + 1) for down, right in each] for each in frequencies()]
    return 0.5 + np.sum(waves, axis=1)


def measured_shift(images: np.ndarray) -> np.ndarray:
    """Returns by how many pixels (down, right) the waves of `images` are moved, whatever is left of their strength.

    The phase of each wave is found by least squares, then the shift that explains all phases, weighted by strength.
    """
    y, x = np.mgrid[:SIZE, :SIZE][:, CROP:-CROP, CROP:-CROP].reshape(2, -1)
    phases, weights = [], []
    for image, waves in zip(images[:, CROP:-CROP, CROP:-CROP], frequencies(), strict=True):
        turns = np.array([down * y + right * x + 1 for down, right in waves])
        columns = np.concatenate([np.sin(turns), np.cos(turns), np.ones((1, y.size))])
        found = np.linalg.lstsq(columns.T, image.ravel(), rcond=None)[0]
        sines, cosines = found[:WAVES], found[WAVES:-1]
        phases.append(-np.arctan2(cosines, sines))
        weights.append(np.hypot(sines, cosines))
    strength = np.concatenate(weights)
    equations = frequencies().reshape(-1, 2) * strength[:, None]
    return np.linalg.lstsq(equations, np.concatenate(phases) * strength, rcond=None)[0]


def shift_of(draws: Drawn, scale: int, backend: Backend = "opencv") -> float:
    """Returns the largest shift, in HR pixels, of upscaled LR against HR."""
    images = torch.from_numpy(smooth_images()).float()[:, None].expand(-1, 3, -1, -1)
    lr = replay(images, draws, list(range(COUNT)), backend).mean(1, keepdim=True)
    return float(np.abs(measured_shift(bicubic_upsample(lr, scale)[:, 0].numpy())).max())


def calm(draws: Drawn) -> Drawn:
    """Takes out of a draw what would hide a shift."""
    kept = (draw for draw in draws if draw.op in CALM or not (OPERATIONS[draw.op].stochastic or draw.op in LEFT_OUT))
    return tuple(replace(draw, params={**draw.params, **CALM.get(draw.op, {})}) for draw in kept)


def specs() -> Iterator[tuple[str, PipelineSpec]]:
    for path in CATALOGUE:
        spec = read_task(path)
        if isinstance(spec, PipelineSpec):
            for scale in getattr(spec, "scales", (2, 3, 4)):
                yield f"{path.stem}-x{scale}", spec.at_scale(scale)


SPECS = dict(specs())


def test_the_measurement_sees_a_shift():
    assert np.allclose(measured_shift(smooth_images(0.3)), 0.3, atol=1e-3)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_catalogue_does_not_shift_lr_against_hr(spec):
    structured = any(step.inner for step in spec.pipeline.steps)
    for index in range(3 if structured else 1):
        draws = spec.degradation(content_hash(spec), 0, index)
        assert shift_of(calm(draws), spec.scale) < 0.05


@pytest.mark.parametrize("backend", ["opencv", "torch"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("method", ["bicubic", "bilinear", "area", "lanczos"])
@pytest.mark.parametrize("antialias", [True, False])
def test_every_method_of_downsample_is_centred(method, antialias, scale, backend):
    pipeline = Pipeline.model_validate([{"op": "downsample", "method": method, "antialias": antialias}])
    assert shift_of(pipeline.draw((0,), scale), scale, backend) < 0.05


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_nearest_is_centred_after_a_kernel_of_the_block(scale):
    def shift(centre: str) -> float:
        blur = {"op": "gaussian_blur", "sigma": 1.5, "centre": centre}
        pipeline = Pipeline.model_validate([blur, {"op": "downsample", "method": "nearest"}])
        return shift_of(pipeline.draw((0,), scale), scale)

    assert shift("block") < 0.05
    assert shift("pixel") == pytest.approx(0.0 if scale % 2 else 0.5, abs=0.05)


@pytest.mark.parametrize("factor", [0.37, 0.8, 1.31])
@pytest.mark.parametrize("method", ["bicubic", "bilinear", "area", "lanczos"])
def test_a_resize_on_the_way_keeps_the_centre(method, factor):
    steps = [{"op": "resize", "factor": factor, "method": method}, {"op": "downsample"}]
    assert shift_of(Pipeline.model_validate(steps).draw((0,), 4), 4) < 0.05
