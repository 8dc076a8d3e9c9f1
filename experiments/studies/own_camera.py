"""What `metarestore adapt` makes of five pairs of a camera, with no other option, and how long it takes.

The data are not part of this repository: DATA needs real_pairs/CAMERA with lr/ and hr/.

Run:     python experiments/studies/own_camera.py DATA --out runs/own_camera [--model NETWORK] [--data DATA/train]
Results: OUT/own_camera.md
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from metarestore.evaluation.statistics import paired_difference

CAMERAS = ("realsr_canon5d3", "realsr_nikond810", "drealsr_panasonic", "drealsr_dsc", "drealsr_img")

PAGE = """\
# A network for one's own camera from five pairs

`metarestore adapt --pairs DIR --shots 5 --out RUN{options}` on each camera, with a time limit of {minutes:g} minutes.
dB of PSNR-Y on the pairs that were not learned from, on their central 512x512 pixels at most, with 95% intervals over
pairs (t distribution; wide for few pairs). Single forward pass, seed 0. Colour: mean absolute difference of the channel
means from those of HR, in grey levels, and that of bicubic upscaling.

| camera | test pairs | chosen on the shots | over bicubic | over unadapted | colour (bicubic) | minutes |
| :-- | --: | :-- | --: | --: | --: | --: |
{rows}

Command: `{command}`; {date}, one thread of a 2-core machine beside other work.
"""


def adapted(camera: str, options: argparse.Namespace) -> str:
    """Runs the command on a camera, unless its results are there, and returns its row of the table."""
    out, began = options.out / camera, time.monotonic()
    log = options.out / f"{camera}.json"
    if not log.is_file():
        words = ["adapt", "--pairs", str(options.pairs / "real_pairs" / camera), "--shots", "5", "--out", str(out)]
        words += ["--minutes", str(options.minutes), *(["--resume"] if (out / "plan.json").is_file() else [])]
        words += [*(["--model", str(options.model)] if options.model else [])]
        words += [*(["--data", str(options.data)] if options.data else [])]
        subprocess.run([sys.executable, "-m", "metarestore", *words], check=True)
        log.write_text(json.dumps({"minutes": (time.monotonic() - began) / 60}))
    minutes = json.loads(log.read_text())["minutes"]
    arms = json.loads((out / "study/results.json").read_text())["arms"]
    left_out = json.loads((out / "left_out.json").read_text())
    own = arms.get("adapted", arms["unadapted"])
    cells = []
    for other in ("bicubic", "unadapted"):
        difference = paired_difference(own["psnr_y"], arms[other]["psnr_y"])
        cells.append(f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]")
    colour = " (".join(f"{np.mean(one['colour_error']):.2f}" for one in (own, arms["bicubic"])) + ")"
    way = max(left_out, key=lambda name: float(np.mean(left_out[name])))
    return f"| {camera} | {len(own['psnr_y'])} | {way} | {cells[0]} | {cells[1]} | {colour} | {minutes:.1f} |"


def main() -> None:
    """Runs all cameras, and writes the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, metavar="DATA")
    parser.add_argument("--out", type=Path, default=Path("runs/own_camera"))
    parser.add_argument("--cameras", nargs="+", choices=CAMERAS, default=CAMERAS)
    parser.add_argument("--model", help="network to start from")
    parser.add_argument("--data", type=Path, help="clean photographs to train on; embedded ones if left out")
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[str] = []
    for camera in options.cameras:
        rows.append(adapted(camera, options))
        given = "".join(f" --{key} {value}" for key in ("model", "data") if (value := getattr(options, key)))
        text = PAGE.format(
            options=given,
            minutes=options.minutes,
            rows="\n".join(rows),
            command=re.sub(r"\S*/own_camera\.py", "experiments/studies/own_camera.py", f"python {' '.join(sys.argv)}"),
            date=datetime.datetime.now(datetime.UTC).date(),
        )
        (options.out / "own_camera.md").write_text(text)


if __name__ == "__main__":
    main()
