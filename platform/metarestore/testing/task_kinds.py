"""Contract tests of task kinds."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from metarestore.errors import UserError
from metarestore.project import read_task
from metarestore.tasks.distribution import OpenDistribution
from metarestore.tasks.few_shot import FewShotGeometry, FewShotTarget
from metarestore.tasks.images import ImageSource, ImageStore, write_image
from metarestore.tasks.spec import DistributionSpec, content_hash
from metarestore.tasks.task import Episode, Split, Task, TaskDraw
from metarestore.testing.contract import Contract

EPISODE = Episode(support=2, query=3, patch=32)
GEOMETRY = FewShotGeometry(shots=2, shot_size=40, crop=48, crops=2)


class TaskFile(NamedTuple):
    """A task file, and a replacement that changes its draws.

    Attributes:
        text: The file, with `kind` in its first line and `scale: 4` in its second. It may refer to pairs in `camera/lr`
            and `camera/hr`: five photographs of 20x24 and 80x96 pixels.
        old: A part of the text.
        new: The replacement of that part.
    """

    text: str
    old: str
    new: str


Read = Callable[..., DistributionSpec]


def write_camera(folder: Path) -> None:
    """Writes five pairs of a camera that averages 4x4 pixels."""
    rng = np.random.default_rng(0)
    for side in ("lr", "hr"):
        (folder / side).mkdir(parents=True)
    for name in "abcde":
        lr = rng.integers(0, 256, (24, 20, 3), np.uint8)
        write_image(folder / "lr" / f"{name}.png", lr)
        write_image(folder / "hr" / f"{name}.png", lr.repeat(4, axis=0).repeat(4, axis=1))


def images(split: Split) -> ImageStore:
    """Opens the embedded photographs of a split."""
    return ImageStore.open(ImageSource.embedded(split))


def no_images(split: Split) -> ImageStore:
    """Fails, because the kind has its own photographs."""
    raise AssertionError(f"the {split} photographs were opened")


def assert_equal(one: Task | tuple[Tensor, ...], other: Task | tuple[Tensor, ...]) -> None:
    """Asserts that tensors are equal, bit for bit."""
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)


def drawn(target: FewShotTarget, seed: int) -> tuple[tuple[TaskDraw, ...], tuple[TaskDraw, ...]]:
    """Returns the draws of the shots and of the test images."""
    draw = target.draw(seed)
    return draw.shots, draw.test


class TaskKindContract(Contract):
    """Tests task kinds; an example is a task file of the kind."""

    examples: ClassVar[Mapping[str, TaskFile]]

    @pytest.fixture
    def read(self, tmp_path: Path) -> Read:
        """Returns a function that writes a task file into a project with a camera, and reads it."""
        write_camera(tmp_path / "camera")
        (tmp_path / "tasks").mkdir()

        def write_and_read(text: str, *arguments: Any) -> DistributionSpec:
            (tmp_path / "tasks/one.yaml").write_text(text)
            return read_task(tmp_path / "tasks/one.yaml", *arguments)

        return write_and_read

    @pytest.fixture
    def spec(self, example: TaskFile, read: Read) -> DistributionSpec:
        """The parsed task file."""
        return read(example.text)

    @pytest.fixture
    def tasks(self, spec: DistributionSpec) -> OpenDistribution:
        """The opened distribution."""
        return spec.open("one", EPISODE, no_images if spec.own_images else images)

    def test_a_draw_is_data_that_depends_on_content_seed_and_index_alone(
        self, spec: DistributionSpec, tasks: OpenDistribution
    ) -> None:
        """A draw is unchanged by pickling, and does not depend on earlier draws."""
        reopened = spec.open("one", EPISODE, images)
        for seed, index in ((0, 0), (0, 1), (5, 1)):
            draw = tasks.draw(seed, index)
            assert pickle.loads(pickle.dumps(draw)) == draw == reopened.draw(seed, index)
            assert (draw.distribution, draw.content, draw.scale) == ("one", content_hash(spec), spec.scale)
            assert [len(draw.support), len(draw.query)] == [EPISODE.support, EPISODE.query]
        assert tasks.draw(0, 0).support != tasks.draw(0, 1).support != tasks.draw(1, 1).support

    def test_a_task_may_have_the_patches_of_another(self, tasks: OpenDistribution) -> None:
        """A task has the same degradation on the patches of another task."""
        other, own, mixed = tasks.draw(1, 2), tasks.draw(1, 7), tasks.draw(1, 7, 2)
        assert (mixed.support, mixed.query) == (other.support, other.query)
        assert mixed.support != own.support
        assert mixed.degradations == own.degradations
        assert tasks.draw_on(1, 7, own.support, own.query) == own

    def test_building_gives_the_same_aligned_tensors_every_time(
        self, spec: DistributionSpec, tasks: OpenDistribution
    ) -> None:
        """Tensors have the shapes of the episode and values in [0, 1], and LR and HR show the same content."""
        draw = tasks.draw(0, 3)
        task = tasks.build(draw)
        side, scale = EPISODE.patch, spec.scale
        assert task.support_lr.shape == (EPISODE.support, 3, side // scale, side // scale)
        assert task.support_hr.shape == (EPISODE.support, 3, side, side)
        assert task.query_lr.shape == (EPISODE.query, 3, side // scale, side // scale)
        assert task.query_hr.shape == (EPISODE.query, 3, side, side)
        for tensor in task:
            assert tensor.dtype == torch.float32
            assert 0 <= float(tensor.min()) <= float(tensor.max()) <= 1
        assert_equal(tasks.build(draw), task)
        assert_equal(tasks.build_support(draw), task[:2])
        # The same content: the mean of an HR patch is that of its LR patch, up to noise and borders.
        torch.testing.assert_close(
            task.support_lr.mean(dim=(1, 2, 3)), task.support_hr.mean(dim=(1, 2, 3)), atol=0.05, rtol=0
        )

    def test_only_a_kind_that_degrades_is_applied_to_other_images(self, tasks: OpenDistribution) -> None:
        """A kind without a degradation rejects other images."""
        hr = torch.rand(3, 3, 48, 40, generator=torch.Generator().manual_seed(0))
        draw = tasks.draw(0, 0)
        lr, hr_of_pairs = tasks.pairs_on(hr, draw)
        if tasks.degrades:
            assert hr_of_pairs is hr
            assert lr.shape == (3, 3, 48 // tasks.scale, 40 // tasks.scale)
            assert_equal((lr,), (tasks.degrade(hr, draw),))
            assert draw.degradations
        else:
            assert_equal((lr, hr_of_pairs), tasks.build_support(draw))
            with pytest.raises(UserError, match="'one' has its own images and cannot degrade others; use a task dist"):
                tasks.degrade(hr, draw)

    def test_another_geometry_changes_nothing_else(self, tasks: OpenDistribution) -> None:
        """The geometry of a task does not change its degradation."""
        small = tasks.with_episode(Episode(support=1, query=0, patch=16))
        draw = small.draw(0, 0)
        assert [(ref.box[2:], small.images.size(ref.image)) for ref in draw.support] == [
            ((16, 16), tasks.images.size(draw.support[0].image))
        ]
        assert draw.degradations == tasks.draw(0, 0).degradations
        assert tasks.episode == EPISODE
        assert len(tasks.draw(0, 0).support) == EPISODE.support

    def test_patches_lie_inside_the_photographs_that_may_be_drawn_from(self, tasks: OpenDistribution) -> None:
        """Boxes lie inside their photographs."""
        refs = [ref for index in range(10) for ref in (*tasks.draw(0, index).support, *tasks.draw(0, index).query)]
        sizes = set(tasks.sizes())
        for ref in refs:
            top, left, height, width = ref.box
            size = tasks.images.size(ref.image)
            assert size in sizes
            assert 0 <= top <= size[0] - height
            assert 0 <= left <= size[1] - width

    def test_a_few_shot_target_keeps_shots_and_test_images_apart(self, spec: DistributionSpec) -> None:
        """No photograph is both a shot and a test image."""
        target = spec.few_shot("one", EPISODE, no_images if spec.own_images else images, GEOMETRY)
        assert (target.name, target.content, target.scale) == ("one", content_hash(spec), spec.scale)
        assert drawn(target, 3) == drawn(target, 3)
        draw = target.draw(3)
        assert len(draw.shots) == GEOMETRY.shots
        assert not {one.support[0].image for one in draw.shots} & set(draw.photographs)
        task = target.build(draw)
        size, crop = GEOMETRY.shot_size, GEOMETRY.crop
        assert task.support_hr.shape == (GEOMETRY.shots, 3, size, size)
        assert task.support_lr.shape == (GEOMETRY.shots, 3, size // spec.scale, size // spec.scale)
        assert task.query_hr.shape == (len(draw.test), 3, crop, crop)
        assert not any(target.is_gray(photograph) for photograph in draw.photographs if spec.own_images)

    def test_the_first_shot_may_be_a_later_one(self, spec: DistributionSpec) -> None:
        """The shots are a range of one sequence, and the test images do not depend on it."""
        sources = no_images if spec.own_images else images
        first, later = (
            spec.few_shot("one", EPISODE, sources, geometry).draw(3)
            for geometry in (GEOMETRY, replace(GEOMETRY, shots=1, first_shot=1))
        )
        assert later.shots == first.shots[1:]
        assert later.test == first.test

    def test_a_name_for_the_content(self, example: TaskFile, spec: DistributionSpec, read: Read) -> None:
        """The content hash depends on what is drawn, not on comments."""
        text, old, new = example
        assert content_hash(read("# a comment\n" + text)) == content_hash(spec)
        assert content_hash(read(text.replace(old, new))) != content_hash(spec)
        assert content_hash(type(spec).model_validate_json(spec.model_dump_json())) == content_hash(spec)

    def test_another_scale_is_served_or_refused_at_its_line(
        self, example: TaskFile, spec: DistributionSpec, read: Read
    ) -> None:
        """Another scale works, or is rejected with the line of `scale` in the file."""
        text = example.text
        assert read(text, spec.scale) == spec
        try:
            other = read(text, 2)
        except UserError as error:
            assert not spec.steps, "a pipeline serves every scale"
            [problem] = error.problems
            assert re.search(r"one.yaml:2:8: scale: .* for scale 4, not for 2", problem)
        else:
            assert other.scale == 2
            assert content_hash(other) != content_hash(spec)

    def test_what_a_file_names_is_looked_for_where_the_project_is(self, spec: DistributionSpec, tmp_path: Path) -> None:
        """Relative paths start at the project's folder."""
        assert spec.rooted(Path("/elsewhere")) == spec  # read_task made every path absolute
        assert not spec.missing()
        if spec.own_images:
            assert spec.own_images.is_relative_to(tmp_path / "camera")
            assert all(path.is_relative_to(tmp_path / "camera") for path in spec.lr_files().values())
            moved = spec.moved(tmp_path / "moved").own_images
            assert moved is not None
            assert moved.is_relative_to(tmp_path / "moved")
            (tmp_path / "camera").rename(tmp_path / "moved")
            assert spec.missing()
        else:
            assert not spec.lr_files()
            assert spec.moved(tmp_path) == spec

    def test_capabilities_agree_with_each_other(self, spec: DistributionSpec, tasks: OpenDistribution) -> None:
        """The properties that describe a kind are consistent."""
        assert tasks.degrades == bool(spec.steps) == (spec.own_images is None)
        assert bool(spec.space.names) <= bool(spec.steps)
        if spec.cases:
            assert [tasks.draw(0, index).degradations for index in range(len(spec.cases))] == list(spec.cases)
