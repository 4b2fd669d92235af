"""Effect of a single outlier pixel on the z-score, if it is not filled.

    .venv/bin/python benchmarks/hot_pixels.py

The first particle of the reference set `basic` is refined in its micrograph (288 px),
unchanged and with one pixel a number of standard deviations above the median: away from the
particle, and in its centre.
"""

import csv
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from jaxrefine.app.config import Config
from jaxrefine.app.run.pipeline import run
from jaxrefine.io.mrc import read_image, write_image

REFERENCE = Path(__file__).resolve().parents[1] / "tests" / "data" / "reference" / "basic"
DEVIATIONS = (20, 50, 100, 300, 1000, 10000)
AWAY = (250, 30)
HALF = 32  # half the template's side


def main() -> None:
    """Print a line for each height of the pixel."""
    with tempfile.TemporaryDirectory(prefix="hot-pixels-") as name:
        folder = Path(shutil.copytree(REFERENCE, Path(name) / "basic"))
        image = read_image(folder / "micrograph.mrc")
        table = folder / "match_results.csv"
        with open(table, newline="") as file:
            first = next(csv.DictReader(file))
        within = (int(first["pos_y"]) + HALF, int(first["pos_x"]) + HALF)
        rows = [first]
        for deviations in DEVIATIONS:
            for where, place in (("away", AWAY), ("within", within)):
                spoilt = image.copy()
                spoilt[place] = np.median(image) + deviations * image.std()
                path = folder / f"{where}_{deviations}.mrc"
                write_image(path, spoilt, 1.5)
                rows.append({**first, "micrograph_path": path.name})
        pd.DataFrame(rows).to_csv(table, index=False)
        config = replace(Config.load(folder / "refine.yaml"), fill_defects=False)
        run(config, output=folder / "refined.csv", quiet=True)
        refined = pd.read_csv(folder / "refined.csv")
    z = refined.refined_scaled_mip.to_numpy()
    at = refined[["refined_pos_y", "refined_pos_x"]].to_numpy()
    moved = np.linalg.norm(at - at[0], axis=1)
    print(f"as it is: z {z[0]:.2f}")
    print("deviations | z, pixel away | z, pixel within | moved by, px")
    for i, deviations in enumerate(DEVIATIONS):
        away, inside = z[1 + 2 * i], z[2 + 2 * i]
        print(f"{deviations} | {away:.2f} | {inside:.2f} | {moved[2 + 2 * i]:.0f}")


if __name__ == "__main__":
    main()
