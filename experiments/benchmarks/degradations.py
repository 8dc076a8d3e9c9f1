"""Measures pairs per second of one second-order pipeline: ours, a plain OpenCV/NumPy loop, and kornia, in one run.

The pipeline is blur - resize - noise - JPEG, twice, then x4 downsampling, on 16 photographs of 256x256 pixels, each
with parameters of its own. All implementations get the same drawn parameters, one thread, and are measured in turns.
The second part is the share of a training step that goes into drawing, reading and degrading its tasks.

Run:     python experiments/benchmarks/degradations.py [--device cuda] [--rounds 9]
Prints:  the median time for 16 pairs, pairs per second and ratios; then shares of training steps.
Results: experiments/results/degradations.md
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import cv2
import kornia
import numpy as np
import torch
from torch import Tensor

from metarestore.config.experiment import Experiment
from metarestore.degradations import DegradationDraw, Pipeline, replay_each
from metarestore.degradations.kernels import gaussian_kernel
from metarestore.project import catalogue, resolve
from metarestore.tasks.distribution import to_tensor
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.training.sampler import TaskSampler
from metarestore.workspace.workspace import Workspace

BATCH, SIDE, SCALE = 16, 256, 4
# kornia resizes a batch by one factor, so the factors are fixed; everything else is drawn for each image.
ORDER = [
    {"op": "gaussian_blur", "sigma": [0.4, 3], "ratio": [1.2, 3], "angle": [0, 180], "size": 21},
    {"op": "resize", "factor": 0.7, "method": "bilinear", "antialias": False},
    {"op": "gaussian_noise", "sigma": [1, 25]},
    {"op": "jpeg", "quality": [30, 95]},
]
SECOND = [
    {"op": "gaussian_blur", "sigma": [0.3, 1.5], "size": 21},
    {"op": "resize", "of": "lr", "factor": 1.2, "method": "bicubic", "antialias": False},
    {"op": "poisson_noise", "peak": {"log_uniform": [30, 1000]}},
    {"op": "jpeg", "quality": [30, 95]},
    {"op": "downsample", "method": "bicubic", "antialias": False},
]
Draws = Sequence[Sequence[DegradationDraw]]


def photographs() -> Tensor:
    store = ImageStore.open(ImageSource.embedded("train"))
    large = [name for name in store.names if min(store.size(name)) >= SIDE + BATCH]
    names = [large[k % len(large)] for k in range(BATCH)]
    return torch.stack([to_tensor(store.patch(name, k, k, SIDE, SIDE)) for k, name in enumerate(names)])


def ours(images: Tensor, draws: Draws) -> Tensor:
    return replay_each(images, draws, list(range(BATCH)))


def plain_loop(images: Tensor, draws: Draws) -> Tensor:
    """Degrades as the field's data loaders do: image by image, full 2-D kernels, double-precision global noise."""
    results = []
    for image, operations in zip(images.permute(0, 2, 3, 1).numpy(), draws, strict=True):
        degraded = image
        for draw in operations:
            degraded = np.clip(PLAIN[draw.op](degraded, draw.params), 0, 1).astype(np.float32)
        results.append((degraded * 255).round() / 255)
    return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2)


def kernel_of(params: Mapping[str, float]) -> np.ndarray:
    side = np.zeros((21, 21), np.float32)
    kernel = gaussian_kernel(params["sigma"], params["ratio"], params["angle"])
    cut = max(0, len(kernel) - 21) // 2
    kernel = kernel[cut : len(kernel) - cut, cut : len(kernel) - cut]
    rim = (21 - len(kernel)) // 2
    side[rim : 21 - rim, rim : 21 - rim] = kernel / kernel.sum()
    return side


def plain_blur(image: np.ndarray, params: Mapping[str, float]) -> np.ndarray:
    return cv2.filter2D(image, -1, kernel_of(params), borderType=cv2.BORDER_REFLECT)


def plain_resize(image: np.ndarray, params: Mapping[str, float]) -> np.ndarray:
    size = new_size(image.shape[:2], params)
    return cv2.resize(image, size[::-1], interpolation={"bilinear": 1, "bicubic": 2}[params["method"]])


def new_size(size: tuple[int, ...], params: Mapping[str, float]) -> tuple[int, int]:
    if "scale" in params:
        return SIDE // SCALE, SIDE // SCALE
    height, width = (SIDE // SCALE, SIDE // SCALE) if params["of"] == "lr" else size
    return round(height * params["factor"]), round(width * params["factor"])


def plain_jpeg(image: np.ndarray, params: Mapping[str, float]) -> np.ndarray:
    flags = [cv2.IMWRITE_JPEG_QUALITY, int(params["quality"])]
    _, code = cv2.imencode(".jpg", (image[..., ::-1] * 255).round().astype(np.uint8), flags)
    return cv2.imdecode(code, 1)[..., ::-1].astype(np.float32) / 255


PLAIN: dict[str, Callable[..., np.ndarray]] = {
    "gaussian_blur": plain_blur,
    "resize": plain_resize,
    "downsample": plain_resize,
    "gaussian_noise": lambda image, params: image + np.random.normal(0, params["sigma"] / 255, image.shape),  # noqa: NPY002
    "poisson_noise": lambda image, params: np.random.poisson(image * params["peak"]) / params["peak"],  # noqa: NPY002
    "jpeg": plain_jpeg,
}


def with_kornia(images: Tensor, draws: Draws) -> Tensor:
    """Degrades the batch at once: the operations are the same for all images, their parameters are not."""
    for step in zip(*draws, strict=True):
        images = KORNIA[step[0].op](images, [draw.params for draw in step]).clamp(0, 1)
    return (images * 255).round() / 255


def values(images: Tensor, params: Sequence[Mapping[str, float]], name: str) -> Tensor:
    return torch.tensor([entry[name] for entry in params], dtype=torch.float32, device=images.device)


def kornia_blur(images: Tensor, params: Sequence[Mapping[str, float]]) -> Tensor:
    kernels = torch.from_numpy(np.stack([kernel_of(entry) for entry in params])).to(images.device)
    return kornia.filters.filter2d(images, kernels, border_type="reflect")


def kornia_resize(images: Tensor, params: Sequence[Mapping[str, float]]) -> Tensor:
    size = new_size(tuple(images.shape[-2:]), params[0])
    return kornia.geometry.resize(images, size, interpolation=str(params[0]["method"]))


def kornia_jpeg(images: Tensor, params: Sequence[Mapping[str, float]]) -> Tensor:
    height, width = images.shape[-2:]
    padded = torch.nn.functional.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate")
    coded = kornia.enhance.jpeg_codec_differentiable(padded, values(images, params, "quality"))
    return coded[..., :height, :width]


def kornia_noise(images: Tensor, params: Sequence[Mapping[str, float]]) -> Tensor:
    return images + values(images, params, "sigma")[:, None, None, None] / 255 * torch.randn_like(images)


def kornia_poisson(images: Tensor, params: Sequence[Mapping[str, float]]) -> Tensor:
    peak = values(images, params, "peak")[:, None, None, None]
    return torch.poisson(images * peak) / peak


KORNIA: dict[str, Callable[..., Tensor]] = {
    "gaussian_blur": kornia_blur,
    "resize": kornia_resize,
    "downsample": kornia_resize,
    "gaussian_noise": kornia_noise,
    "poisson_noise": kornia_poisson,
    "jpeg": kornia_jpeg,
}


def clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(device: str, rounds: int) -> None:
    images = photographs()
    pipeline = Pipeline.model_validate([*ORDER, *SECOND])
    draws = [pipeline.draw((0, "benchmark", k), SCALE) for k in range(BATCH)]
    runs: dict[str, Callable[[], object]] = {
        "ours, CPU": lambda: ours(images, draws),
        "OpenCV/NumPy loop": lambda: plain_loop(images, draws),
        "kornia, CPU": lambda: with_kornia(images, draws),
    }
    if device != "cpu":
        there = images.to(device)
        runs[f"ours, {device}"] = lambda: ours(there, draws)
        runs[f"kornia, {device}"] = lambda: with_kornia(there, draws)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        clock(run)
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(clock(run))
    medians = {name: statistics.median(measured) for name, measured in times.items()}
    print(f"second-order pipeline, {BATCH} x {SIDE} x {SIDE}, one thread, median of {rounds}")
    for name, median in medians.items():
        ratio = median / medians["ours, CPU"]
        print(
            f"  {name:<20} {1e3 * median:8.1f} ms {BATCH / median:8.1f} pairs/s   {ratio:.2f} x the time of ours, CPU"
        )


def experiment(tasks: Sequence[str], learner: Mapping[str, object]) -> Experiment:
    return Experiment.model_validate(
        {
            "graph": {"target": "phone_camera", "auxiliary": list(tasks), "estimator": {"kind": "uniform"}},
            "learner": learner,
            "training": {"tasks_per_step": 8, "shard_size": 8, "support": 5, "query": 5, "patch": 64},
            "engine": {"kind": "local"},
        }
    )


def share(tasks: Sequence[str], learner: Mapping[str, object], rounds: int) -> None:
    """Prints which share of a step (8 tasks, 5 + 5 patches, LR 16x16) making the tasks takes."""
    study = resolve(experiment(tasks, learner), catalogue())
    workspace = Workspace(study)
    training = study.experiment.training
    sampler = TaskSampler(tuple(study.auxiliary), 0, training.tasks_per_step, training.shard_size)
    flat = workspace.initial()
    making, learning = [], []
    for step in range(rounds + 1):
        (shard,) = sampler.shards(step)
        start = time.perf_counter()
        stacked = workspace.tasks(shard)
        middle = time.perf_counter()
        workspace.gradients(flat, stacked)
        making.append(middle - start)
        learning.append(time.perf_counter() - middle)
    made, learned = (1e3 * statistics.median(times[1:]) for times in (making, learning))
    name = " ".join(f"{key}={value}" for key, value in learner.items())
    whole = made + learned
    print(f"  {' '.join(tasks)[:40]:<42} {name:<32} {made:6.1f} of {whole:7.1f} ms  {made / whole:6.1%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    machine = platform.processor() or platform.machine()
    print(f"torch {torch.__version__}, OpenCV {cv2.__version__}, kornia {kornia.__version__}, {machine}")
    compare(arguments.device, arguments.rounds)
    print("share of a training step that goes into its tasks (FSRCNN x4, 8 tasks of 5 + 5 patches of 64x64 HR)")
    for tasks in (["blur_iso_wide", "noise_gaussian", "jpeg"], ["realesrgan"], ["bsrgan"]):
        for learner in ({"kind": "fomaml"}, {"kind": "maml"}, {"kind": "maml", "inner_steps": 5}):
            share(tasks, learner, arguments.rounds)
