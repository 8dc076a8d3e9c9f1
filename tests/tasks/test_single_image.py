"""The degenerate task: pairs of one photograph, whose kernel is found when the file is read, and an empty query set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from metarestore.config.adaptation import AdaptationOptimizerSpec
from metarestore.config.model import FSRCNNSpec
from metarestore.degradations.kernels import gaussian_kernel
from metarestore.errors import UserError
from metarestore.learners.adaptation import adapt
from metarestore.learners.inner_rule import InnerRule
from metarestore.models.build import build_model
from metarestore.models.parameters import initial_vector
from metarestore.project import read_task
from metarestore.tasks.distribution import to_tensor
from metarestore.tasks.few_shot import FewShotGeometry
from metarestore.tasks.images import ImageSource, ImageStore, write_image
from metarestore.tasks.single_image import SingleImageSpec, SingleImageTasks
from metarestore.tasks.spec import content_hash
from metarestore.tasks.task import Episode
from metarestore.zero_shot.blur import Blur
from metarestore.zero_shot.kernel import estimate_kernel
from metarestore.zero_shot.shapes import bicubic_kernel, gaussian_of

EPISODE = Episode(support=4, query=0, patch=24)


def photograph() -> np.ndarray:
    return ImageStore.open(ImageSource.embedded("test")).image("chelsea")[60:157, 100:198]


def no_images(split: object) -> ImageStore:
    raise AssertionError(f"the {split} photographs were opened")


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., SingleImageSpec]:
    """Writes a task file into a project with a photograph, and reads it."""
    (tmp_path / "tasks").mkdir()
    write_image(tmp_path / "a.png", photograph())

    def write_and_read(keys: str, scale: int = 2) -> SingleImageSpec:
        (tmp_path / "tasks/one.yaml").write_text(f"kind: single_image\nscale: {scale}\nimage: a.png\n{keys}")
        spec = read_task(tmp_path / "tasks/one.yaml")
        assert isinstance(spec, SingleImageSpec)
        return spec

    return write_and_read


def opened(spec: SingleImageSpec, episode: Episode = EPISODE) -> SingleImageTasks:
    return spec.open("one", episode, no_images)


def test_the_specification_holds_the_kernel_that_was_left_open(
    read: Callable[..., SingleImageSpec], tmp_path: Path
) -> None:
    image = to_tensor(photograph())
    kernel = gaussian_of(np.array([[2.0, 0.7], [0.7, 1.0]]), 2)
    np.save(tmp_path / "k.npy", kernel)
    found = {
        "kernel: estimated\n": estimate_kernel(image, 2).kernel,
        "": estimate_kernel(image, 2).kernel,
        "kernel: bicubic\n": bicubic_kernel(2),
        "kernel: {file: k.npy}\n": kernel,
        f"kernel: {{weights: {kernel.tolist()}}}\n": kernel,
    }
    for keys, expected in found.items():
        spec = read(keys)
        assert not spec.unresolved
        np.testing.assert_allclose(spec.matrix, expected, atol=1e-6)
        assert spec.kernel_hash == SingleImageSpec.model_validate_json(spec.model_dump_json()).kernel_hash
    # What is drawn depends on the kernel, and not on where it came from.
    assert content_hash(read("kernel: {file: k.npy}\n")) == content_hash(
        read(f"kernel: {{weights: {kernel.tolist()}}}\n")
    )
    assert content_hash(read("kernel: {file: k.npy}\n")) != content_hash(read("kernel: bicubic\n"))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_kernel_of_a_draw_is_what_its_blur_and_its_downsampling_do(
    read: Callable[..., SingleImageSpec], tmp_path: Path, scale: int
) -> None:
    pipeline = (
        "[{op: gaussian_blur, sigma: 1.5, ratio: 1.4, angle: 30, centre: block}, {op: downsample, method: nearest}"
    )
    text = f"kind: synthetic\nscale: 4\npipeline: {pipeline}, {{op: gaussian_noise, sigma: 9}}]\n"
    (tmp_path / "tasks/soft.yaml").write_text(text)
    found = read("kernel: {task: soft, index: 3}\n", scale).matrix
    expected = gaussian_kernel(1.5, 1.4, 30, 0.0 if scale % 2 else 0.5, 13)
    margin = (len(found) - len(expected)) // 2
    wide = np.pad(expected, max(margin, 0)) if margin >= 0 else expected[-margin:margin, -margin:margin]
    np.testing.assert_allclose(found, wide, atol=2e-4)
    (tmp_path / "tasks/soft.yaml").write_text("kind: synthetic\nscale: 4\npipeline: [{op: downsample}]\n")
    plain = read("kernel: {task: soft}\n", scale).matrix
    bicubic = bicubic_kernel(scale)
    margin = (len(bicubic) - len(plain)) // 2
    np.testing.assert_allclose(np.pad(plain, margin) if margin > 0 else plain, bicubic, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pairs_are_patches_of_the_photograph_and_of_its_degraded_version(
    read: Callable[..., SingleImageSpec], scale: int
) -> None:
    spec = read("kernel: {task: blur_aniso}\naugmentation: none\n", scale)
    image = to_tensor(photograph())[None]
    height, width = (length // scale * scale for length in image.shape[-2:])
    degraded = Blur(spec.matrix, scale).degrade(image[..., :height, :width])
    tasks = opened(spec)
    for index in range(5):
        draw = tasks.draw(0, index)
        task = tasks.build(draw)
        for lr, hr, ref in zip(task.support_lr, task.support_hr, draw.support, strict=True):
            top, left, rows, columns = ref.box
            assert torch.equal(hr, image[0, :, top : top + rows, left : left + columns])
            small = degraded[0, :, top // scale : (top + rows) // scale, left // scale : (left + columns) // scale]
            # Bottom and right of the photograph, what lies beyond a multiple of the scale is not seen.
            torch.testing.assert_close(lr, small, atol=0.6 / 255, rtol=0)


def test_its_query_set_is_empty(read: Callable[..., SingleImageSpec]) -> None:
    spec = read("kernel: bicubic\n")
    task = opened(spec).build(opened(spec).draw(0, 0))
    assert task.query_lr.shape == (0, 3, 12, 12)
    assert task.query_hr.shape == (0, 3, 24, 24)
    geometry = FewShotGeometry(shots=3, shot_size=48, crop=32, crops=4)
    target = spec.few_shot("one", EPISODE, no_images, geometry)
    assert not target.draw(0).test
    assert target.build(target.draw(0)).query_hr.shape == (0, 3, 32, 32)


def test_patches_are_turned_as_asked(read: Callable[..., SingleImageSpec]) -> None:
    found = {}
    for name in ("none", "half_turn", "all"):
        tasks = opened(read(f"kernel: bicubic\naugmentation: {name}\n"))
        found[name] = {ref.turn for index in range(20) for ref in tasks.draw(0, index).support}
    assert found == {"none": {0}, "half_turn": {0, 2}, "all": set(range(8))}


def adapted(tasks: SingleImageTasks, steps: int) -> tuple[Tensor, Tensor]:
    """Adapts a small network to the support set; returns what it started from and what it came to."""
    model = build_model(FSRCNNSpec(d=4, s=3, m=1, channels="rgb"), 2, 5)
    lr, hr = tasks.build_support(tasks.draw(7, 0))
    how = AdaptationOptimizerSpec(optimizer="adam", steps=steps, lr=1e-3)
    start = initial_vector(model)
    return start, adapt(model, start, lr, hr, how, rule=InnerRule("l1", 0.0))


def test_adapting_to_it_is_the_loop_that_one_would_write_by_hand(read: Callable[..., SingleImageSpec]) -> None:
    tasks = opened(read("kernel: estimated\nnoise: 2\n"))
    start, found = adapted(tasks, 6)
    model = build_model(FSRCNNSpec(d=4, s=3, m=1, channels="rgb"), 2, 5)
    lr, hr = tasks.build_support(tasks.draw(7, 0))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(6):
        optimizer.zero_grad()
        (model(lr) - hr).abs().mean().backward()
        optimizer.step()
    by_hand = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert torch.equal(found, by_hand)
    assert not torch.equal(found, start)


def test_no_step_returns_the_start(read: Callable[..., SingleImageSpec]) -> None:
    start, found = adapted(opened(read("kernel: bicubic\n")), 0)
    assert torch.equal(start, found)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("kernel: {}\n", "one.yaml:4:.*give one of file, task and weights, got none"),
        ("kernel: {file: k.npy, task: jpeg}\n", "got file and task"),
        ("kernel: {file: k.npy}\n", "one.yaml:4:.*kernel.file: there is no file"),
        ("kernel: {task: nothing}\n", "kernel.task: there is no task 'nothing'"),
        ("kernel: {task: one}\n", "kernel.task: 'one' is of kind single_image, which has no kernel"),
        ("kernel: {weights: [[1.0]]}\n", "a kernel of 1x1 has no centre at scale 2"),
        ("kernel: {weights: [[1.0, 0], [0, 1]]}\n", "must sum to 1, got 2"),
    ],
)
def test_a_kernel_that_cannot_be_found_is_named(read: Callable[..., SingleImageSpec], keys: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(keys)
