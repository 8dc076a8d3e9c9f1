"""Draws the pictures of docs/zero_shot.md: two embedded photographs, restored from themselves at x2.

`coffee` is blurred by a known kernel and shrunk first; `chelsea` is restored as it is, so nothing is known about it.

Run:     python experiments/studies/zero_shot_pictures.py
Results: docs/images/zero_shot_coffee.jpg, docs/images/zero_shot_chelsea.jpg
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from kernel_cases import Corruption, Pixels, as_image, degraded
from PIL import Image

from metarestore.files import write_atomically
from metarestore.models.restore import to_pixels
from metarestore.reports.networks.zero_shot import restoration_sheet
from metarestore.tasks.images import ImageSource, ImageStore
from metarestore.workspace.process import prepare_process
from metarestore.zero_shot.options import ZeroShotOptions
from metarestore.zero_shot.restore import restore_zero_shot
from metarestore.zero_shot.shapes import gaussian_of

SCALE, QUALITY = 2, 88
COVARIANCE = np.array([[2.5, 0.9], [0.9, 1.4]])
"""Covariance of the blur of `coffee`, in HR pixels squared."""


def draw(name: str, lr: Pixels) -> None:
    """Restores a photograph and writes its sheet."""
    found = restore_zero_shot(as_image(lr), SCALE, ZeroShotOptions())
    note = f"kernel {found.kernel.source}, confidence {found.kernel.confidence:.2f}"
    figure = restoration_sheet(lr, to_pixels(found.image), found.kernel.kernel, name, note)
    drawn, written = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").save(written, format="jpeg", quality=QUALITY)
    write_atomically(Path(f"docs/images/zero_shot_{name}.jpg"), written.getvalue())


if __name__ == "__main__":
    prepare_process()
    store = ImageStore.open(ImageSource.embedded("test"))
    coffee = np.ascontiguousarray(store.image("coffee")[:400, 100:600])
    draw("coffee", degraded(coffee, gaussian_of(COVARIANCE, SCALE), SCALE, Corruption(), "pictures"))
    draw("chelsea", np.ascontiguousarray(store.image("chelsea")[40:232, 90:346]))
