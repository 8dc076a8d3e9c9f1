"""Links photographs into the projects of the studies, which are not part of this repository."""

from __future__ import annotations

from pathlib import Path

from metarestore.tasks.images import ImageSource, ImageStore


def link_photographs(source: Path, folder: Path, least: int) -> None:
    """Links the photographs that have at least `least` pixels on both sides."""
    folder.mkdir(parents=True, exist_ok=True)
    files = ImageSource.folder(source).files()
    store = ImageStore.open(ImageSource.folder(source))
    for name in store.names:
        if min(store.size(name)) >= least:
            link(files[name], folder / files[name].name)


def link(source: Path, place: Path) -> None:
    """Makes a symbolic link, if there is none."""
    if not place.is_symlink():
        place.symlink_to(source.resolve())
