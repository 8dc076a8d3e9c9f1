import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from metarestore.degradations import replay
from metarestore.errors import UserError
from metarestore.fitting import CameraFit, fit_camera, fit_pair, synthesise, write_task
from metarestore.project import read_task
from metarestore.reports.tasks.fit import fit_figure, kernel_picture

NAMES = ("astronaut", "chelsea", "coffee")
NEAREST = {"op": "downsample", "method": "nearest"}
SIGMAS = (1.0, 1.2, 1.4)


def blur(sigma):
    return {"op": "gaussian_blur", "sigma": sigma}


@pytest.fixture(scope="module")
def camera(make_pair, save_pairs):
    """A folder of three pairs at x2: blur, a colour line, noise of 2 grey levels."""
    levels = {"op": "levels", "gain_red": 1.05, "offset_red": -4, "gain_blue": 0.95, "offset_blue": 3}
    after = (NEAREST, levels, {"op": "gaussian_noise", "sigma": 2})
    pairs = [make_pair(name, 2, blur(sigma), *after, side=240) for name, sigma in zip(NAMES, SIGMAS, strict=True)]
    return save_pairs(*pairs)


@pytest.fixture(scope="module")
def fit(camera):
    return fit_camera(camera)


def written(fit, folder):
    out = folder / "tasks" / "my_camera.yaml"
    write_task(fit, out)
    return out, read_task(out)


def test_a_camera_is_fitted_and_its_task_file_can_be_read(fit, tmp_path):
    assert [pair.gaussian.sigma for pair in fit.pairs] == pytest.approx(SIGMAS, rel=0.1)
    out, spec = written(fit, tmp_path)
    assert spec.scale == 2
    assert [step.op for step in spec.pipeline.steps] == ["kernel_file", "downsample", "one_of", "gaussian_noise"]
    assert np.load(out.parent / "my_camera" / "kernels.npy").shape == (3, 12, 12)
    noise = spec.pipeline.steps[-1].sigma
    assert (noise.low, noise.high) == pytest.approx((2, 2), rel=0.15)


def test_the_file_opens_with_what_it_is(camera, fit, tmp_path):
    out, _ = written(fit, tmp_path)
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# yaml-language-server: $schema=../schemas/task.json"
    assert lines[1].startswith(f"# The camera of 3 pairs in {camera}, fitted at x2")
    assert any(line.startswith("# Made:  metarestore tasks fit --pairs") for line in lines)
    assert "  - {op: kernel_file, path: tasks/my_camera/kernels.npy, recentre: false}" in lines
    assert re.search(r"Gaussians of\s+(# )?sigma 1\.2\d ± 0\.2", out.read_text(encoding="utf-8").replace("\n  #", ""))


def test_draws_of_the_file_do_what_was_fitted(fit, tmp_path, make_pair):
    """Without noise, the LR of a draw is HR, blurred by a pair's kernel and recoloured by a pair's line."""
    _, spec = written(fit, tmp_path)
    hr = make_pair("rocket", 2, NEAREST, side=120).hr
    image = torch.from_numpy(hr.transpose(2, 0, 1).copy()).float()[None] / 255
    kernels, colours = set(), set()
    for index in range(20):
        draws = [draw for draw in spec.pipeline.draw(("test", index), 2) if draw.op != "gaussian_noise"]
        made = replay(image, draws, [0], "opencv")[0].permute(1, 2, 0).numpy() * 255
        kernel, _, levels = draws
        colour = next(
            c for c, pair in enumerate(fit.pairs) if gains_of(levels) == [round(g, 3) for g in pair.colour.gains]
        )
        expected = fit.pairs[colour].colour.apply(synthesise(hr, fit.pairs[kernel.params["index"]].kernel, 2))
        np.testing.assert_allclose(made, np.clip(expected, 0, 255), atol=0.8)
        kernels.add(kernel.params["index"])
        colours.add(colour)
    assert len(kernels) == len(colours) == 3


def gains_of(levels):
    return [levels.params[f"gain_{name}"] for name in ("red", "green", "blue")]


def test_equal_pairs_give_equal_bytes(camera, fit, tmp_path):
    outs = []
    seen = []
    for each in (fit, fit_camera(camera, progress=lambda *call: seen.append(call))):
        files = write_task(each, tmp_path / "tasks" / "my_camera.yaml")
        outs.append([file.read_bytes() for file in files])
    assert outs[0] == outs[1]
    assert seen == [("astronaut", 1, 3), ("chelsea", 2, 3), ("coffee", 3, 3)]
    assert [file.name for file in files] == ["my_camera.yaml", "kernels.npy", "fit.json"]


def test_everything_estimated_is_kept_as_json(fit, tmp_path):
    stored = json.loads(write_task(fit, tmp_path / "tasks" / "c.yaml")[2].read_text(encoding="utf-8"))
    first = stored["pairs"][0]
    assert stored["scale"] == 2
    assert first["name"] == "astronaut"
    assert first["gaussian"]["sigma"] == pytest.approx(fit.pairs[0].gaussian.sigma, rel=1e-5)
    np.testing.assert_allclose(first["kernel"], fit.pairs[0].kernel, atol=1e-6)
    assert first["colour"]["gains"] == pytest.approx(fit.pairs[0].colour.gains, rel=1e-5)


def test_a_table_has_a_row_for_each_pair(fit):
    headings, *rows = fit.rows()
    assert [row[0] for row in rows] == list(NAMES)
    assert all(len(row) == len(headings) for row in rows)


def of_steps(make_pair, *steps, names=NAMES):
    pairs = [make_pair(name, 2, blur(1.2), NEAREST, *steps, side=240) for name in names]
    return CameraFit("pairs", 2, tuple(fit_pair(pair) for pair in pairs))


def test_photon_noise_is_written_as_such(make_pair, tmp_path):
    _, spec = written(of_steps(make_pair, {"op": "poisson_noise", "peak": 120}), tmp_path)
    noise = spec.pipeline.steps[-1]
    assert noise.op == "poisson_noise"
    assert 95 < noise.peak.low <= noise.peak.high < 150


def test_jpeg_is_written_with_its_range(make_pair, tmp_path):
    fits = [of_steps(make_pair, {"op": "jpeg", "quality": q, "codec": "libjpeg"}, names=NAMES[:1]) for q in (60, 70)]
    _, spec = written(CameraFit("pairs", 2, fits[0].pairs + fits[1].pairs), tmp_path)
    jpeg = spec.pipeline.steps[-1]
    assert (jpeg.op, jpeg.quality.low, jpeg.quality.high, jpeg.probability) == ("jpeg", 60, 70, 1)


def test_a_jpeg_file_is_taken_at_its_word(make_pair, save_pairs):
    folder = save_pairs(make_pair("coffee", 2, blur(1.2), NEAREST, side=160))
    file = folder / "lr" / "coffee.png"
    with Image.open(file) as image:
        image.save(file.with_suffix(".jpg"), quality=77)
    file.unlink()
    found = fit_camera(folder).pairs[0].jpeg
    assert (found.quality, found.confidence, found.subsampling) == (77, 1, 420)


def test_one_clean_pair_is_enough(make_pair, tmp_path):
    _, spec = written(of_steps(make_pair, names=NAMES[:1]), tmp_path)
    assert [step.op for step in spec.pipeline.steps] == ["kernel_file", "downsample", "levels"]


def test_a_pair_whose_blur_stands_apart_is_left_out_of_the_pool(make_pair, tmp_path):
    sigmas = {"astronaut": 1.0, "chelsea": 1.02, "coffee": 0.98, "camera": 1.01, "rocket": 2.2}
    pairs = [fit_pair(make_pair(name, 2, blur(sigma), NEAREST, side=200)) for name, sigma in sigmas.items()]
    out, _ = written(CameraFit("pairs", 2, tuple(pairs)), tmp_path)
    assert np.load(out.parent / "my_camera" / "kernels.npy").shape[0] == 4
    assert "Excluded, because their blur is an outlier: rocket." in out.read_text(encoding="utf-8")


def test_names_with_spaces_are_quoted(make_pair, tmp_path):
    out = tmp_path / "tasks" / "my camera.yaml"
    write_task(of_steps(make_pair, names=NAMES[:1]), out)
    assert 'path: "tasks/my camera/kernels.npy"' in out.read_text(encoding="utf-8")
    assert read_task(out).pipeline.draw(("test",), 2)[0].op == "kernel_file"


def test_a_task_file_ends_in_yaml(make_pair, tmp_path):
    with pytest.raises(UserError, match=r"a task file must end in \.yaml"):
        write_task(of_steps(make_pair, names=NAMES[:1]), tmp_path / "camera.txt")


def test_the_figure_has_a_row_for_each_pair(camera, fit):
    few, all_of_them = fit_figure(fit, camera, most=1), fit_figure(fit, camera)
    assert len(few.axes) == 7
    assert len(all_of_them.axes) == 21
    few.canvas.draw()
    assert kernel_picture(np.array([[0.0, 1.0], [-1.0, 0.5]]))[..., 0].tolist() == [[128, 255], [1, 192]]
