"""Opening a folder of aligned real pairs."""

from __future__ import annotations

from metarestore.errors import UserError
from metarestore.tasks.distribution import PairTasks
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.tasks.spec import PairsSpec
from metarestore.tasks.task import Episode


def open_pairs(name: str, spec: PairsSpec, episode: Episode) -> PairTasks:
    """Opens both folders of a camera and checks that they belong together.

    Raises:
        UserError: The folders have different names in them, or sizes that do not fit the scale.
    """
    lr, hr = ImageStore.open(ImageSource.folder(spec.lr)), ImageStore.open(ImageSource.folder(spec.hr))
    odd = sorted(set(lr.names) ^ set(hr.names))
    if odd:
        side, other = (spec.lr, spec.hr) if odd[0] in lr.names else (spec.hr, spec.lr)
        raise UserError(
            f"{side}: '{odd[0]}' has no partner in {other} ({len(odd)} such names); pairs need the same file names"
        )
    for image in hr.names:
        (h, w), (height, width) = lr.size(image), hr.size(image)
        if (height, width) != (spec.scale * h, spec.scale * w):
            raise UserError(
                f"{spec.hr}: '{image}' is {height}x{width}, its LR partner {h}x{w}; "
                f"at scale {spec.scale} it should be {spec.scale * h}x{spec.scale * w}"
            )
    if len(hr.names) < 2:
        raise UserError(f"{spec.hr}: has {len(hr.names)} pair; at least 2 are needed, to learn from and to test on")
    hr.require_size(episode.patch, episode.patch)
    return PairTasks(name, spec, lr, hr, episode)
