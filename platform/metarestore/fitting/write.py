"""Writes a fitted camera as a task distribution: a commented YAML file and a file of kernels."""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean

import numpy as np

from metarestore.config.document import project_root, read_document, validate
from metarestore.config.file_names import is_yaml
from metarestore.console import command_line
from metarestore.degradations.kernel_file import load_kernels
from metarestore.errors import UserError
from metarestore.files import write_atomically
from metarestore.fitting.camera import CameraFit, PairFit
from metarestore.fitting.spread import Spread, spread
from metarestore.tasks.synthetic import SyntheticSpec

_WIDTH = 118
_QUIET = 0.3
"""Standard deviation of noise in grey levels that rounding to 8 bit (0.29) hides."""
_COLOURS = ("red", "green", "blue")


def write_task(fit: CameraFit, out: Path) -> list[Path]:
    """Writes a fitted camera as a task distribution; equal fits give equal bytes.

    Args:
        fit: The fit.
        out: The task file, ending in .yaml or .yml. `kernels.npy` and `fit.json` (all that was estimated) go into a
            folder of its name beside it.

    Returns:
        The files written.

    Raises:
        UserError: The file has another extension, the resulting task is invalid, or a file cannot be written.
    """
    require_task_name(out)
    _require_readable(fit, out)
    folder = out.with_suffix("")
    buffer = io.BytesIO()
    np.save(buffer, np.stack([pair.kernel for pair in fit.kept]))
    # The task is written last, so that its kernels exist when it appears. Its folder, which the first line creates, may
    # define the project.
    write_atomically(folder / "kernels.npy", buffer.getvalue())
    write_atomically(folder / "fit.json", (json.dumps(fit.to_json(), ensure_ascii=False) + "\n").encode())
    write_atomically(out, _task_text(fit, out, project_root(out)).encode())
    return [out, folder / "kernels.npy", folder / "fit.json"]


def require_task_name(out: Path) -> None:
    """Checks that a file has the extension of a task file.

    Raises:
        UserError: It has another extension.
    """
    if not is_yaml(out):
        raise UserError(f"{out}: a task file must end in .yaml or .yml; choose another name")


def _require_readable(fit: CameraFit, out: Path) -> None:
    """Validates the task as `metarestore check` does, before anything is written.

    Raises:
        UserError: It is invalid; the responsible pairs are listed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        problems = []
        for pair in fit.kept:
            np.save(folder / "kernel.npy", pair.kernel[None])
            try:
                load_kernels(folder / "kernel.npy")
            except ValueError as error:
                reason = str(error).removeprefix(f"{folder / 'kernel.npy'} ")
                problems.append(f"{fit.source}: the kernel of pair '{pair.name}' {reason}; remove the pair")
        if problems:
            raise UserError(problems)
        np.save(folder / "kernels.npy", np.stack([pair.kernel for pair in fit.kept]))
        (folder / "task.yaml").write_text(_task_text(fit, out, folder, "kernels.npy"), encoding="utf-8")
        try:
            spec = validate(read_document(folder / "task.yaml"), SyntheticSpec)
            for _, step in spec.pipeline.rooted(folder).entries():
                if not step.inner:
                    step.content()
        except UserError as error:
            reasons = [problem.partition(": ")[2] for problem in error.problems]
            raise UserError([f"{fit.source}: the fit gives an invalid task: {each}" for each in reasons]) from error


def _task_text(fit: CameraFit, out: Path, root: Path, kernels: str | None = None) -> str:
    kernels = kernels or Path(os.path.relpath(out.with_suffix("") / "kernels.npy", root)).as_posix()
    schema = Path(os.path.relpath(root / "schemas" / "task.json", out.absolute().parent)).as_posix()
    lines = [f"# yaml-language-server: $schema={schema}", *_opening(fit, out)]
    lines += ["kind: synthetic", f"scale: {fit.scale}", "pipeline:"]
    for section in (_blur(fit, kernels), _colour(fit), _noise(fit), _jpeg(fit)):
        lines += [f"  {line}" for line in section]
    lines += _fitted_to(fit)
    return "\n".join(lines) + "\n"


def _fitted_to(fit: CameraFit) -> Iterator[str]:
    """Records the pairs, so that a study that tests on them can warn."""
    contents = {pair.name: pair.content for pair in fit.pairs if pair.content}
    if contents:
        yield "fitted_to:"
        yield from (f"  {json.dumps(name, ensure_ascii=False)}: {json.dumps(each)}" for name, each in contents.items())


def _opening(fit: CameraFit, out: Path) -> Iterator[str]:
    bicubic, fitted = mean(pair.psnr_bicubic for pair in fit.pairs), mean(pair.psnr_fitted for pair in fit.pairs)
    yield from _comment(
        f"The camera of {_pairs(len(fit.pairs))} in {fit.source}, fitted at x{fit.scale}: its blur, its colours "
        f"relative to HR, its noise and its compression. HR degraded by the fit, each pair with its own kernel, has a "
        f"PSNR (RGB) of {fitted:.1f} dB relative to the camera's LR; bicubic downsampling has {bicubic:.1f} dB."
    )
    count = () if fit.count is None else ("--count", str(fit.count))
    made = command_line("metarestore", "tasks", "fit", "--pairs", str(fit.source), *count, "--out", out.as_posix())
    yield f"# Made:  {made}"
    yield f"# Look:  {command_line('metarestore', 'tasks', 'preview', out.stem)}"


def _blur(fit: CameraFit, kernels: str) -> Iterator[str]:
    kept = fit.kept
    sigma, ratio = (spread([getattr(pair.gaussian, name) for pair in kept]) for name in ("sigma", "ratio"))
    away = spread([float(np.hypot(*pair.gaussian.centre)) for pair in kept])
    yield from _comment(
        f"{len(kept)} blur kernels, one per pair, in HR pixels, similar to Gaussians of sigma {_statistics(sigma, 2)}, "
        f"axis ratio {_statistics(ratio, 2)}; a generic replacement is gaussian_blur, sigma "
        f"[{sigma.low:.2g}, {sigma.high:.2g}]. Their centres are {_statistics(away, 2)} from the LR "
        "pixel: the remaining misalignment of the pairs."
    )
    if strays := [pair.name for pair in fit.pairs if pair not in kept]:
        yield from _comment(f"Excluded, because their blur is an outlier: {', '.join(strays)}.")
    yield f"- {{op: kernel_file, path: {_plain(kernels)}, recentre: false}}"
    yield from _comment("The kernels include the blur of the LR pixel; nearest keeps the pixel at their centre.")
    yield "- {op: downsample, method: nearest}"


def _colour(fit: CameraFit) -> Iterator[str]:
    def parts(of: Callable[[PairFit], tuple[float, float, float]], decimals: int) -> str:
        figures = (spread([of(pair)[channel] for pair in fit.pairs]) for channel in range(3))
        return ", ".join(f"{name} {_plus_minus(each, decimals)}" for name, each in zip(_COLOURS, figures, strict=True))

    yield from _comment(
        f"Colours: gains {parts(lambda pair: pair.colour.gains, 3)}; offsets in grey levels "
        f"{parts(lambda pair: pair.colour.offsets, 1)}. Gain and offset are correlated (a greater gain comes "
        "with a smaller offset), so they are drawn together, pair by pair."
    )
    lines = [_levels(pair) for pair in fit.pairs]
    if len(lines) == 1:
        yield f"- {lines[0]}"
        return
    yield "- op: one_of"
    yield "  choices:"
    yield from (f"    - {line}" for line in lines)


def _levels(pair: PairFit) -> str:
    gains = [f"gain_{name}: {gain:.3f}" for name, gain in zip(_COLOURS, pair.colour.gains, strict=True)]
    offsets = [f"offset_{name}: {offset:.1f}" for name, offset in zip(_COLOURS, pair.colour.offsets, strict=True)]
    return f"{{op: levels, {', '.join(gains + offsets)}}}"


def _noise(fit: CameraFit) -> Iterator[str]:
    total = fit.figure(lambda pair: pair.noise.sigma)
    growing = mean(pair.noise.growing for pair in fit.pairs)
    yield from _comment(
        f"Noise of LR: standard deviation {_statistics(total, 2)} grey levels at the mean level; {growing:.0%} of the "
        f"variance grows with the level. Misfit at edges is not included; for photographs without "
        "smooth areas this is an upper bound."
    )
    if total.high < _QUIET:
        yield from _comment("It is hidden by rounding to 8 bits, so none is added.")
        return
    within = fit.figure(lambda pair: min(max(pair.noise.correlation, 0.0), 1.0))
    correlation = f", correlation: {_range(within, 2)}" if within.high >= 0.1 else ""
    if growing <= 0.5:
        yield f"- {{op: gaussian_noise, sigma: {_range(total, 2)}{correlation}}}"
        return
    constant = fit.figure(lambda pair: pair.noise.constant**0.5)
    if constant.high >= _QUIET:
        yield f"- {{op: gaussian_noise, sigma: {_range(constant, 2)}{correlation}}}"
    peaks = spread([255 / pair.noise.per_level for pair in fit.pairs if pair.noise.per_level > 0])
    low, high = max(peaks.low, 1.0), min(peaks.high, 1e6)
    yield f"- {{op: poisson_noise, peak: {{log_uniform: [{low:.4g}, {high:.4g}]}}{correlation}}}"


def _jpeg(fit: CameraFit) -> Iterator[str]:
    compressed = [pair.jpeg for pair in fit.pairs if pair.jpeg.quality is not None]
    share = len(compressed) / len(fit.pairs)
    if share < 0.5:
        yield from _comment(f"JPEG: no sign of it in {len(fit.pairs) - len(compressed)} of {_pairs(len(fit.pairs))}.")
        return
    quality = spread([float(each.quality or 0) for each in compressed])
    yield from _comment(
        f"JPEG in {len(compressed)} of {_pairs(len(fit.pairs))}: quality {_statistics(quality, 0)}, "
        f"confidence {mean(each.confidence for each in compressed):.0%}."
    )
    samplings = [each.subsampling for each in compressed if each.subsampling is not None]
    sampling = f", subsampling: {samplings[0]}" if samplings and set(samplings) != {420} else ""
    chance = f", probability: {share:.2f}" if share < 1 else ""
    yield f"- {{op: jpeg, quality: {_range(quality, 0)}{sampling}{chance}}}"


def _comment(text: str) -> Iterator[str]:
    return (f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2, break_long_words=False, break_on_hyphens=False))


def _statistics(values: Spread, decimals: int) -> str:
    """Formats mean, standard deviation, range and number of pairs."""
    limits = f"{values.low:.{decimals}f} to {values.high:.{decimals}f}, " if values.count > 1 else ""
    apart = f", {values.left_out} apart" if values.left_out else ""
    return f"{_plus_minus(values, decimals)} ({limits}n = {values.count}{apart})"


def _plus_minus(values: Spread, decimals: int) -> str:
    return f"{values.mean:.{decimals}f}" + (f" ± {values.std:.{decimals}f}" if values.count > 1 else "")


def _range(values: Spread, decimals: int) -> str:
    low, high = f"{values.low:.{decimals}f}", f"{values.high:.{decimals}f}"
    return low if low == high else f"[{low}, {high}]"


def _plain(path: str) -> str:
    """Formats a path as YAML, quoted if it has unusual characters."""
    return path if re.fullmatch(r"[\w./-]+", path, re.ASCII) else json.dumps(path, ensure_ascii=False)


def _pairs(count: int) -> str:
    return f"{count} pair{'s' if count != 1 else ''}"
