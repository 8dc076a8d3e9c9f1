"""The functions of `import metarestore`."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import metarestore as mr
from metarestore.api.runs import override_of
from metarestore.errors import UserError
from metarestore.models.restore import image_restorer
from metarestore.scaffold import make_project
from metarestore.tasks.embedded import EMBEDDED, embedded_path
from metarestore.tasks.photographs import read_image, write_image

NETWORK = "fsrcnn_pisr_x4"


@pytest.fixture(scope="module")
def pixels() -> Any:
    return read_image(embedded_path(EMBEDDED["test"][0])).pixels[:40, :56]


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, metarestore; print([m for m in ('torch', 'ray', 'mlflow', 'pandas', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", mr.__all__)
def test_every_name_can_be_imported_and_is_documented(name: str) -> None:
    assert getattr(mr, name).__doc__
    assert name in dir(mr)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'restoer'"):
        _ = mr.restoer  # type: ignore[attr-defined]


class TestRestore:
    def test_types_agree(self, pixels: Any) -> None:
        network = mr.load_model(NETWORK)
        expected = image_restorer(network)(pixels)
        np.testing.assert_array_equal(mr.restore(pixels, NETWORK), expected)
        np.testing.assert_array_equal(np.asarray(mr.restore(Image.fromarray(pixels), network)), expected)
        image = torch.from_numpy(pixels).permute(2, 0, 1) / 255.0
        restored = mr.restore(image, network)
        assert (restored.dtype, restored.shape) == (torch.float32, (3, 160, 224))
        assert (restored * 255 - torch.from_numpy(expected).permute(2, 0, 1)).abs().max() <= 0.51
        batch = mr.restore(torch.stack([image, image.flip(-1)]), network)
        torch.testing.assert_close(batch[0], restored)

    @pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "1", "I;16"])
    def test_pillow_modes(self, pixels: Any, mode: str) -> None:
        image = Image.fromarray(pixels)
        given = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
        found = mr.restore(given, NETWORK)
        assert found.size == (224, 160)
        assert found.mode == {"P": "RGB", "CMYK": "RGB", "1": "L"}.get(mode, mode)

    def test_a_colour_profile_is_kept(self, pixels: Any) -> None:
        image = Image.fromarray(pixels)
        image.info["icc_profile"] = b"profile"
        assert mr.restore(image, NETWORK).info["icc_profile"] == b"profile"

    def test_the_self_ensemble_is_used(self, pixels: Any) -> None:
        network = mr.load_model(NETWORK)
        averaged = mr.restore(pixels, network, self_ensemble=True)
        np.testing.assert_array_equal(averaged, image_restorer(network, ensemble=True)(pixels))
        assert not np.array_equal(averaged, mr.restore(pixels, network))

    def test_without_a_model_the_shipped_one_of_the_scale(self, pixels: Any) -> None:
        assert mr.restore(pixels, scale=4).shape == (160, 224, 3)

    @pytest.mark.parametrize(
        ("image", "options", "words"),
        [
            (np.zeros((4, 4, 3), np.uint8), {}, "give a model, or a scale"),
            (np.zeros((4, 4, 3), np.uint8), {"model": NETWORK, "scale": 2}, "is for scale 4, got scale=2"),
            (torch.zeros(4, 4, 3), {"model": NETWORK}, "shape 4x4x3"),
            (torch.zeros(3, 4, 4, dtype=torch.uint8), {"model": NETWORK}, "torch.uint8"),
            (np.full((4, 4, 3), 7.0), {"model": NETWORK}, "values from 7 to 7"),
        ],
    )
    def test_what_cannot_be_restored_is_explained(self, image: Any, options: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=words):
            mr.restore(image, **options)


class TestTask:
    def test_a_pair_depends_on_its_number_only(self) -> None:
        task = mr.load_task("blur_jpeg")
        one, again, other = (task.draw(seed=0, index=index, patch=64) for index in (3, 3, 4))
        assert (one.hr.shape, one.lr.shape) == ((3, 64, 64), (3, 64 // task.scale, 64 // task.scale))
        assert torch.equal(one.lr, again.lr)
        assert one.parameters == again.parameters
        assert not torch.equal(one.lr, other.lr)
        assert 0 <= one.lr.min() <= one.lr.max() <= 1
        assert not torch.equal(one.hr, task.draw(seed=1, index=3, patch=64).hr)

    def test_photographs_of_ones_own(self, tmp_path: Path) -> None:
        write_image(tmp_path / "green.png", np.full((80, 96, 3), (0, 255, 0), np.uint8))
        pair = mr.load_task("bicubic").draw(seed=0, index=0, patch=64, photographs=tmp_path)
        assert torch.equal(pair.hr, torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1).expand(3, 64, 64))

    def test_a_data_loader_with_workers_gives_the_same_pairs(self) -> None:
        data = mr.load_task("noise_gaussian").dataset(patch=32, length=6, seed=1)
        assert pickle.loads(pickle.dumps(data))[2].parameters == data[2].parameters
        loader = DataLoader(data, batch_size=3, num_workers=1, collate_fn=lambda pairs: [pair.lr for pair in pairs])
        for got, expected in zip((lr for batch in loader for lr in batch), (data[k].lr for k in range(6)), strict=True):
            assert torch.equal(got, expected)
        with pytest.raises(IndexError):
            data[6]

    def test_images_of_ones_own_are_degraded(self) -> None:
        task = mr.load_task("bicubic", scale=2)
        lr = task.degrade(torch.rand(2, 3, 32, 48), seed=0, index=0)
        assert lr.shape == (2, 3, 16, 24)

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: mr.load_task("blur_jpg"), "did you mean 'blur_jpeg'"),
            (lambda: mr.load_task("bicubic").draw(0, 0, patch=63), "multiple of the scale 4, got 63"),
            (lambda: mr.load_run("nowhere"), "no results.json"),
            (lambda: mr.load_model("nowhere"), "no such file"),
        ],
    )
    def test_errors_say_what_to_do(self, make: Any, words: str) -> None:
        with pytest.raises(UserError, match=words):
            make()


SMALL = {
    "training__steps": 2,
    "adaptation__steps": 1,
    "training__patch": 32,
    "evaluation": {"crop": 64, "crops": 1},
    "engine": {"kind": "local"},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_project(folder)
    return folder


@pytest.fixture(scope="module")
def study(project: Path, mlflow_store: str) -> mr.Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
        return mr.train(project / "experiments/first.yaml", out=project / "run", arms=True, quiet=True, **SMALL)


class TestRun:
    def test_results_are_a_table(self, study: mr.Run) -> None:
        table = mr.load_run(study.folder).results()
        assert {*table["arm"]} == {"bicubic", *study.arms} == {"bicubic", "uniform", "weighted"}
        assert table.groupby("arm")["psnr_y"].count().nunique() == 1
        assert table["psnr_y"].notna().all()

    def test_the_log_is_a_table(self, study: mr.Run) -> None:
        history = study.history("uniform")
        assert list(history["step"]) == [1, 2]
        assert (history["loss"] > 0).all()
        assert study.validation("uniform").columns.tolist() == ["step", "psnr"]
        with pytest.raises(UserError, match="name one of its arms: uniform, weighted"):
            study.history()

    def test_the_network_restores(self, study: mr.Run, pixels: Any) -> None:
        for arm in (None, "uniform"):
            assert mr.restore(pixels, study.model(arm)).shape == (160, 224, 3)

    def test_the_command_says_the_same(self, study: mr.Run) -> None:
        with pytest.raises(UserError, match=r"training\.stepz"):
            mr.train(study.folder.parent / "experiments/first.yaml", training__stepz=1)
        assert override_of("adaptation__alternatives", []).path == ("adaptation", "alternatives")


@pytest.mark.xdist_group("ray")
def test_a_tuner_of_ones_own(project: Path, tmp_path: Path) -> None:
    import ray
    from ray import tune

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        space = {key.replace("__", "."): value for key, value in SMALL.items()}
        space["training.optimizer.lr"] = tune.grid_search([1e-4, 1e-3])
        tuner = tune.Tuner(
            mr.trainable(project / "experiments/first.yaml"),
            param_space=space,
            run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
        )
        results = tuner.fit()
        assert len(results) == 2
        assert not results.errors
        assert results.get_best_result("metric", "max").metrics["step"] == 2
    finally:
        ray.shutdown()
