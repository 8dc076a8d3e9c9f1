"""The commands that use trained networks: evaluate, restore, networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from metarestore.cli.options import (
    Adapt,
    AdaptWorkers,
    Arm,
    Budget,
    Embedding,
    EstimateOn,
    Json,
    KernelFile,
    LearningSeed,
    Network,
    Overwrite,
    RestoreScale,
    SelfEnsemble,
    Sheet,
    Steps,
    Weights,
)
from metarestore.console import console, say
from metarestore.errors import UserError
from metarestore.files import require_other, require_output

if TYPE_CHECKING:
    from metarestore.evaluation.folder import Metrics, Restore
    from metarestore.models.choice import Choice
    from metarestore.tasks.pair_files import PairFiles
    from metarestore.tasks.spec import Scale


def evaluate(
    data: Annotated[Path | None, typer.Option(help="Folder of HR images, from which LR images are made.")] = None,
    lr: Annotated[Path | None, typer.Option(help="Folder of LR images that belong to the HR images of --hr.")] = None,
    hr: Annotated[Path | None, typer.Option(help="Folder of HR images that belong to the LR images of --lr.")] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Folder of aligned pairs, e.g. with lr/ and hr/; or a task file of kind pairs (its test pairs)."
        ),
    ] = None,
    scale: Annotated[int, typer.Option(min=2, max=4, help="Upscaling factor.")] = 4,
    protocol: Annotated[
        str | None,
        typer.Option(help="Makes LR images by every case of this protocol, e.g. gaussian8."),
    ] = None,
    bicubic: Annotated[bool, typer.Option("--bicubic", help="Evaluates bicubic upscaling.")] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="Network to evaluate: a run's folder, a weights file, or a shipped network's name."),
    ] = None,
    arm: Arm = None,
    weights: Weights = None,
    crop: EstimateOn = None,
    ensemble: SelfEnsemble = False,
    json_file: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Evaluates PSNR-Y and SSIM-Y on a folder of images, by the usual protocol for standard sets."""
    from metarestore.models.choice import choose_network
    from metarestore.tasks.photographs import list_photographs

    if bicubic == (model is not None):
        raise UserError("evaluate: say what to measure, either --bicubic or --model RUN")
    if bicubic:
        _check_without_network(crop, arm, weights, ensemble=ensemble)
    _check_sources(data, lr, hr, pairs, protocol)
    if json_file is not None:
        require_output(json_file, "--json", overwrite=overwrite)
    choice = None if model is None else choose_network(model, arm, weights)
    files = _evaluated_files(lr, hr, pairs, scale)
    if data is not None:
        list_photographs(data)

    from metarestore.evaluation.folder import bicubic_restore
    from metarestore.evaluation.results import write_json

    restore, measured = bicubic_restore(scale), "bicubic upscaling"
    if choice is not None:
        restore, measured = _network_restore(choice, scale, crop, ensemble=ensemble), choice.reason
        _say_choice(choice, model)
    if protocol is not None and data is not None:
        result = _evaluate_protocol(protocol, scale, data, restore)
    else:
        result = _evaluate_images(data, files, scale, restore)
    if json_file is not None:
        write_json(json_file, result | {"self_ensemble": ensemble, "measured": measured})


def _network_restore(choice: Choice, scale: int, crop: int | None, *, ensemble: bool) -> Restore:
    """Opens a network, which must be for the scale."""
    from metarestore.models.checkpoint import load_model
    from metarestore.models.restore import image_restorer

    network = load_model(choice.file)
    if network.scale != scale:
        raise UserError(
            f"--scale: the network upscales by {network.scale}, not by {scale}; write --scale {network.scale}"
        )
    return image_restorer(network, crop=crop, ensemble=ensemble)


def _check_without_network(crop: int | None, arm: str | None, weights: Weights, *, ensemble: bool) -> None:
    """Refuses the options that only a network has."""
    if crop is not None:
        raise UserError("--estimate-on: goes with --model, since bicubic upscaling estimates nothing; leave it out")
    if ensemble:
        raise UserError("--self-ensemble: goes with --model, since bicubic upscaling has no sides; leave it out")
    if arm or weights:
        raise UserError("--arm, --weights: go with --model; leave them out")


def _check_sources(
    data: Path | None, lr: Path | None, hr: Path | None, pairs: Path | None, protocol: str | None
) -> None:
    """Checks that the images to evaluate on are given in exactly one way."""
    if (lr is None) != (hr is None):
        raise UserError(f"{'--lr' if hr is None else '--hr'}: goes with {'--hr' if hr is None else '--lr'}; give both")
    if sum(each is not None for each in (data, lr, pairs)) != 1:
        raise UserError("evaluate: say what to measure on, either --data DIR, or --lr DIR and --hr DIR, or --pairs DIR")
    if protocol is not None and data is None:
        raise UserError("--protocol: makes LR images of HR, so it goes with --data; leave it out")


def _evaluated_files(lr: Path | None, hr: Path | None, pairs: Path | None, scale: int) -> tuple[PairFiles, ...]:
    """Lists the pairs to evaluate on, if LR images are given."""
    from metarestore.pair_source import named_pairs
    from metarestore.tasks.pair_files import PairFolder

    if lr is not None and hr is not None:
        return PairFolder(lr, hr, None, scale).files()
    return () if pairs is None else named_pairs(pairs, scale).tested()


def _evaluate_images(data: Path | None, files: Sequence[PairFiles], scale: int, restore: Restore) -> dict[str, Any]:
    """Evaluates on a folder of HR images or on pairs; suspicious pairs are reported, but evaluated too."""
    from metarestore.evaluation.folder import evaluate_folder
    from metarestore.evaluation.pairs import PAIRS_PROTOCOL, check_evaluated, evaluate_pairs

    if data is None:
        for problem in check_evaluated(files, scale):
            typer.echo(f"warning: {files[0].lr.parent}: {problem}", err=True)
    report = evaluate_pairs(files, scale, restore) if data is None else evaluate_folder(data, scale, restore)
    rows = {name: (figures["psnr_y"], figures["ssim_y"]) for name, figures in report.images.items()}
    _print_figures(rows, report.means, report.images)
    return report.to_json() | ({"protocol": PAIRS_PROTOCOL} if data is None else {})


def _evaluate_protocol(protocol: str, scale: int, data: Path, restore: Restore) -> dict[str, Any]:
    """Evaluates every case of a protocol on a folder of HR images."""
    from metarestore.evaluation.protocol import evaluate_protocol
    from metarestore.project import Project

    spec = Project(Path.cwd()).protocol(protocol, cast("Scale", scale))
    cases = evaluate_protocol(protocol, spec, data, restore)
    rows = {label: (case.psnr_y, case.ssim_y) for label, case in cases.cases.items()}
    _print_figures(rows, cases.means, {label: case.means for label, case in cases.cases.items()})
    return cases.to_json()


def _say_choice(choice: Choice, given: Path | None) -> None:
    """Prints which network was taken, unless it is what the user typed."""
    if choice.reason != str(given):
        say(f"Network: {choice.reason}")


def _print_figures(rows: Mapping[str, tuple[float, float]], means: Metrics, named: Mapping[str, Metrics]) -> None:
    from metarestore.decibels import CAP
    from metarestore.evaluation.colour import COLOUR_SHIFT

    width = max(28, *map(len, rows))
    for name, (psnr_y, ssim_y) in (*rows.items(), ("mean", (means["psnr_y"], means["ssim_y"]))):
        style = "bold" if name == "mean" else None
        line = f"{name:<{width}} {psnr_y:7.2f} dB   {ssim_y:.4f}"
        say(line, style=style)
    say(
        f"RGB {means['psnr_rgb']:.2f} dB, mean colour error {means['colour_error']:.1f} grey levels, "
        f"PSNR-Y after a match of exposure {means['psnr_y_matched']:.2f} dB"
    )
    if exact := [name for name, figures in named.items() if figures["psnr_y"] >= CAP]:
        text = f"restored exactly, counted as {CAP:g} dB: {', '.join(exact)}"
        say(text)
    for name, figures in named.items():
        if figures["colour_error"] > COLOUR_SHIFT:
            text = f"{name}: the colour is {figures['colour_error']:.1f} grey levels off on average"
            say(text, style="yellow")


def restore(
    photos: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="A photograph; with --adapt several, or folders of them.")
    ],
    out: Annotated[Path, typer.Option(help="PNG file to write; with --adapt a folder.")],
    model: Network = None,
    arm: Arm = None,
    weights: Weights = None,
    crop: EstimateOn = None,
    ensemble: SelfEnsemble = False,
    embedding: Embedding = None,
    adapt: Adapt = None,
    scale: RestoreScale = None,
    steps: Steps = None,
    budget: Budget = None,
    kernel: KernelFile = None,
    seed: LearningSeed = None,
    sheet: Sheet = False,
    workers: AdaptWorkers = None,
    overwrite: Overwrite = False,
) -> None:
    """Restores photographs with a trained network, or from themselves; gray, alpha, 16 bits and profiles are kept.

    Without --model and --adapt, the shipped network of the given --scale with the highest gain is used.
    """
    if adapt is not None:
        _refuse({"--estimate-on": crop, "--self-ensemble": ensemble or None, "--embedding": embedding}, "--adapt")
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
    _refuse({"--sheet": sheet or None, "--workers": workers}, "restore without --adapt")
    if len(photos) > 1:
        raise UserError(f"restore: restores one photograph at a time without --adapt, got {len(photos)}; give one")
    if model is None:
        _refuse({"--arm": arm, "--weights": weights, "--embedding": embedding}, "restore without --model")
        model = _recommended(scale)
    elif scale is not None:
        _refuse({"--scale": scale}, "--model, which has a scale of its own")
    _restore_with(photos[0], model, out, arm, weights, crop, embedding, ensemble=ensemble, overwrite=overwrite)


def _recommended(scale: int | None) -> Path:
    """Returns the shipped network for a scale, and prints which."""
    from metarestore.models.shipped import recommended

    if scale is None:
        raise UserError("restore: say with what, --scale S (a shipped network), --model NETWORK, or --adapt zero-shot")

    best = recommended(scale)
    say(f"Network: {best.name}, the shipped one with the highest gain at x{scale} ({best.gain:+.2f} dB on {best.lr})")
    return best.file


def _say_chosen(model: Path, arm: str | None, weights: Weights) -> Path:
    """Chooses a network, prints which, and returns its file."""
    from metarestore.models.choice import choose_network

    choice = choose_network(model, arm, weights)
    _say_choice(choice, model)
    return choice.file.absolute()


def _refuse(given: Mapping[str, object], other: str) -> None:
    """Refuses options that do not go with another."""
    if wrong := [name for name, value in given.items() if value is not None]:
        words = ("do", "them") if wrong[1:] else ("does", "it")
        raise UserError(f"{', '.join(wrong)}: {words[0]} not go with {other}; leave {words[1]} out")


def _restore_with(
    photo: Path,
    model: Path,
    out: Path,
    arm: str | None,
    weights: Weights,
    crop: int | None,
    embedding: str | None,
    *,
    ensemble: bool,
    overwrite: bool,
) -> None:
    """Restores one photograph with a trained network."""
    from metarestore.models.choice import choose_network
    from metarestore.tasks.photographs import read_picture, write_image

    if embedding is not None and crop is not None:
        raise UserError(
            "--estimate-on: does not go with --embedding, in place of which nothing is estimated; leave it out"
        )
    require_other(out, "--out", {"the photograph": photo})
    require_output(out, "--out", overwrite=overwrite, endings=(".png",))
    described = None
    if embedding is not None:
        from metarestore.descriptors.file import describing_network

        described = describing_network(embedding)
    choice = choose_network(model, arm, weights, described)
    picture = read_picture(photo)

    from metarestore.models.checkpoint import load_model
    from metarestore.models.restore import image_restorer

    network, chosen = load_model(choice.file), None
    if embedding is not None:
        from metarestore.descriptors.file import chosen_embedding

        chosen = chosen_embedding(embedding, choice.file, network)
    restored = image_restorer(network, crop=crop, embedding=chosen, ensemble=ensemble)(picture.pixels)
    write_image(out, restored, picture.icc)
    _say_choice(choice, model)
    (h, w), (height, width) = picture.pixels.shape[:2], restored.shape[:2]
    say(f"{out}: {w}x{h} -> {width}x{height}")


def networks() -> None:
    """Lists the trained networks that are installed with the package; their names are accepted as networks."""
    from metarestore.models.shipped import read_card, shipped
    from metarestore.reports.networks.table import network_table

    console.print(network_table([read_card(path) for path in shipped().values()]))
