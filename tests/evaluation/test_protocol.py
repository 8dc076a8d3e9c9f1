"""Evaluation protocols on a folder, against the cases done by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from metarestore.degradations import Pipeline, replay
from metarestore.evaluation.folder import bicubic_restore
from metarestore.evaluation.metrics import psnr_y
from metarestore.evaluation.protocol import case_labels, evaluate_protocol
from metarestore.project import Project
from metarestore.tasks.images import read_image, write_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    y, x = np.mgrid[:66, :70]
    waves = 128 + 90 * np.sin(y / 3)[..., None] * np.cos(x[..., None] / np.array([3, 4, 5]))
    write_image(tmp_path / "photos/one.png", waves.astype(np.uint8))
    return tmp_path / "photos"


def test_gaussian8_is_eight_blurs(folder: Path) -> None:
    spec = Project(Path.cwd()).protocol("gaussian8", 4)
    report = evaluate_protocol("gaussian8", spec, folder, bicubic_restore(4))
    assert list(report.cases) == [f"gaussian_blur.sigma {sigma}" for sigma in (1.8, 2, 2.2, 2.4, 2.6, 2.8, 3, 3.2)]
    hr = read_image(folder / "one.png").pixels[:64, :68]
    images = torch.from_numpy(hr.transpose(2, 0, 1).copy())[None].float() / 255
    for label, case in zip(report.cases, spec.cases, strict=True):
        lr = (replay(images, case, [0])[0] * 255).round().byte().permute(1, 2, 0).numpy()
        assert report.cases[label].psnr_y == pytest.approx(psnr_y(bicubic_restore(4)(lr), hr, 4), abs=1e-9)
    figures = [case.psnr_y for case in report.cases.values()]
    assert figures == sorted(figures, reverse=True)  # wider blurs are harder
    assert report.psnr_y == pytest.approx(np.mean(figures))
    assert json.loads(json.dumps(report.to_json()))["protocol"] == "gaussian8"


def test_noise_is_that_of_the_photograph_in_every_case(folder: Path) -> None:
    spec = Project(Path.cwd()).protocol("aniso9_noise3", 4)
    reports = [evaluate_protocol("aniso9_noise3", spec, folder, bicubic_restore(4)) for _ in range(2)]
    assert reports[0] == reports[1]
    assert len(reports[0].cases) == 27


def test_photographs_have_noise_of_their_own_and_the_same_in_every_case(folder: Path) -> None:
    spec = Project(Path.cwd()).protocol("aniso9_noise3", 4)
    seen: list[np.ndarray] = []

    def remember(lr: np.ndarray) -> np.ndarray:
        seen.append(lr)
        return bicubic_restore(4)(lr)

    write_image(folder / "one.png", np.full((64, 64, 3), 128, np.uint8))
    write_image(folder / "two.png", np.full((64, 64, 3), 128, np.uint8))
    evaluate_protocol("aniso9_noise3", spec, folder, remember)
    first, second = seen[0::2], seen[1::2]
    assert np.array_equal(first[0], second[0])  # no noise, nothing to blur
    assert not np.array_equal(first[1], second[1])
    assert np.array_equal(first[1], first[4])  # noise of 10 grey levels after the first and after the second kernel


def test_cases_are_named_by_what_differs() -> None:
    choices = [{"op": "jpeg", "quality": {"choice": [30, 60]}}, {"op": "gamma", "exponent": 2}]
    written = [{"op": "one_of", "choices": choices}, {"op": "gamma", "exponent": 1}]
    labels = case_labels(Pipeline.model_validate(written).cases(1))
    assert [label.split(",")[0] for label in labels][:2] == ["jpeg.quality 30", "jpeg.quality 60"]
    assert len(set(labels)) == 3
    same = Pipeline.model_validate([{"op": "one_of", "choices": [{"op": "gamma", "exponent": 2}] * 2}]).cases(1)
    assert case_labels(same) == ["(case 0)", "(case 1)"]
