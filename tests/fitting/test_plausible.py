"""A fit is refused where the pairs are not one camera's, and what is written can always be read."""

import re
from dataclasses import replace

import numpy as np
import pytest

from metarestore.checking import check_files
from metarestore.errors import UserError
from metarestore.fitting import fit_camera, fit_pair, write_task
from metarestore.fitting.camera import CameraFit, implausible
from metarestore.fitting.gaussian import Gaussian
from metarestore.fitting.kernel import LEAST_GAIN, ColourLine
from metarestore.project import read_task
from metarestore.tasks.fitted_on import fitted_on_test_pairs
from metarestore.tasks.images import read_image, write_image
from metarestore.tasks.pairs import PairsSpec
from metarestore.tasks.spec import content_hash

NAMES = ("astronaut", "chelsea", "coffee")
STEPS = ({"op": "gaussian_blur", "sigma": 1.2}, {"op": "downsample", "method": "nearest"})


@pytest.fixture(scope="module")
def good(make_pair):
    return [make_pair(name, 2, *STEPS, side=240) for name in NAMES]


@pytest.fixture(scope="module")
def fit(good):
    return CameraFit("pairs", 2, tuple(fit_pair(pair) for pair in good))


FAULTS = {
    "mirrored": (lambda pair: replace(pair, lr=pair.lr[:, ::-1]), "mirrored left to right"),
    "rotated": (lambda pair: replace(pair, lr=pair.lr[::-1, ::-1]), "rotated by 180 degrees"),
    "shifted": (lambda pair: replace(pair, lr=pair.lr[4:], hr=pair.hr[:-8]), r"\+4 \(down\)"),
    "inverted": (lambda pair: replace(pair, lr=255 - pair.lr), "dark where HR is bright"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("which", [0, 2])
def test_a_wrong_pair_is_named_before_the_fit(good, save_pairs, fault, which):
    change, words = FAULTS[fault]
    folder = save_pairs(*(change(pair) if k == which else pair for k, pair in enumerate(good)))
    with pytest.raises(UserError, match=f"pair '{NAMES[which]}': .*{words}") as error:
        fit_camera(folder)
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_right_partner_is_named_even_if_it_is_not_fitted(good, save_pairs, count):
    lrs = [pair.lr for pair in good]
    folder = save_pairs(*(replace(pair, lr=lrs[(k + 1) % 3]) for k, pair in enumerate(good)))
    with pytest.raises(UserError, match="'astronaut': LR shows what HR of 'chelsea' shows") as error:
        fit_camera(folder, count=count)
    assert len(error.value.problems) == count


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shift": (5.0, 0.0)}, "5.0 HR pixels apart, beyond the radius of the kernel"),
        ({"gaussian": Gaussian(1.2, 1.0, 0.0, (0.0, -6.0))}, "6.0 HR pixels apart"),
        ({"gaussian": Gaussian(65.3, 4.0, 0.0, (0.0, 0.0))}, r"its blur \(sigma 65.3 HR pixels\) is wider"),
        ({"psnr_fitted": 11.0, "psnr_bicubic": 15.0}, "11.0 dB relative to LR, less than the 15.0 dB of bicubic"),
        ({"colour": ColourLine((0.9, -0.1, 0.9), (0, 0, 0))}, "dark where HR is bright"),
        ({"colour": ColourLine((0.0, 1.0, 0.9), (0, 0, 0))}, r"gains 0\.00 1\.00 0\.90"),
    ],
)
def test_a_fit_is_judged_by_what_it_knows(fit, changes, words):
    assert implausible(fit) == []
    wrong = replace(fit, pairs=(fit.pairs[0], replace(fit.pairs[1], **changes)))
    [problem] = implausible(wrong)
    assert "pair 'chelsea' cannot be fitted" in problem
    assert re.search(words, problem)


def test_a_pair_whose_blur_stands_apart_may_have_any(fit):
    """A wall among photographs shows no kernel; its kernel is left out of the file."""
    wall = replace(fit.pairs[0], gaussian=Gaussian(40.0, 1.0, 0.0, (9.0, 0.0)))
    assert implausible(replace(fit, pairs=(*fit.pairs, fit.pairs[0], wall))) == []
    assert implausible(replace(fit, pairs=(fit.pairs[0], wall))) != []


def off_centre(side):
    kernel = np.zeros((side, side))
    kernel[0, 0], kernel[-1, -1] = 6.0, -5.0
    return kernel


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": off_centre(12)},
        {"colour": ColourLine((9.5, 1.0, 1.0), (0, 0, 0))},
        {"colour": ColourLine((1.0, 1.0, 1.0), (0, 300.0, 0))},
        {"colour": ColourLine((0.0, 1.0, 1.0), (0, 0, 0))},
    ],
)
def test_nothing_is_written_that_check_refuses(fit, tmp_path, changes):
    wrong = replace(fit, pairs=(fit.pairs[0], replace(fit.pairs[1], **changes)))
    (tmp_path / "tasks").mkdir()
    with pytest.raises(UserError) as error:
        write_task(wrong, tmp_path / "tasks" / "c.yaml")
    assert list((tmp_path / "tasks").iterdir()) == []
    assert ("pair 'chelsea'" in str(error.value)) == ("kernel" in changes)
    files = write_task(fit, tmp_path / "tasks" / "c.yaml")
    assert check_files(files[:1]) == []


@pytest.mark.parametrize("dark", [(0,), (2,), (0, 1), (1, 2)])
@pytest.mark.parametrize("side", ["both", "lr"])
def test_channels_without_content_do_not_matter(good, save_pairs, tmp_path, dark, side):
    def darkened(image):
        return np.where(np.isin(np.arange(3), dark), 0.0, image)

    hr = darkened(good[0].hr) if side == "both" else good[0].hr
    found = fit_camera(save_pairs(replace(good[0], lr=darkened(good[0].lr), hr=hr)))
    whole = fit_pair(good[0])
    [pair] = found.pairs
    assert pair.gaussian.sigma == pytest.approx(whole.gaussian.sigma, rel=0.05)
    for channel in range(3):
        expected = whole.colour.gains[channel] if channel not in dark else 1.0 if side == "both" else LEAST_GAIN
        assert pair.colour.gains[channel] == pytest.approx(expected, abs=0.02)
    (tmp_path / "tasks").mkdir()
    assert check_files(write_task(found, tmp_path / "tasks" / "c.yaml")[:1]) == []


def test_a_black_image_is_still_refused(good, save_pairs):
    with pytest.raises(UserError, match="flat or saturated nearly everywhere"):
        fit_camera(save_pairs(replace(good[0], lr=good[0].lr * 0, hr=good[0].hr * 0)))


@pytest.mark.parametrize("count", [1, 2])
def test_only_the_first_pairs_are_read(good, save_pairs, count):
    folder = save_pairs(*good)
    (folder / "lr" / "coffee.png").write_bytes(b"no photograph")
    assert [pair.name for pair in fit_camera(folder, count=count).pairs] == list(NAMES[:count])
    with pytest.raises(UserError, match=r"coffee\.png: damaged"):
        fit_camera(folder)
    with pytest.raises(UserError, match="4 pairs are requested, but there are only 3"):
        fit_camera(folder, count=4)


@pytest.mark.parametrize(("pool", "count", "known"), [(1, 3, 2), (1, 1, 0), (2, 2, 0), (2, 3, 1)])
def test_a_study_is_warned_of_a_fit_to_its_test_pairs(good, save_pairs, tmp_path, pool, count, known):
    folder = save_pairs(*good)
    (tmp_path / "tasks").mkdir()
    out = tmp_path / "tasks" / "twin.yaml"
    write_task(fit_camera(folder, count=count), out)
    # Whatever the pairs are called and wherever they lie.
    for side in ("lr", "hr"):
        (tmp_path / side).mkdir()
        for name in NAMES:
            write_image(tmp_path / side / f"moved_{name}.png", read_image(folder / side / f"{name}.png").pixels)
    target = PairsSpec(kind="pairs", scale=2, lr=tmp_path / "lr", hr=tmp_path / "hr", support_pool=pool)
    warnings = fitted_on_test_pairs([({"twin": read_task(out)}, target)] * 2)
    assert len(warnings) == (known > 0)
    if known:
        assert f"'twin' was fitted to {known} of the {3 - pool} test pairs" in warnings[0]
        assert "moved_coffee" in warnings[0]


def test_the_record_of_pairs_does_not_matter_for_what_is_drawn(good, save_pairs, tmp_path):
    (tmp_path / "tasks").mkdir()
    folder = save_pairs(good[0])
    spec = read_task(write_task(fit_camera(folder), tmp_path / "tasks" / "c.yaml")[0])
    assert list(spec.fitted_to) == ["astronaut"]
    assert str(folder) not in str(spec.fitted_to)
    assert content_hash(spec) == content_hash(spec.model_copy(update={"fitted_to": {}}))
