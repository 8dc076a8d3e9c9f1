"""LR that does not show what HR shows is named; what a camera may do to it is not."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from metarestore.checking import check_files
from metarestore.degradations import Pipeline, replay
from metarestore.evaluation.folder import bicubic_lr
from metarestore.tasks.embedded import EMBEDDED
from metarestore.tasks.images import ImageSource, ImageStore, write_image
from metarestore.tasks.pair_check import PairView, judge, observe
from metarestore.tasks.pairs import PairsSpec

BICUBIC = {"op": "downsample", "method": "bicubic"}
SCENES = ("astronaut", "chelsea", "coffee", "camera")
Faulty = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def photographs() -> dict[str, np.ndarray]:
    stores = [ImageStore.open(ImageSource.embedded(split)) for split in EMBEDDED]
    found = {name: store.image(name) for store in stores for name in store.names}
    return {name: image[: image.shape[0] // 12 * 12, : image.shape[1] // 12 * 12] for name, image in found.items()}


def degraded(hr: np.ndarray, scale: int, *steps: dict) -> np.ndarray:
    image = torch.from_numpy(np.ascontiguousarray(hr.transpose(2, 0, 1))).float()[None] / 255
    made = replay(image, Pipeline.model_validate(list(steps)).draw(("test",), scale), [0])
    return (made[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def enlarged(hr: np.ndarray, factor: float) -> np.ndarray:
    """Shows the same scene `factor` times as large, in an image of the same size."""
    height, width = hr.shape[:2]
    matrix = np.array([[factor, 0, (1 - factor) * width / 2], [0, factor, (1 - factor) * height / 2]])
    return cv2.warpAffine(hr, matrix, (width, height), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)


def moved(down: int, right: int) -> Faulty:
    """Cuts LR and HR so that LR shows what HR shows (down, right) LR pixels away."""

    def fault(hr: np.ndarray, lr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        s = hr.shape[0] // lr.shape[0]
        rows, columns = lr.shape[0] - abs(down), lr.shape[1] - abs(right)
        top, left = max(-down, 0), max(-right, 0)
        high = hr[s * top : s * (top + rows), s * left : s * (left + columns)]
        top, left = max(down, 0), max(right, 0)
        return high, lr[top : top + rows, left : left + columns]

    return fault


FAULTS: dict[str, tuple[str, Faulty]] = {
    "4 down": ("shifted", moved(4, 0)),
    "4 left": ("shifted", moved(0, -4)),
    "3 up, 5 right": ("shifted", moved(-3, 5)),
    "mirrored left to right": ("mirrored", lambda hr, lr: (hr, lr[:, ::-1])),
    "mirrored top to bottom": ("mirrored", lambda hr, lr: (hr, lr[::-1])),
    "rotated by 180": ("rotated", lambda hr, lr: (hr, lr[::-1, ::-1])),
    "1.1 times as large": ("rescaled", lambda hr, lr: (hr, bicubic_lr(enlarged(hr, 1.1), 4))),
    "1.2 times as large": ("rescaled", lambda hr, lr: (hr, bicubic_lr(enlarged(hr, 1.2), 4))),
    "0.9 times as large": ("rescaled", lambda hr, lr: (hr, bicubic_lr(enlarged(hr, 0.9), 4))),
    "inverted": ("inverted", lambda hr, lr: (hr, 255 - lr)),
}


def view(name: str, hr: np.ndarray, lr: np.ndarray) -> PairView:
    return observe(name, np.ascontiguousarray(lr), np.ascontiguousarray(hr))


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_pair_is_named_among_right_ones(photographs, scene, fault):
    expected, wrong = FAULTS[fault]
    clean = {name: (photographs[name], bicubic_lr(photographs[name], 4)) for name in SCENES}
    views = [view(name, *(wrong(*pair) if name == scene else pair)) for name, pair in clean.items()]
    assert {report.name: report.fault for report in judge(views) if report.fault} == {scene: expected}


@pytest.mark.parametrize("fault", ["4 down", "4 left", "3 up, 5 right"])
def test_the_shift_is_measured(photographs, fault):
    down, right = {"4 down": (4, 0), "4 left": (0, -4), "3 up, 5 right": (-3, 5)}[fault]
    hr = photographs["coffee"]
    [report] = judge([view("coffee", *FAULTS[fault][1](hr, bicubic_lr(hr, 4)))])
    assert report.shift == (down, right)
    assert f"{down:+d} (down) {right:+d} (right)" in str(report.problem)


@pytest.mark.parametrize("factor", [0.85, 0.9, 1.1, 1.15, 1.25])
def test_the_other_scale_is_measured(photographs, factor):
    hr = photographs["astronaut"]
    [report] = judge([view("astronaut", hr, bicubic_lr(enlarged(hr, factor), 4))])
    assert report.fault == "rescaled"
    assert report.zoom == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 2), (0, 3)])
def test_exchanged_partners_name_each_other(photographs, first, second):
    order = list(range(4))
    order[first], order[second] = second, first
    crops = [photographs[name][:288, :288] for name in SCENES]
    reports = judge([view(SCENES[k], crops[k], bicubic_lr(crops[order[k]], 4)) for k in range(4)])
    named = {report.name: report.other[0] for report in reports if report.fault == "exchanged"}
    assert named == {SCENES[first]: SCENES[second], SCENES[second]: SCENES[first]}
    assert all(report.fault is None for report in reports if report.name not in named)


@pytest.mark.parametrize("other", ["astronaut", "coffee", "chelsea"])
def test_a_pair_of_two_scenes_is_named(photographs, other):
    [report] = judge([view("camera", photographs["camera"][:288, :288], bicubic_lr(photographs[other][:288, :288], 4))])
    assert report.fault == "another scene"


STRONG = {
    "bicubic": [BICUBIC],
    "nearest": [{"op": "downsample", "method": "nearest"}],
    "blur": [{"op": "gaussian_blur", "sigma": 6.0}, BICUBIC],
    "noise": [BICUBIC, {"op": "gaussian_noise", "sigma": 50}],
    "photons": [BICUBIC, {"op": "poisson_noise", "peak": 20}],
    "jpeg": [{"op": "gaussian_blur", "sigma": 4.0}, BICUBIC, {"op": "jpeg", "quality": 10}],
    "colour": [BICUBIC, {"op": "levels", "gain_red": 0.4, "gain_green": 0.6, "gain_blue": 0.3, "offset_red": 40}],
}


@pytest.mark.parametrize("strong", STRONG)
@pytest.mark.parametrize("side", [None, 144])
@pytest.mark.parametrize("scale", [2, 4])
def test_no_photograph_is_called_wrong_however_degraded(photographs, strong, side, scale):
    crops = {name: image[:side, :side] for name, image in photographs.items()}
    reports = judge([view(name, hr, degraded(hr, scale, *STRONG[strong])) for name, hr in crops.items()])
    assert [report.problem for report in reports if report.fault] == []


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_report_states_scale_gain_and_correlation(photographs, scale):
    hr = photographs["coffee"]
    [report] = judge([view("coffee", hr, degraded(hr, scale, {**BICUBIC}, {"op": "levels"}))])
    assert report.scale == pytest.approx(scale)
    assert report.correlation > 0.99
    assert report.gain == pytest.approx(1, abs=0.03)
    assert report.shift == (0, 0)
    assert report.other is None
    assert report.problem is None


@pytest.mark.parametrize(("hr", "lr"), [(0, 0), (90, 90), (0, 255), (255, 17)])
def test_nothing_is_said_of_flat_images(hr, lr):
    flat = [np.full((side, side, 3), level, np.uint8) for side, level in ((192, hr), (48, lr))]
    assert judge([view("wall", *flat)])[0].fault is None
    assert judge([]) == ()


@pytest.fixture
def camera(tmp_path, photographs):
    """A project whose last pair is mirrored."""
    for folder in ("lr", "hr", "tasks"):
        (tmp_path / folder).mkdir()
    for k, name in enumerate(SCENES):
        hr = photographs[name][:288, :288]
        lr = bicubic_lr(hr, 4)
        write_image(tmp_path / f"hr/{k}.png", np.ascontiguousarray(hr))
        write_image(tmp_path / f"lr/{k}.png", np.ascontiguousarray(lr[:, ::-1] if k == 3 else lr))
    (tmp_path / "tasks/camera.yaml").write_text("kind: pairs\nscale: 4\nlr: lr\nhr: hr\n", encoding="utf-8")
    return tmp_path


def test_wrong_pairs_are_named_unless_they_are_meant(camera):
    spec = PairsSpec(kind="pairs", scale=4, lr=camera / "lr", hr=camera / "hr")
    first, remedy = spec.implausible_pairs()
    assert "pair '3': LR is mirrored left to right relative to HR" in first
    assert "check_content: false" in remedy
    assert not spec.model_copy(update={"check_content": False}).implausible_pairs()


def test_check_names_wrong_pairs(camera):
    problems = check_files([camera / "tasks/camera.yaml"])
    assert "pair '3'" in problems[0]
    assert len(problems) == 2
