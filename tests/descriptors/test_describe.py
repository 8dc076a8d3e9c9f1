"""Descriptors are those of the estimator; items and groups sum them up; what cannot describe says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from metarestore.config.model import FSRCNNSpec
from metarestore.descriptors.describe import (
    Description,
    Item,
    cosines,
    describe_draw,
    describe_images,
    describe_task,
    open_tasks,
    require_describer,
)
from metarestore.errors import UserError
from metarestore.models.build import build_model
from metarestore.models.checkpoint import load_model
from metarestore.models.kdsr import KDSR
from metarestore.models.restore import image_restorer, to_image
from metarestore.project import Project
from metarestore.tasks.images import ImageSource, ImageStore, read_image
from metarestore.tasks.pairs import PairsSpec
from metarestore.tasks.synthetic import SyntheticTasks


def tasks_of(name: str = "noise_gaussian", patches: int = 3, patch: int = 32) -> SyntheticTasks:
    spec = Project(Path.cwd()).task(name, scale=4)
    return open_tasks(name, spec, ImageStore.open(ImageSource.embedded("train")), patches, patch)


def item(name: str, *mean: float) -> Item:
    return Item(name, {}, (name,), np.asarray(mean), None)


def test_a_photograph_is_described_as_a_whole(student: KDSR, photographs: dict[str, Path]) -> None:
    told: list[tuple[str, int, int]] = []
    found = describe_images(student, photographs, name="camera", progress=lambda *news: told.append(news))
    assert (found.name, found.kind, found.count) == ("camera", "images", 2)
    assert told == [("dark", 1, 2), ("light", 2, 2)]
    for one, (name, path) in zip(found.items, photographs.items(), strict=True):
        with torch.no_grad():
            direct = student.describe(to_image(read_image(path).pixels))
        np.testing.assert_allclose(one.mean, direct[0].numpy(), rtol=1e-4, atol=1e-7)
        assert (one.name, one.photographs, one.count, one.parameters, one.spread) == (name, (name,), 1, {}, None)
    assert not np.allclose(found.items[0].mean, found.items[1].mean, rtol=1e-3)


def test_a_crop_is_what_is_seen(student: KDSR, photographs: dict[str, Path]) -> None:
    cropped = describe_images(student, photographs, crop=16)
    lr = to_image(read_image(photographs["dark"]).pixels)[..., 12:28, 17:33]
    with torch.no_grad():
        np.testing.assert_allclose(cropped.items[0].mean, student.describe(lr)[0].numpy(), rtol=1e-4, atol=1e-7)


def test_tasks_are_those_of_training(student: KDSR) -> None:
    tasks = tasks_of()
    found = describe_task(student, tasks, 3, seed=5)
    assert (found.name, found.kind, found.count) == ("noise_gaussian", "task", 9)
    for index, one in enumerate(found.items):
        draw = tasks.draw(5, index)
        with torch.no_grad():
            each = student.describe(tasks.build(draw).support_lr).double().numpy()
        np.testing.assert_allclose(one.mean, each.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(one.spread, each.std(axis=0, ddof=1), rtol=1e-4, atol=1e-9)
        assert one.parameters == draw.parameters()
        assert one.photographs == tuple(ref.image for ref in draw.support)
    assert len({str(one.parameters) for one in found.items}) == 3
    assert not np.allclose(describe_task(student, tasks, 1, seed=6).mean, found.items[0].mean, rtol=1e-6)


def test_more_draws_leave_the_first_as_they_were(student: KDSR) -> None:
    few, many = (describe_task(student, tasks_of(), draws) for draws in (1, 2))
    assert np.array_equal(few.items[0].mean, many.items[0].mean)


def test_batches_do_not_show(student: KDSR, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = tasks_of(patches=5)
    draw = tasks.draw(0, 0)
    together = describe_draw(student, tasks, draw)
    monkeypatch.setattr("metarestore.descriptors.describe._BATCH", 2 * 8 * 8)
    torch.testing.assert_close(describe_draw(student, tasks, draw), together)


def test_a_teacher_describes_tasks_from_their_hr(saved: Callable[..., Path]) -> None:
    teacher, tasks = load_model(saved(estimator="teacher")), tasks_of()
    found = describe_task(teacher, tasks, 1)
    made = tasks.build(tasks.draw(0, 0))
    with torch.no_grad():
        each = teacher.describe(made.support_lr, made.support_hr)
    np.testing.assert_allclose(found.mean, each.mean(dim=0).numpy(), rtol=1e-4, atol=1e-7)


def test_items_count_alike_in_their_group() -> None:
    one = Item("0", {}, ("a",) * 7, np.asarray([0.0, 3.0]), np.zeros(2))
    group = Description("g", "task", (one, item("1", 2.0, 3.0)))
    np.testing.assert_allclose(group.mean, [1, 3])
    np.testing.assert_allclose(group.spread, [2**0.5, 0])
    assert group.count == 8
    assert group.relative_spread == pytest.approx(2**0.5 / 10**0.5)
    alone = Description("g", "images", (one,))
    assert alone.spread is None
    assert np.isnan(alone.relative_spread)


def test_cosines_of_means() -> None:
    groups = [Description(str(k), "images", (item("x", *mean),)) for k, mean in enumerate([(1, 0), (3, 3), (0, 0)])]
    half = 0.5**0.5
    np.testing.assert_allclose(cosines(groups), [[1, half, 0], [half, 1, 0], [0, 0, 0]], atol=1e-12)


def test_what_cannot_describe(saved: Callable[..., Path]) -> None:
    none, teacher = load_model(saved("none", estimator="none")), load_model(saved("teacher", estimator="teacher"))
    with pytest.raises(UserError, match="has no degradation encoder; use a KDSR"):
        require_describer(build_model(FSRCNNSpec(), 4, 0), sees_hr=True)
    with pytest.raises(UserError, match=r"has no degradation encoder \(estimator: none\); use one with"):
        require_describer(none, sees_hr=True)
    with pytest.raises(UserError, match=r"is a teacher.* synthetic tasks with --task"):
        describe_images(teacher, {})


def test_what_cannot_be_described(tmp_path: Path) -> None:
    store = ImageStore.open(ImageSource.embedded("train"))
    with pytest.raises(UserError, match="'gaussian8' is of kind protocol"):
        open_tasks("gaussian8", Project(Path.cwd()).task("gaussian8", scale=4), store, 2, 32)
    with pytest.raises(UserError, match="'camera' is of kind pairs"):
        open_tasks("camera", PairsSpec(kind="pairs", scale=4, lr=tmp_path, hr=tmp_path), store, 2, 32)
    with pytest.raises(UserError, match="--patch: 33 is not a multiple of the scale 4; write 32"):
        tasks_of(patch=33)


def test_a_diverged_network_is_named(student: KDSR, photographs: dict[str, Path]) -> None:
    with torch.no_grad():
        student.estimator.body[0].bias.fill_(float("nan"))
    with pytest.raises(UserError, match="the descriptor of 'dark' is not finite"):
        describe_images(student, photographs)


def test_a_photographs_own_descriptor_restores_it_as_before(student: KDSR, photographs: dict[str, Path]) -> None:
    pixels = read_image(photographs["dark"]).pixels
    own, other = (torch.from_numpy(one.mean).float()[None] for one in describe_images(student, photographs).items)
    assert np.array_equal(image_restorer(student, embedding=own)(pixels), image_restorer(student)(pixels))
    far = image_restorer(student, embedding=30 * other)(pixels)
    assert not np.array_equal(far, image_restorer(student)(pixels))


def test_strips_share_the_embedding(student: KDSR, photographs: dict[str, Path]) -> None:
    pixels, embedding = read_image(photographs["dark"]).pixels, torch.ones(1, 16)
    whole = image_restorer(student, embedding=embedding)(pixels)
    strips = image_restorer(student, strip=50 * 9, embedding=embedding)(pixels)
    assert int(np.abs(whole.astype(int) - strips).max()) <= 1


def test_a_teacher_restores_with_an_embedding(saved: Callable[..., Path], photographs: dict[str, Path]) -> None:
    pixels = read_image(photographs["dark"]).pixels
    restored = image_restorer(load_model(saved(estimator="teacher")), embedding=torch.ones(1, 16))(pixels)
    assert restored.shape == (160, 200, 3)


def test_embeddings_that_do_not_fit(student: KDSR) -> None:
    with pytest.raises(UserError, match="the embedding has shape 1x32, but this network needs 1x16"):
        image_restorer(student, embedding=torch.ones(1, 32))
    with pytest.raises(UserError, match="does not accept an embedding"):
        image_restorer(build_model(FSRCNNSpec(), 4, 0), embedding=torch.ones(1, 16))
