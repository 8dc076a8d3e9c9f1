"""The commands that work on single photographs without training: kernel, and restore with --adapt zero-shot."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metarestore.cli.options import Overwrite
from metarestore.cli.photographs import listed_photographs, require_outputs, run_jobs, warn_of_colour
from metarestore.errors import UserError

if TYPE_CHECKING:
    from metarestore.zero_shot.folder import Estimated, Restored
    from metarestore.zero_shot.network import NetworkOptions
    from metarestore.zero_shot.options import ZeroShotOptions

Photographs = Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Photographs, or folders of them.")]
Factor = Annotated[int, typer.Option("--scale", min=2, max=4, help="Upscaling factor.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Number of photographs to process at once; one per core if omitted."),
]


@dataclass(frozen=True)
class ZeroShotRequest:
    """The options of `metarestore restore --adapt zero-shot`.

    Attributes:
        photographs: Photographs, or folders of them.
        out: Output folder.
        scale: Factor s; by default that of the network, or 2.
        steps: Number of steps; that of the options of the restoration if omitted.
        budget: Time limit for learning in seconds, for each photograph.
        kernel: File of the kernel, if it is known.
        seed: Seed of weights, noise and patches.
        sheet: Whether to draw a comparison sheet of each photograph.
        workers: Number of photographs to process at once.
        overwrite: Whether existing files may be replaced.
        network: File of a trained network that is adapted; if None, a new one learns from each photograph.
    """

    photographs: Sequence[Path]
    out: Path
    scale: int | None = None
    steps: int | None = None
    budget: float | None = None
    kernel: Path | None = None
    seed: int = 0
    sheet: bool = False
    workers: int | None = None
    overwrite: bool = False
    network: Path | None = None


def kernel(
    images: Photographs,
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    scale: Factor = 2,
    workers: Workers = None,
    overwrite: Overwrite = False,
) -> None:
    """Estimates the blur kernel of photographs from themselves, for the operation kernel_file of task files."""
    files = listed_photographs(images)
    require_outputs(out, files, (".npy", ".json", ".png"), overwrite=overwrite)

    from metarestore.zero_shot.folder import EstimateJob

    def write(name: str, estimated: Estimated) -> str:
        import numpy as np

        from metarestore.files import write_atomically
        from metarestore.reports.networks.zero_shot import kernel_figure
        from metarestore.reports.pictures import save_png

        content = io.BytesIO()
        np.save(content, estimated.kernel.kernel)
        write_atomically(out / f"{name}.npy", content.getvalue())
        save_png(kernel_figure(estimated.kernel.kernel, name, _kernel_summary(estimated)), out / f"{name}.png")
        _write_record(out / f"{name}.json", estimated.record)
        return f"{out / name}.npy: {_kernel_summary(estimated)}"

    run_jobs({name: EstimateJob(path, scale) for name, path in files.items()}, workers, "estimating", write)


def restore_folder(request: ZeroShotRequest) -> None:
    """Restores photographs from themselves, one job each, and writes each as soon as it is restored.

    Raises:
        UserError: A file cannot be written, or some photographs failed; the others are written.
    """
    files = listed_photographs(request.photographs)
    endings = (".png", ".json", *([".sheet.png"] if request.sheet else []))
    require_outputs(request.out, files, endings, overwrite=request.overwrite)
    scale = _scale(request)
    options = _options(request, scale)

    from metarestore.zero_shot.folder import RestoreJob

    def write(name: str, restored: Restored) -> str:
        from metarestore.tasks.photographs import write_image

        target = request.out / f"{name}.png"
        if request.sheet:
            _write_sheet(request.out / f"{name}.sheet.png", name, restored)
        _write_record(request.out / f"{name}.json", restored.record)
        # Written last, so that a restored photograph implies that its other files exist.
        write_image(target, restored.pixels, restored.icc)
        warn_of_colour(files[name], restored.record["colour_shift"])
        height, width = restored.pixels.shape[:2]
        steps = sum(restored.record["steps"].values())
        learning = f"{steps} steps in {restored.record['seconds']:.0f} s" if steps else "nothing was learned"
        return f"{target}: {width}x{height}, {_kernel_summary(restored)}; {learning}"

    jobs = {name: RestoreJob(path, scale, options, request.network) for name, path in files.items()}
    run_jobs(jobs, request.workers, "restoring", write)


def _scale(request: ZeroShotRequest) -> int:
    """Returns the factor of the network, or the requested one.

    Raises:
        UserError: The network is for another factor, or a teacher.
    """
    if request.network is None:
        return request.scale or 2

    from metarestore.models.checkpoint import load_model

    network = load_model(request.network)
    if request.scale not in (None, network.scale):
        raise UserError(
            f"--scale: the network upscales by {network.scale}, not by {request.scale}; write --scale {network.scale}"
        )
    if network.privileged:
        raise UserError("--model: the network is a teacher, which needs the HR image as input; use a student")
    return network.scale


def _options(request: ZeroShotRequest, scale: int) -> ZeroShotOptions | NetworkOptions:
    from metarestore.zero_shot.kernel_source import kernel_of_file
    from metarestore.zero_shot.network import NetworkOptions
    from metarestore.zero_shot.options import ZeroShotOptions, default_options

    known = None if request.kernel is None else kernel_of_file(request.kernel, scale, "--kernel")
    if request.network is not None:
        own = NetworkOptions(kernel=known, budget=request.budget, seed=request.seed)
        steps = own.adaptation.steps if request.steps is None else request.steps
        return replace(own, adaptation=own.adaptation.model_copy(update={"steps": steps}))
    unlimited = request.steps is None and request.budget is None
    options = default_options(scale) if unlimited else ZeroShotOptions()
    options = replace(options, kernel=known, budget=request.budget, seed=request.seed)
    if request.steps is None:
        return options
    return replace(options, teacher=replace(options.teacher, steps=request.steps))


def _kernel_summary(result: Restored | Estimated) -> str:
    """Describes the source and confidence of a kernel."""
    estimate = result.kernel
    if estimate.source == "given":
        return "kernel as given"
    reason = f" ({estimate.reason})" if estimate.reason else ""
    return f"kernel {estimate.source}{reason}, confidence {estimate.confidence:.2f}"


def _write_record(path: Path, record: Mapping[str, Any]) -> None:
    from metarestore import __version__
    from metarestore.files import write_atomically

    text = json.dumps({"metarestore": __version__, **record}, indent=1)
    # One line per row of the kernel.
    rows = re.sub(r"\[([^][{}\"]+)\]", lambda match: f"[{' '.join(match[1].split())}]", text)
    write_atomically(path, rows + "\n")


def _write_sheet(path: Path, name: str, restored: Restored) -> None:
    from metarestore.reports.networks.zero_shot import eight_bit, restoration_sheet
    from metarestore.reports.pictures import save_png

    pixels = eight_bit(restored.pixels)
    summary = _kernel_summary(restored)
    save_png(restoration_sheet(restored.before, pixels, restored.kernel.kernel, name, summary), path)
