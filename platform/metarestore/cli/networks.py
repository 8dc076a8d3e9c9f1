"""The commands that evaluate and list trained networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from metarestore.cli.options import Arm, EstimateOn, Json, Overwrite, SelfEnsemble, Weights
from metarestore.console import console, say
from metarestore.errors import UserError
from metarestore.files import require_output

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
        say_choice(choice, model)
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


def say_choice(choice: Choice, given: Path | None) -> None:
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


def networks() -> None:
    """Lists the trained networks that are installed with the package; their names are accepted as networks."""
    from metarestore.models.shipped import read_card, shipped
    from metarestore.reports.networks.table import network_table

    console.print(network_table([read_card(path) for path in shipped().values()]))
