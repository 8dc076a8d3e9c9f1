"""Measures the time and the peak memory of `metarestore restore` for large photographs, by format of the output.

    python experiments/studies/photograph_memory.py --megapixels 1 6.25 12 --formats png tiff jpeg

Each restoration is a process of its own. Its peak (of resident memory) is compared with that of a photograph of 64x64
pixels, which takes what Python and PyTorch take. The photographs are smooth noise with a little grain.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

SEED = 0


def main() -> None:
    """Measures all combinations and prints one line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1.0, 6.25, 12.0], help="of the photograph")
    parser.add_argument("--formats", nargs="+", default=["png", "tiff", "jpeg"])
    parser.add_argument("--network", default="fsrcnn_pisr_x4")
    parser.add_argument("--options", nargs="*", default=[], help="further options of restore, without dashes")
    given = parser.parse_args()
    options = [f"--{option}" for option in given.options]
    with tempfile.TemporaryDirectory() as folder:
        small = photograph(Path(folder) / "small.png", 64, 64)
        base, seconds, _ = measured(small, "png", given.network, options)
        print(f"64x64: {base:.0f} MB, {seconds:.1f} s")
        for megapixels in given.megapixels:
            height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
            path = photograph(Path(folder) / "large.png", height, round(height * 4 / 3))
            for name in given.formats:
                peak, seconds, size = measured(path, name, given.network, options)
                print(
                    f"{megapixels:g} megapixels, {name}: peak {peak - base:.0f} MB above that, {seconds:.0f} s, "
                    f"file of {size:.0f} MB",
                    flush=True,
                )


def photograph(path: Path, height: int, width: int) -> Path:
    """Writes a photograph of smooth noise with grain."""
    rng = np.random.default_rng(SEED)
    coarse = rng.uniform(0, 255, (max(height // 8, 2), max(width // 8, 2), 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = rng.integers(-3, 4, smooth.shape, np.int8)
    cv2.imwrite(str(path), (smooth + grain).clip(0, 255).astype(np.uint8))
    return path


def measured(path: Path, name: str, network: str, options: list[str]) -> tuple[float, float, float]:
    """Returns the peak memory in MB, the seconds, and the size of the file in MB of a restoration."""
    out = path.parent / "out"
    command = [sys.executable, "-m", "metarestore", "restore", str(path), "--model", network, "--out", str(out)]
    began = time.monotonic()
    process = subprocess.Popen([*command, "--format", name, "--overwrite", *options], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"restore ended with {process.returncode}")
    (file,) = out.glob(f"{path.stem}.*")
    size = file.stat().st_size / 1e6
    file.unlink()
    return usage.ru_maxrss * 1024 / 1e6, time.monotonic() - began, size


if __name__ == "__main__":
    main()
