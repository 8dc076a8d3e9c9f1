"""The job that restores one photograph with a network and writes its file."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metarestore.errors import SYSTEM_ERRORS, UserError
from metarestore.files import replacing, unwritable
from metarestore.models.checkpoint import load_model
from metarestore.models.network import Network
from metarestore.models.restore import strip_restorer
from metarestore.restoration.colour import MeanColour, bicubic_mean, colour_shift
from metarestore.restoration.compare import Comparison, Cutter, detailed_boxes
from metarestore.restoration.formats import QUALITY, Format, Layout, converted, layout_of, stored_as
from metarestore.restoration.memory import Restored, require_memory
from metarestore.restoration.outcome import Failed, failed
from metarestore.restoration.source import Source, read_source
from metarestore.restoration.writing import Write, writer
from metarestore.tasks.decoding import Levels, stated_size
from metarestore.tasks.photographs import file_content


@dataclass(frozen=True, eq=False)
class Options:
    """How photographs are restored and written.

    Attributes:
        network: File of the network.
        scale: Factor s, at most that of the network.
        crop: Side of the central crop that a KDSR estimates the degradation from.
        embedding: D (1, C) to use instead of the output of a KDSR's encoder.
        ensemble: Whether eight orientations are averaged.
        keep_colours: Whether the low frequencies of the photograph are kept.
        quality: Quality of JPEG and WebP, 1 to 100.
        compare: Whether crops are returned for a comparison with bicubic upscaling.
        memory: Bytes that may be used; not checked if None.
    """

    network: Path
    scale: int
    crop: int | None = None
    embedding: Tensor | None = None
    ensemble: bool = False
    keep_colours: bool = False
    quality: int = QUALITY
    compare: bool = False
    memory: int | None = None


@dataclass(frozen=True, eq=False)
class Written:
    """A photograph whose restored file is complete.

    Attributes:
        before: Height and width of the photograph, upright.
        after: Height and width of the restored picture.
        remarks: What was converted or could not be kept, one remark each.
        shift: Largest difference of a channel's mean from bicubic upscaling, in grey levels of 0..255.
        comparisons: Crops for a sheet, if they were asked for.
    """

    before: tuple[int, int]
    after: tuple[int, int]
    remarks: tuple[str, ...]
    shift: float
    comparisons: tuple[Comparison, ...] = ()


@dataclass(frozen=True)
class RestorePhotograph:
    """Restores one photograph and writes the file; an existing file is replaced, once the new one is complete.

    Attributes:
        path: The photograph.
        out: File to write.
        kind: Its format.
        options: How it is restored and written.
    """

    path: Path
    out: Path
    kind: Format
    options: Options

    def run(self, device: torch.device) -> Written | Failed:
        """Restores the photograph, on the CPU; a problem is returned, so that the other jobs go on."""
        try:
            with warnings.catch_warnings():
                # They are about damaged EXIF data, for which there is a remark.
                warnings.filterwarnings("ignore", module=r"PIL\.")
                return self._written(opened_network(self.options.network, keep_colours=self.options.keep_colours))
        except (UserError, *SYSTEM_ERRORS) as error:
            return failed(self.path, error)

    def _written(self, network: Network) -> Written:
        data = file_content(self.path)
        if (size := stated_size(data)) is not None:  # before it is decoded: a small file may state a huge size
            self._require_memory(Layout(size[1], size[0], 3, _EIGHT_BIT), network)
        source = read_source(data, self.path)
        del data
        before, after = layout_of(source.pixels), layout_of(source.pixels, self.options.scale)
        self._require_memory(before, network)
        layout, remarks = stored_as(after, self.kind, self.path)
        write, more = writer(self.kind, layout, source.metadata, self.options.quality)
        mean, cutter = self._restore(network, source, layout, write)
        return Written(
            (before.height, before.width),
            (after.height, after.width),
            (*source.remarks, *remarks, *more),
            colour_shift(mean.value, bicubic_mean(source.pixels, self.options.scale)),
            cutter.comparisons(source.pixels),
        )

    def _require_memory(self, before: Layout, network: Network) -> None:
        s = self.options.scale
        after = Layout(s * before.height, s * before.width, before.channels, before.dtype)
        require_memory(Restored(self.path, before, after, self.kind), network, self.options.memory)

    def _restore(self, network: Network, source: Source, layout: Layout, write: Write) -> tuple[MeanColour, Cutter]:
        """Restores the photograph strip by strip into the file."""
        options = self.options
        restore = strip_restorer(
            network, crop=options.crop, embedding=options.embedding, ensemble=options.ensemble, scale=options.scale
        )
        mean = MeanColour()
        cutter = Cutter(detailed_boxes(source.pixels) if options.compare else (), options.scale)
        strips: Iterable[Levels] = cutter.through(mean.through(restore(source.pixels)))
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.out) as file:
                write(file, (converted(rows, layout) for rows in strips))
        except OSError as error:
            raise unwritable(self.out, error) from error
        return mean, cutter


_EIGHT_BIT = np.dtype(np.uint8)


@lru_cache(maxsize=1)
def opened_network(file: Path, *, keep_colours: bool) -> Network:
    """Opens a network, once for all photographs, and lets it keep low frequencies if asked to."""
    network = load_model(file)
    if keep_colours and not network.keeps_low_frequencies:
        network.keep_low_frequencies()
    return network
