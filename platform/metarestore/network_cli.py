"""The commands that use trained networks: evaluate, restore, networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from metarestore.console import console, say
from metarestore.errors import UserError
from metarestore.options import Overwrite

if TYPE_CHECKING:
    from metarestore.evaluation.folder import Metrics, Restore
    from metarestore.models.choice import Choice
    from metarestore.tasks.pair_files import PairFiles
    from metarestore.tasks.spec import Scale

Weights = Literal["adapted", "unadapted"]

Json = Annotated[Path | None, typer.Option("--json", help="Also writes the figures to this file.")]
Crop = Annotated[
    int | None,
    typer.Option(
        "--estimate-on",
        min=16,
        help="KDSR: estimates the degradation on the middle N x N pixels alone; faster, approximate.",
    ),
]


Ensemble = Annotated[
    bool,
    typer.Option(
        "--self-ensemble", help="Restores in eight orientations and takes the mean: better, 8 times the work."
    ),
]


Arm = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Arm of a comparison; the one with the greatest mean gain if left out."),
]
WhichWeights = Annotated[
    Weights | None,
    typer.Option("--weights", help="Network of a run before or after its adaptation; adapted if left out."),
]


def evaluate(
    data: Annotated[Path | None, typer.Option(help="Folder of HR images; LR images are made of them.")] = None,
    lr: Annotated[Path | None, typer.Option(help="Folder of LR images, to be measured with those of --hr.")] = None,
    hr: Annotated[Path | None, typer.Option(help="Folder of the HR images of --lr.")] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Folder of aligned pairs, e.g. with lr/ and hr/; of a task file of kind pairs, its test pairs."
        ),
    ] = None,
    scale: Annotated[int, typer.Option(min=2, max=4, help="Upscaling factor.")] = 4,
    protocol: Annotated[
        str | None, typer.Option(help="Makes LR images by every case of this protocol (gaussian8), not by bicubic.")
    ] = None,
    bicubic: Annotated[bool, typer.Option("--bicubic", help="Measures bicubic upscaling.")] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="Measures this network: the folder of a run or a comparison, a weights file, or a name."),
    ] = None,
    arm: Arm = None,
    weights: WhichWeights = None,
    crop: Crop = None,
    ensemble: Ensemble = False,
    json_file: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Measures PSNR-Y and SSIM-Y on a folder of images, by the field's protocol for standard sets."""
    from metarestore.files import require_output
    from metarestore.models.choice import choose_network
    from metarestore.tasks.photographs import list_photographs

    if bicubic == (model is not None):
        raise UserError("evaluate: say what to measure, either --bicubic or --model RUN")
    if bicubic and crop is not None:
        raise UserError("--estimate-on: goes with --model, since bicubic upscaling estimates nothing; leave it out")
    if bicubic and ensemble:
        raise UserError("--self-ensemble: goes with --model, since bicubic upscaling has no sides; leave it out")
    if bicubic and (arm or weights):
        raise UserError("--arm, --weights: go with --model; leave them out")
    _check_sources(data, lr, hr, pairs, protocol)
    if json_file is not None:
        require_output(json_file, "--json", overwrite=overwrite)
    choice = None if model is None else choose_network(model, arm, weights)
    files = _evaluated_files(lr, hr, pairs, scale)
    if data is not None:
        list_photographs(data)

    from metarestore.evaluation.folder import bicubic_restore
    from metarestore.evaluation.results import write_json
    from metarestore.models.checkpoint import load_model
    from metarestore.models.restore import image_restorer

    restore, measured = bicubic_restore(scale), "bicubic upscaling"
    if choice is not None:
        network, measured = load_model(choice.file), choice.reason
        if network.scale != scale:
            raise UserError(
                f"--scale: the network upscales by {network.scale}, not by {scale}; write --scale {network.scale}"
            )
        restore = image_restorer(network, crop=crop, ensemble=ensemble)
        _say_choice(choice, model)
    if protocol is not None and data is not None:
        result = _evaluate_protocol(protocol, scale, data, restore)
    else:
        result = _evaluate_images(data, files, scale, restore)
    if json_file is not None:
        write_json(json_file, result | {"self_ensemble": ensemble, "measured": measured})


def _check_sources(
    data: Path | None, lr: Path | None, hr: Path | None, pairs: Path | None, protocol: str | None
) -> None:
    """Makes sure that the images to measure on are given in one way."""
    if (lr is None) != (hr is None):
        raise UserError(f"{'--lr' if hr is None else '--hr'}: goes with {'--hr' if hr is None else '--lr'}; give both")
    if sum(each is not None for each in (data, lr, pairs)) != 1:
        raise UserError("evaluate: say what to measure on, either --data DIR, or --lr DIR and --hr DIR, or --pairs DIR")
    if protocol is not None and data is None:
        raise UserError("--protocol: makes LR images of HR, so it goes with --data; leave it out")


def _evaluated_files(lr: Path | None, hr: Path | None, pairs: Path | None, scale: int) -> tuple[PairFiles, ...]:
    """Lists the pairs to measure on, if LR images are given."""
    from metarestore.pair_source import named_pairs
    from metarestore.tasks.pair_files import PairFolder

    if lr is not None and hr is not None:
        return PairFolder(lr, hr, None, scale).files()
    return () if pairs is None else named_pairs(pairs, scale).tested()


def _evaluate_images(data: Path | None, files: Sequence[PairFiles], scale: int, restore: Restore) -> dict[str, Any]:
    """Measures on a folder of HR images, or on pairs; those that look wrong are named, and measured."""
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
    """Measures every case of a protocol on a folder of HR images."""
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
        console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"RGB {means['psnr_rgb']:.2f} dB, mean colour error {means['colour_error']:.1f} grey levels, "
        f"PSNR-Y after a match of exposure {means['psnr_y_matched']:.2f} dB",
        highlight=False,
        soft_wrap=True,
    )
    if exact := [name for name, figures in named.items() if figures["psnr_y"] >= CAP]:
        text = f"restored exactly, counted as {CAP:g} dB: {', '.join(exact)}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    for name, figures in named.items():
        if figures["colour_error"] > COLOUR_SHIFT:
            text = f"{name}: the colour is {figures['colour_error']:.1f} grey levels off on average"
            console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)


def restore(
    photo: Path,
    model: Annotated[
        Path,
        typer.Option(help="The folder of a run or a comparison, a weights file, or the name of a shipped network."),
    ],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    arm: Arm = None,
    weights: WhichWeights = None,
    crop: Crop = None,
    ensemble: Ensemble = False,
    embedding: Annotated[
        str | None,
        typer.Option(metavar="FILE[:GROUP]", help="KDSR: restores with the mean of this group of a descriptors file."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Restores one photograph with a trained network; gray, alpha, 16 bits and the colour profile are kept."""
    from metarestore.descriptors.file import chosen_embedding, describing_network
    from metarestore.files import require_other, require_output
    from metarestore.models.choice import choose_network
    from metarestore.tasks.photographs import read_picture, write_image

    if embedding is not None and crop is not None:
        raise UserError(
            "--estimate-on: does not go with --embedding, in place of which nothing is estimated; leave it out"
        )
    require_other(out, "--out", {"the photograph": photo})
    require_output(out, "--out", overwrite=overwrite, endings=(".png",))
    described = None if embedding is None else describing_network(embedding)
    choice = choose_network(model, arm, weights, described)
    picture = read_picture(photo)

    from metarestore.models.checkpoint import load_model
    from metarestore.models.restore import image_restorer

    network = load_model(choice.file)
    chosen = None if embedding is None else chosen_embedding(embedding, choice.file, network)
    restored = image_restorer(network, crop=crop, embedding=chosen, ensemble=ensemble)(picture.pixels)
    write_image(out, restored, picture.icc)
    _say_choice(choice, model)
    (h, w), (height, width) = picture.pixels.shape[:2], restored.shape[:2]
    console.print(f"{out}: {w}x{h} -> {width}x{height}", highlight=False)


def networks() -> None:
    """Lists the trained networks that travel with the package; their names stand wherever a network is asked for."""
    from metarestore.models.shipped import read_card, shipped
    from metarestore.reports.network_table import network_table

    console.print(network_table([read_card(path) for path in shipped().values()]))
