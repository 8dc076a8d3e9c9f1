"""support_set: internal: the support set is each query image's LR, degraded once more by the task's degradation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from metarestore.config.experiment import Experiment
from metarestore.degradations.resample import bicubic_downsample
from metarestore.engines.local import LocalSession
from metarestore.errors import UserError
from metarestore.graphs.estimate import estimate
from metarestore.project import read_task
from metarestore.tasks.images import ImageSource, ImageStore, write_image
from metarestore.training.jobs import ValidationJob
from metarestore.workspace.refs import TaskRef
from metarestore.workspace.study import Study
from metarestore.workspace.workspace import Workspace

INTERNAL = {"support_set": "internal", "patch": 64, "query": 3}


def opened(small_study: Callable[..., Study], **changes: Any) -> Workspace:
    return Workspace(small_study(learner={"kind": "maml"}, training=INTERNAL, **changes))


def test_the_support_set_is_the_query_degraded_once_more(small_study: Callable[..., Study]) -> None:
    workspace = opened(small_study)
    distribution = workspace.auxiliary("bicubic")
    draw = distribution.draw(0, 1)
    task = distribution.build(draw)
    assert (draw.support, len(draw.query)) == ((), 3)
    assert torch.equal(task.support_hr, task.query_lr)
    expected = bicubic_downsample(task.query_lr, 4).clamp(0, 1)
    torch.testing.assert_close(task.support_lr, expected, atol=0.51 / 255, rtol=0)  # rounded to 8 bits
    assert task.support_lr.shape[-2:] == (4, 4)


def test_noise_differs_between_a_query_image_and_its_degraded_version(small_study: Callable[..., Study]) -> None:
    workspace = opened(small_study)
    distribution = workspace.auxiliary("noise_gaussian")
    task = distribution.build(distribution.draw(0, 1))
    # Fields of one seed begin with the same numbers, whatever their size.
    begin = [
        (lr - bicubic_downsample(hr, 4))[:, 0, 0, :4]
        for lr, hr in ((task.support_lr, task.support_hr), (task.query_lr, task.query_hr))
    ]
    assert float((begin[0] - begin[1]).abs().mean()) > 5 / 255


def test_both_backends_agree(small_study: Callable[..., Study]) -> None:
    found = []
    for backend in ("vectorised", "learn2learn"):
        learner = {"kind": "maml", "inner_steps": 2, "backend": backend}
        workspace = Workspace(small_study(learner=learner, training=INTERNAL))
        tasks = workspace.tasks([TaskRef("blur_iso_wide", 0, k) for k in range(2)])
        found.append(workspace.gradients(workspace.initial(), tasks).gradients)
    np.testing.assert_allclose(*found, atol=1e-4 * float(np.abs(found[1]).max()))


def test_the_query_alone_is_validated(small_study: Callable[..., Study]) -> None:
    data = {"train": ImageSource.embedded("train"), "validation": ImageSource.embedded("test")}
    workspace = opened(small_study)
    workspace.study.images["validation"] = data["validation"]
    values = ValidationJob("bicubic").run(workspace, workspace.initial())
    assert np.isfinite(values).all()


@pytest.mark.parametrize("learner", ["maml", "fomaml", "meta_sgd", "anil"])
def test_every_learner_with_a_query_loss_learns_from_internal_pairs(
    small_study: Callable[..., Study], learner: str
) -> None:
    options = {"kind": learner, **({"adapts": ["tail.*"]} if learner == "anil" else {})}
    workspace = Workspace(small_study(learner=options, training=INTERNAL))
    tasks = workspace.tasks([TaskRef("blur_iso_wide", 0, k) for k in range(2)])
    assert np.isfinite(workspace.gradients(workspace.initial(), tasks).gradients).all()


@pytest.mark.parametrize("estimator", ["response", "gradient", "transfer", "learned", "descriptor"])
def test_every_estimator_relates_distributions_with_internal_pairs(
    small_study: Callable[..., Study], estimator: str
) -> None:
    graph = {"estimator": {"kind": estimator}}
    workspace = opened(small_study, graph=graph, adaptation={"shot_size": 128})
    session = LocalSession(workspace)
    found = estimate(workspace, session.map, workspace.initial(), 0, None)
    assert np.isfinite(found.values).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learner": {"kind": "pretrain"}, "training": INTERNAL}, "choose a meta-learner, e.g. maml"),
        ({"learner": {"kind": "reptile"}, "training": INTERNAL}, "choose a meta-learner, e.g. maml"),
        ({"training": {**INTERNAL, "shot_tasks": 1}}, "the degradation of shots is unknown"),
        ({"training": {**INTERNAL, "source": "target"}}, "the degradation of shots is unknown"),
    ],
)
def test_what_has_no_internal_pairs_is_refused(
    small_experiment: Callable[..., Experiment], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        small_experiment(**changes)


def test_patches_must_be_divisible_twice(small_study: Callable[..., Study]) -> None:
    workspace = Workspace(small_study(training={**INTERNAL, "patch": 40}))
    with pytest.raises(UserError, match=r"training.patch must be a multiple of 16 .* got 40"):
        workspace.auxiliary("bicubic")


def test_distributions_with_images_of_their_own_are_refused(small_study: Callable[..., Study], tmp_path: Path) -> None:
    pixels = ImageStore.open(ImageSource.embedded("test")).image("chelsea")[:128, :128]
    write_image(tmp_path / "street.png", np.ascontiguousarray(pixels))
    text = f"kind: single_image\nscale: 4\nimage: {tmp_path / 'street.png'}\nkernel: bicubic\n"
    (tmp_path / "street.yaml").write_text(text)
    spec = read_task(tmp_path / "street.yaml")
    with pytest.raises(UserError, match="'street' has images of its own; use distributions of kind synthetic"):
        opened(small_study).open_tasks("street", spec, "train")
