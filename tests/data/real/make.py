"""Makes this folder from the whole data set: a crop with many of its best particles.

python tests/data/real/make.py FOLDER
"""

import sys
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import yaml

SIDE, TEMPLATE, BEST = 420, 88, 28
HERE = Path(__file__).parent


def write(name: str, values: np.ndarray) -> None:
    """As half floats (MRC mode 12)."""
    with mrcfile.new(HERE / name, values.astype(np.float16), overwrite=True) as file:
        file.voxel_size = 2.5613265


def main() -> None:
    folder = Path(sys.argv[1])
    table = pd.read_csv(folder / "bgal_match_results.csv")
    corner = table.nlargest(BEST, "scaled_mip")[["pos_y", "pos_x"]].to_numpy()
    image = mrcfile.read(folder / "bgal_micrograph_bin3_f16.mrc")

    def inside(corners: np.ndarray, top: int, left: int) -> np.ndarray:
        rest = corners - [top, left]
        return np.all((rest >= 10) & (rest <= SIDE - TEMPLATE - 10), axis=1)

    places = [
        (y, x)
        for y in range(0, image.shape[0] - SIDE, 20)
        for x in range(0, image.shape[1] - SIDE, 20)
    ]
    top, left = max(places, key=lambda place: inside(corner, *place).sum())
    write("micrograph.mrc", image[top : top + SIDE, left : left + SIDE])
    valid = SIDE - TEMPLATE + 1
    for name in ("mean", "sd"):
        values = mrcfile.read(folder / f"bgal_{name}_f16.mrc")
        write(f"{name}.mrc", values[top : top + valid, left : left + valid])
    write("template.mrc", mrcfile.read(folder / "bgal_template.mrc"))
    best = table.nlargest(BEST, "scaled_mip")
    rows = best[inside(best[["pos_y", "pos_x"]].to_numpy(), top, left)].copy()
    for axis, start in (("y", top), ("x", left)):
        rows[f"pos_{axis}"] -= start
        rows[f"pos_{axis}_img"] -= start
        rows[f"pos_{axis}_img_angstrom"] -= start * rows.pixel_size
    rows["micrograph_path"], rows["template_path"] = "micrograph.mrc", "template.mrc"
    rows["correlation_average_path"] = "mean.mrc"
    rows["correlation_variance_path"] = "sd.mrc"
    rows.to_csv(HERE / "match_results.csv", index=False)
    config = yaml.safe_load((folder / "bgal_config.yaml").read_text())
    config["template_volume_path"] = "template.mrc"
    config["particle_stack"]["df_path"] = "match_results.csv"
    del config["output_path"]
    config["statistics"] = "standard_deviation"
    (HERE / "refine.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    print(f"{len(rows)} particles at y {top}, x {left}")


if __name__ == "__main__":
    main()
