"""The commands that use trained networks: evaluate, restore, networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from metarestore.console import console, say
from metarestore.errors import UserError

if TYPE_CHECKING:
    from metarestore.tasks.spec import Scale

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


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder of HR images.")],
    scale: Annotated[int, typer.Option(min=2, max=4, help="Upscaling factor.")] = 4,
    protocol: Annotated[
        str | None, typer.Option(help="Makes LR images by every case of this protocol (gaussian8), not by bicubic.")
    ] = None,
    bicubic: Annotated[bool, typer.Option("--bicubic", help="Measures bicubic upscaling.")] = False,
    model: Annotated[
        Path | None, typer.Option(help="Measures this network: a run's folder or weights, or a name.")
    ] = None,
    crop: Crop = None,
    ensemble: Ensemble = False,
    json_file: Json = None,
) -> None:
    """Measures PSNR-Y and SSIM-Y on a folder of images, by the field's protocol for standard sets."""
    from metarestore.models.checkpoint import load_model, network_file, require_writable
    from metarestore.project import Project
    from metarestore.tasks.photographs import list_photographs

    if bicubic == (model is not None):
        raise UserError("evaluate: say what to measure, either --bicubic or --model RUN")
    if bicubic and crop is not None:
        raise UserError("--estimate-on: goes with --model, since bicubic upscaling estimates nothing; leave it out")
    if bicubic and ensemble:
        raise UserError("--self-ensemble: goes with --model, since bicubic upscaling has no sides; leave it out")
    if json_file is not None:
        require_writable(json_file, "--json")
    if model is not None:
        network_file(model)
    list_photographs(data)

    from metarestore.evaluation.folder import bicubic_restore, evaluate_folder
    from metarestore.evaluation.protocol import evaluate_protocol
    from metarestore.evaluation.results import write_json
    from metarestore.models.restore import image_restorer

    restore = bicubic_restore(scale)
    if model is not None:
        network = load_model(model)
        if network.scale != scale:
            raise UserError(
                f"--scale: the network upscales by {network.scale}, not by {scale}; write --scale {network.scale}"
            )
        restore = image_restorer(network, crop=crop, ensemble=ensemble)
    if protocol is None:
        report = evaluate_folder(data, scale, restore)
        rows = {name: (figures["psnr_y"], figures["ssim_y"]) for name, figures in report.images.items()}
        _print_figures(rows, report.psnr_y, report.ssim_y)
        result = report.to_json()
    else:
        cases = evaluate_protocol(protocol, Project(Path.cwd()).protocol(protocol, cast("Scale", scale)), data, restore)
        rows = {label: (case.psnr_y, case.ssim_y) for label, case in cases.cases.items()}
        _print_figures(rows, cases.psnr_y, cases.ssim_y)
        result = cases.to_json()
    if json_file is not None:
        write_json(json_file, result | {"self_ensemble": ensemble})


def _print_figures(rows: Mapping[str, tuple[float, float]], psnr: float, ssim: float) -> None:
    width = max(28, *map(len, rows))
    for name, (psnr_y, ssim_y) in rows.items():
        console.print(f"{name:<{width}} {psnr_y:7.2f} dB   {ssim_y:.4f}", highlight=False, soft_wrap=True)
    console.print(f"{'mean':<{width}} {psnr:7.2f} dB   {ssim:.4f}", style="bold", highlight=False, soft_wrap=True)


def restore(
    photo: Path,
    model: Annotated[Path, typer.Option(help="A run's folder or weights, or the name of a shipped network.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    crop: Crop = None,
    ensemble: Ensemble = False,
    embedding: Annotated[
        str | None,
        typer.Option(metavar="FILE[:GROUP]", help="KDSR: restores with the mean of this group of a descriptors file."),
    ] = None,
) -> None:
    """Restores one photograph with a trained network."""
    from metarestore.models.checkpoint import load_model, network_file
    from metarestore.tasks.images import read_image, write_image

    if embedding is not None and crop is not None:
        raise UserError(
            "--estimate-on: does not go with --embedding, in place of which nothing is estimated; leave it out"
        )
    network_file(model)
    pixels = read_image(photo).pixels

    from metarestore.descriptors.file import chosen_embedding
    from metarestore.models.restore import image_restorer

    network = load_model(model)
    chosen = None if embedding is None else chosen_embedding(embedding, model, network)
    restored = image_restorer(network, crop=crop, embedding=chosen, ensemble=ensemble)(pixels)
    write_image(out, restored)
    say(f"{out}: {pixels.shape[1]}x{pixels.shape[0]} -> {restored.shape[1]}x{restored.shape[0]}")


def networks() -> None:
    """Lists the trained networks that travel with the package; their names stand wherever a network is asked for."""
    from metarestore.models.shipped import read_card, shipped
    from metarestore.reports.network_table import network_table

    console.print(network_table([read_card(path) for path in shipped().values()]))
