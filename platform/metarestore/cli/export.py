"""The command that exports trained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from metarestore.cli.options import Arm, Overwrite, Weights
from metarestore.console import say
from metarestore.files import require_other, require_output


def export(
    network: Annotated[
        Path,
        typer.Argument(help="The folder of a run or a study, a weights file, or the name of a shipped network."),
    ],
    to: Annotated[
        Literal["onnx", "spandrel", "torch"],
        typer.Option(
            help="onnx: a graph (.onnx); torch: a program of torch.export (.pt2); spandrel: weights (.safetensors)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write; its card is written beside it, as FILE.json.")],
    arm: Arm = None,
    weights: Weights = None,
    half: Annotated[bool, typer.Option("--half", help="Stores 16-bit weights; the difference is measured.")] = False,
    embedding: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:GROUP]", help="KDSR: for the mean degradation of this group of a descriptors file only."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Exports a trained network for other tools, checks that it restores the same, and writes a card beside it."""
    from metarestore.models.choice import choose_network

    ending = {"onnx": ".onnx", "spandrel": ".safetensors", "torch": ".pt2"}[to]
    card = out.with_name(f"{out.name}.json")
    require_output(out, "--out", overwrite=overwrite, endings=(ending,))
    require_output(card, "--out", overwrite=overwrite)
    described = None
    if embedding is not None:
        from metarestore.descriptors.file import describing_network

        described = describing_network(embedding)
    choice = choose_network(network, arm, weights, described)
    require_other(out, "--out", {"the network": choice.file})

    from metarestore.models.checkpoint import load_model
    from metarestore.models.exporting.export import Export, export_network

    model, chosen = load_model(choice.file), None
    if embedding is not None:
        from metarestore.descriptors.file import chosen_embedding

        chosen = chosen_embedding(embedding, choice.file, model)
    result = export_network(model, Export(choice.file, out, to, chosen, embedding, half))
    if choice.reason != str(network):
        say(f"Network: {choice.reason}")
    sizes = ", ".join(f"{height}x{width}" for height, width in result.sizes)
    say(f"{out}: x{model.scale}, differs by {result.error:.1e} at most from the network (images of {sizes} in [0, 1])")
    say(f"{card}: what it is, and where it comes from")
