"""Opening a folder of aligned real pairs."""

from __future__ import annotations

from metarestore.errors import UserError
from metarestore.tasks.distribution import PairTasks
from metarestore.tasks.pair_images import open_sides
from metarestore.tasks.spec import PairsSpec
from metarestore.tasks.task import Episode


def open_pairs(name: str, spec: PairsSpec, episode: Episode) -> PairTasks:
    """Opens both folders of a camera and checks that they belong together.

    Raises:
        UserError: The folders have different names in them, or sizes that do not fit the scale.
    """
    lr, hr = open_sides(spec)
    if len(hr.names) < 2:
        raise UserError(f"{spec.hr}: has {len(hr.names)} pair; at least 2 are needed, to learn from and to test on")
    hr.require_size(episode.patch, episode.patch)
    return PairTasks(name, spec, lr, hr, episode)
