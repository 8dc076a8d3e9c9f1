"""Options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replaces existing files.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also writes the results to this JSON file.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the draws.")]
Scale = Annotated[int | None, typer.Option(min=2, max=4, help="Upscaling factor, if not that of the task file.")]
Arm = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Arm of a study; by default the one with the greatest mean gain."),
]
Weights = Annotated[
    Literal["adapted", "unadapted"] | None,
    typer.Option("--weights", help="Network of a run before or after its adaptation; by default the adapted one."),
]
EstimateOn = Annotated[
    int | None,
    typer.Option(
        "--estimate-on",
        min=16,
        help="KDSR: estimates the degradation from the middle N x N pixels only; faster, approximate.",
    ),
]
SelfEnsemble = Annotated[
    bool,
    typer.Option("--self-ensemble", help="Averages the restorations of eight orientations: better, 8 times the work."),
]
Network = Annotated[
    Path | None,
    typer.Option("--model", help="The folder of a run or a study, a weights file, or the name of a shipped network."),
]
Embedding = Annotated[
    str | None,
    typer.Option(metavar="FILE[:GROUP]", help="KDSR: restores with the mean of this group of a descriptors file."),
]
Adapt = Annotated[
    Literal["zero-shot"] | None,
    typer.Option(help="zero-shot: --model, or a new network, learns from each photograph alone before restoring it."),
]
RestoreScale = Annotated[
    int | None,
    typer.Option(
        "--scale",
        min=2,
        max=4,
        help="Upscaling factor: selects a shipped network if neither --model nor --adapt is given. A network of a "
        "larger factor restores, too, and its output is downsampled. With --adapt, that of --model, or 2, if left out.",
    ),
]
Steps = Annotated[int | None, typer.Option(min=0, help="With --adapt: steps of learning for each photograph.")]
Budget = Annotated[
    float | None, typer.Option(min=0, help="With --adapt: seconds of learning for each photograph at most.")
]
KernelFile = Annotated[
    Path | None, typer.Option("--kernel", help="With --adapt: file of the blur kernel; estimated if left out.")
]
LearningSeed = Annotated[
    int | None, typer.Option("--seed", min=0, help="With --adapt: seed of the learning; 0 if left out.")
]
Sheet = Annotated[
    bool, typer.Option("--sheet", help="With --adapt: draws each photograph before and after, and its kernel.")
]
PhotographWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Photographs at once, on one core each; if left out, one photograph on all cores, or with --adapt one "
        "photograph per core.",
    ),
]
RestoreOut = Annotated[
    Path, typer.Option(metavar="FILE|DIR", help="File to write, if there is one photograph, or a folder.")
]
OutFormat = Annotated[
    Literal["png", "jpeg", "webp", "tiff"] | None,
    typer.Option("--format", help="Format of the files in the folder --out; png if left out."),
]
Quality = Annotated[int | None, typer.Option(min=1, max=100, help="Quality of JPEG and WebP files; 95 if left out.")]
KeepColours = Annotated[
    bool, typer.Option("--keep-colours", help="Keeps the low frequencies of the photograph: its exposure and colour.")
]
Compare = Annotated[
    bool,
    typer.Option("--compare", help="Draws detailed crops before (bicubic) and after, beside each restored photograph."),
]
ResumePhotographs = Annotated[
    bool, typer.Option("--resume", help="Keeps the files that are finished, and restores the other photographs.")
]


@dataclass(frozen=True)
class RunOptions:
    """The options of every command that runs an experiment and writes its results into a folder."""

    more: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", hidden=True)] = None
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Overrides a value of the file, e.g. training.steps=100; repeatable."
        ),
    ] = None
    out: Annotated[Path | None, typer.Option(help="Folder for the results; by default a new one in runs/.")] = None
    json_file: Json = None
    resume: Annotated[bool, typer.Option("--resume", help="Continues the run in --out.")] = False
    overwrite: Overwrite = False

    @property
    def overrides(self) -> tuple[str, ...]:
        """All KEY=VALUE overrides: those of --set first, then those given without it."""
        return (*(self.override or ()), *(self.more or ()))


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Declares the options of `RunOptions` for a command, which receives them as its keyword argument `options`."""
    hints = get_type_hints(command, include_extras=True)
    shared_hints = get_type_hints(RunOptions, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "options"
    ]
    shared = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=shared_hints[field.name]
        )
        for field in fields(RunOptions)
    ]

    @wraps(command)
    def called(**given: Any) -> None:
        options = RunOptions(**{field.name: given.pop(field.name) for field in fields(RunOptions)})
        command(**given, options=options)

    # typer reads the parameters of a command from its signature.
    called.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    return called
