"""Whether `check` names a planted confusion, in any data set.

    python -m benchmarks.check_confusions FOLDER [--config config.yaml] [--ranks 40:48]

FOLDER holds a valid data set: configuration, table, images, maps and template, named
without folders. It is copied, each of the confusions below is planted in the copy, and the
output of `jaxrefine check` is judged: named; among others (which cannot be distinguished);
not told (something is wrong, but not what); wrong (another cause is named); or z holds: it
stays above 75 % of the table's, and there is no warning.
"""

import argparse
import dataclasses
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from jaxrefine.app.config import Config
from jaxrefine.app.run.convention_check import check_conventions, format_problems
from jaxrefine.app.run.inputs import load_inputs
from jaxrefine.app.run.pipeline import read_and_prepare
from jaxrefine.io.mrc import read_image, read_volume, write_image, write_volume
from tests.app.run import planted_confusions as planted
from tests.app.run.planted_confusions import Planted, Table

NO_CAUSE = "no known confusion restores it"
# Messages of check on maps that differ from the table's, and on wrong templates.
MAPS, OTHER = "do not hold the table's", "the template is another"


def _maps(change):
    """Change both maps in the same way, as if they were another micrograph's."""

    def spoil(folder: Path, config: Config, table: Table) -> None:
        for column in ("correlation_average_path", "correlation_variance_path"):
            for name in table[column].unique():
                image = read_image(folder / name)
                write_image(folder / name, np.ascontiguousarray(change(image)))

    return spoil


def _shuffled(image: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.permutation(image.ravel()).reshape(image.shape)


def _noise(folder: Path, config: Config, table: Table) -> Config:
    """Replace the template by noise within a ball."""
    volume, voxel_size = read_volume(folder / config.template_volume_path)
    rng = np.random.default_rng(0)
    axes = np.indices(volume.shape) - volume.shape[0] // 2
    ball = np.linalg.norm(axes, axis=0) < 0.4 * volume.shape[0]
    other = (rng.standard_normal(volume.shape) * ball).astype(np.float32)
    write_volume(folder / "other.mrc", other, voxel_size or 1.0)
    table["template_path"] = "gone.mrc"
    return dataclasses.replace(config, template_volume_path=str(folder / "other.mrc"))


def _contrast_and_centres(folder: Path, config: Config, table: Table) -> None:
    planted.PLANTED["contrast"].spoil(folder, config, table)
    planted.PLANTED["centres"].spoil(folder, config, table)


def _template_pixel_size(folder: Path, config: Config, table: Table) -> Config:
    size = float(table.pixel_size.iloc[0])
    return dataclasses.replace(config, template_pixel_size=1.06 * size)


CASES = {
    "nothing": Planted(lambda folder, config, table: None, ""),
    **planted.PLANTED,
    "pixel_size_minus_4": Planted(
        planted.scaled(("pixel_size", "refined_pixel_size"), 0.96), "pixel_size"
    ),
    "template_pixel_size": Planted(_template_pixel_size, "set `template_pixel_size`"),
    "voltage": Planted(planted.set_to("voltage", 200.0), "set voltage to 300"),
    "defocus_twice": Planted(planted.scaled(("defocus_u", "defocus_v"), 2.0), OTHER),
    "noise": Planted(_noise, OTHER),
    "maps_upside_down": Planted(_maps(np.flipud), MAPS),
    "maps_shuffled": Planted(_maps(_shuffled), MAPS),
    "contrast_and_centres": Planted(_contrast_and_centres, NO_CAUSE),
}


def verdict(case: Planted, said: list[str]) -> str:
    """The outcome in one word."""
    if not said:
        return "sound" if not case.named else "z holds"
    if not case.named:
        return "false alarm"
    if case.named in "\n".join(line for line in said if not line.startswith("  ")):
        return "named"
    if case.named in "\n".join(said):
        return "among others"
    return "not told" if NO_CAUSE in said[0] else "wrong"


def some(source: Path, config_name: str, ranks: str, folder: Path) -> Path:
    """A copy of a data set with the particles of some ranks; "0:8" are the best."""
    shutil.copytree(source, folder)
    path = folder / Config.load(folder / config_name).particle_stack.df_path
    path.chmod(0o644)
    table = pd.read_csv(path).sort_values("scaled_mip", ascending=False)
    first, last = (int(each) if each else None for each in ranks.split(":"))
    table[first:last].to_csv(path, index=False)
    return folder


def main() -> None:
    """Print a row for each confusion."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", default="config.yaml")
    parser.add_argument("--only", nargs="+", choices=CASES, default=[*CASES])
    parser.add_argument("--ranks", nargs="+", default=[":"], help="by z, from 0: A:B")
    options = parser.parse_args()
    print("| ranks | planted | z: table, now | what came of it | what was said |")
    print("|---|---|---|---|---|")
    for ranks in options.ranks:
        for name in options.only:
            case = CASES[name]
            with tempfile.TemporaryDirectory() as scratch:
                sound = some(options.folder, options.config, ranks, Path(scratch) / "some")
                copy = Path(scratch) / "copy"
                config = planted.plant(case, sound, options.config, copy)
                check = check_conventions(load_inputs(config), read_and_prepare)
            said = format_problems(check)
            first = min(check.micrographs, key=lambda each: each.z / each.table_z)
            z = f"{first.table_z:.1f}, {first.z:.1f}"
            found = verdict(case, said)
            row = ranks, name, z, found, " / ".join(said)
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
