"""The command restore: photographs with a trained network, or from themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metarestore.cli.networks import say_choice
from metarestore.cli.options import (
    Adapt,
    Arm,
    Budget,
    Compare,
    Embedding,
    EstimateOn,
    KeepColours,
    KernelFile,
    LearningSeed,
    Network,
    OutFormat,
    Overwrite,
    PhotographWorkers,
    Quality,
    RestoreOut,
    RestoreScale,
    ResumePhotographs,
    SelfEnsemble,
    Sheet,
    Steps,
    Weights,
)
from metarestore.cli.photograph_outputs import Output, planned_outputs
from metarestore.cli.photographs import listed_photographs, run_jobs, warn_of_colour
from metarestore.console import say
from metarestore.errors import UserError
from metarestore.notices import notice

if TYPE_CHECKING:
    from metarestore.models.choice import Choice
    from metarestore.restoration.compare import Box
    from metarestore.restoration.photograph import Options, Written

_LARGEST_SCALE = 4


def restore(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Photographs, or folders of them.")],
    out: RestoreOut = Path("restored"),
    model: Network = None,
    arm: Arm = None,
    weights: Weights = None,
    crop: EstimateOn = None,
    ensemble: SelfEnsemble = False,
    embedding: Embedding = None,
    keep_colours: KeepColours = False,
    adapt: Adapt = None,
    scale: RestoreScale = None,
    steps: Steps = None,
    budget: Budget = None,
    kernel: KernelFile = None,
    seed: LearningSeed = None,
    sheet: Sheet = False,
    compare: Compare = False,
    file_format: OutFormat = None,
    quality: Quality = None,
    workers: PhotographWorkers = None,
    resume: ResumePhotographs = False,
    overwrite: Overwrite = False,
) -> None:
    """Restores photographs with a trained network, or from themselves.

    Gray, alpha, 16 bits, colour profiles and EXIF data are kept where the format of the output stores them. Without
    --model and --adapt, the shipped network of the given --scale with the highest gain is used.
    """
    if adapt is not None:
        _refuse({"--estimate-on": crop, "--self-ensemble": ensemble or None, "--embedding": embedding}, "--adapt")
        _refuse({"--keep-colours": keep_colours or None, "--compare": compare or None}, "--adapt")
        _refuse({"--format": file_format, "--quality": quality, "--resume": resume or None}, "--adapt")
        if model is None:
            _refuse({"--arm": arm, "--weights": weights}, "--adapt without --model")
        if steps is not None and budget is not None:
            raise UserError("--steps, --budget: both limit the learning; leave one of them out")
        from metarestore.cli.zero_shot import ZeroShotRequest, restore_folder

        network = None if model is None else _say_chosen(model, arm, weights)
        restore_folder(
            ZeroShotRequest(photos, out, scale, steps, budget, kernel, seed or 0, sheet, workers, overwrite, network)
        )
        return
    _refuse({"--steps": steps, "--budget": budget, "--kernel": kernel, "--seed": seed}, "restore without --adapt")
    _refuse({"--sheet": sheet or None}, "restore without --adapt, which has --compare")
    if resume and overwrite:
        raise UserError("--resume, --overwrite: one keeps finished files and one replaces them; leave one of them out")
    choice = _choice(model, arm, weights, embedding, crop, scale)
    files = listed_photographs(photos)
    named = len(photos) == 1 and not photos[0].is_dir()
    outputs = planned_outputs(
        files, out, file_format, quality, named=named, compare=compare, overwrite=overwrite, resume=resume
    )
    if named:
        _require_photograph(photos[0])
    options = _options(choice, scale, crop, embedding, workers, ensemble=ensemble, keep_colours=keep_colours)
    options = replace(options, quality=quality or options.quality, compare=compare)
    _restore_all(files, outputs, options, workers)


def _require_photograph(file: Path) -> None:
    """Reports a single file that is no photograph before PyTorch is loaded, which takes seconds."""
    from metarestore.tasks.decoding import stated_size
    from metarestore.tasks.photographs import file_content, read_picture

    if stated_size(file_content(file)) is None:
        read_picture(file)


@dataclass(frozen=True)
class _Chosen:
    """A network, and how it is described to the user; nothing is printed if it is what the user typed."""

    file: Path
    line: str | None


def _choice(
    model: Path | None, arm: str | None, weights: Weights, embedding: str | None, crop: int | None, scale: int | None
) -> _Chosen:
    """Chooses the network that is given or recommended."""
    if model is None:
        _refuse({"--arm": arm, "--weights": weights, "--embedding": embedding}, "restore without --model")
        return _recommended(scale)
    if embedding is not None and crop is not None:
        raise UserError(
            "--estimate-on: does not go with --embedding, in place of which nothing is estimated; leave it out"
        )
    described = None
    if embedding is not None:
        from metarestore.descriptors.file import describing_network

        described = describing_network(embedding)
    from metarestore.models.choice import choose_network

    choice = choose_network(model, arm, weights, described)
    return _Chosen(choice.file.absolute(), None if choice.reason == str(model) else f"Network: {choice.reason}")


def _recommended(scale: int | None) -> _Chosen:
    """Returns the shipped network for a scale, or for the next larger one."""
    from metarestore.models.shipped import recommended

    if scale is None:
        raise UserError("restore: say with what, --scale S (a shipped network), --model NETWORK, or --adapt zero-shot")
    for own in range(scale, _LARGEST_SCALE):
        try:
            best = recommended(own)
        except UserError:
            continue
        break
    else:
        best, own = recommended(_LARGEST_SCALE), _LARGEST_SCALE
    line = f"Network: {best.name}, the shipped one with the highest gain at x{own} ({best.gain:+.2f} dB on {best.lr})"
    return _Chosen(best.file, line)


def _options(
    chosen: _Chosen,
    scale: int | None,
    crop: int | None,
    embedding: str | None,
    workers: int | None,
    *,
    ensemble: bool,
    keep_colours: bool,
) -> Options:
    """Opens the network and checks the options that depend on it; prints which network is used."""
    from metarestore.models.restore import strip_restorer
    from metarestore.restoration.memory import available_memory
    from metarestore.restoration.photograph import Options, opened_network

    network, given = opened_network(chosen.file, keep_colours=keep_colours), None
    if embedding is not None:
        from metarestore.descriptors.file import chosen_embedding

        given = chosen_embedding(embedding, chosen.file, network)
    strip_restorer(network, crop=crop, embedding=given, ensemble=ensemble, scale=scale)
    if chosen.line is not None:
        say(chosen.line)
    if scale not in (None, network.scale):
        say(f"Scale: x{scale}, downsampled from x{network.scale}, by which the network upscales")
    memory = available_memory()
    share = None if memory is None else memory // (workers or 1)
    return Options(
        chosen.file, scale or network.scale, crop, given, ensemble=ensemble, keep_colours=keep_colours, memory=share
    )


def _restore_all(
    files: Mapping[str, Path], outputs: Mapping[str, Output], options: Options, workers: int | None
) -> None:
    """Restores the photographs that have an output; finished ones have none."""
    from metarestore.restoration.photograph import RestorePhotograph

    if kept := len(files) - len(outputs):
        say(f"{kept} of {len(files)} photographs are restored already")

    advice = "" if options.keep_colours else "; add --keep-colours to keep the colours of the photograph"

    def write(name: str, written: Written) -> str:
        output = outputs[name]
        if output.sheet is not None:
            _write_sheet(output.sheet, name, written, options)
        for remark in written.remarks:
            notice(f"{files[name]}: {remark}")
        warn_of_colour(files[name], written.shift, advice)
        (height, width), (high, wide) = written.before, written.after
        return f"{output.file}: {width}x{height} -> {wide}x{high}"

    jobs = {name: RestorePhotograph(files[name], one.file, one.kind, options) for name, one in outputs.items()}
    run_jobs(jobs, workers, "restoring", write, all_threads=True)


def _write_sheet(path: Path, name: str, written: Written, options: Options) -> None:
    from metarestore.reports.networks.before_after import before_after_sheet
    from metarestore.reports.pictures import save_png

    crops = [
        (
            f"{each.box.width}x{each.box.height} pixels from ({each.box.left}, {each.box.top})",
            each.bicubic,
            each.restored,
        )
        for each in written.comparisons
    ]
    save_png(before_after_sheet(crops, f"{name}, x{options.scale}, {options.network.stem}"), path)


def _label(box: Box) -> str:
    return f"{box.width}x{box.height} pixels from ({box.left}, {box.top})"


def _say_chosen(model: Path, arm: str | None, weights: Weights) -> Path:
    """Chooses a network, prints which, and returns its file."""
    from metarestore.models.choice import choose_network

    choice: Choice = choose_network(model, arm, weights)
    say_choice(choice, model)
    return choice.file.absolute()


def _refuse(given: Mapping[str, object], other: str) -> None:
    """Refuses options that do not go with another."""
    if wrong := [name for name, value in given.items() if value is not None]:
        words = ("do", "them") if wrong[1:] else ("does", "it")
        raise UserError(f"{', '.join(wrong)}: {words[0]} not go with {other}; leave {words[1]} out")
