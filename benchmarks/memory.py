"""Whether the memory of a run grows with the number of micrographs.

Simulates micrographs of noise, with maps and 100 particles each, and refines increasing
numbers of them on a small grid, each in a separate process whose peak resident memory is
measured. The memory of a process that only reads the table and writes a refined one is
measured separately, since a table is in memory as a whole.

    python benchmarks/memory.py --micrographs 20 50 100 200 --plot docs/memory.png

The plot needs matplotlib (the extra `report`).
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from jaxrefine import simulate as sim
from jaxrefine.io.mrc import write_image, write_volume

SIDE, BOX, SHAPE, PIXEL_SIZE_ANGSTROM = 32, 34, (256, 256), 2.0
PARTICLES_EACH = 100
# Number of particles searched together: fewer, larger batches than one per core.
DEVICES = 50
CONFIG = f"""
template_volume_path: template.mrc
particle_stack:
  df_path: particles.csv
  extracted_box_size: [{BOX}, {BOX}]
  original_template_size: [{SIDE}, {SIDE}]
orientation_refinement_config:
  psi_step_coarse: 1.0
  psi_step_fine: 1.0
  theta_step_coarse: 0.0
defocus_refinement_config:
  enabled: false
statistics: standard_deviation
"""
# The part of a run that handles the table.
TABLE_ALONE = """
import sys
from pathlib import Path
import numpy as np
from jaxrefine.app.run import pipeline
from jaxrefine.io.paths import rebase_relative_paths
from jaxrefine.io.table.refined import RefinedColumns, refined_table
from jaxrefine.io.table import read_particle_table, write_table
table = read_particle_table(Path(sys.argv[1]))
n = len(table)
columns = RefinedColumns.empty(n, 32, polished=False)
for name, column in columns.values.items():
    columns.store(slice(None), {name: "converged" if column.dtype == object else 0.0})
here = Path().absolute()
refined = rebase_relative_paths(refined_table(table, columns), here, here)
write_table(refined, Path("alone.csv"))
"""


def make_data(folder: Path, micrographs: int) -> None:
    """Template, images and maps."""
    rng = np.random.default_rng(0)
    atoms = sim.random_globule(200, 0.4 * SIDE * PIXEL_SIZE_ANGSTROM, rng).blurred(40.0)
    volume = sim.potential_volume(atoms, SIDE, PIXEL_SIZE_ANGSTROM)
    write_volume(folder / "template.mrc", volume, PIXEL_SIZE_ANGSTROM)
    maps = tuple(length - SIDE + 1 for length in SHAPE)
    for number in range(micrographs):
        write_image(folder / f"image_{number}.mrc", rng.standard_normal(SHAPE))
        write_image(folder / f"mean_{number}.mrc", 0.01 * rng.standard_normal(maps))
        write_image(folder / f"deviation_{number}.mrc", rng.uniform(0.9, 1.1, maps))
    (folder / "config.yaml").write_text(CONFIG)


def write_table(path: Path, micrographs: int) -> None:
    """100 particles in each of the first micrographs."""
    rng = np.random.default_rng(1)
    rows = [
        {
            "particle_index": number * PARTICLES_EACH + particle,
            "pos_x": rng.integers(20, SHAPE[1] - SIDE - 20),
            "pos_y": rng.integers(20, SHAPE[0] - SIDE - 20),
            "phi": round(rng.uniform(0, 360), 4),
            "theta": round(rng.uniform(0, 180), 4),
            "psi": round(rng.uniform(0, 360), 4),
            "relative_defocus": 0.0,
            "defocus_u": 5200.0,
            "defocus_v": 4900.0,
            "astigmatism_angle": 30.0,
            "pixel_size": PIXEL_SIZE_ANGSTROM,
            "voltage": 300.0,
            "spherical_aberration": 2.7,
            "amplitude_contrast_ratio": 0.07,
            "phase_shift": 0.0,
            "ctf_B_factor": 20.0,
            "micrograph_path": f"image_{number}.mrc",
            "correlation_average_path": f"mean_{number}.mrc",
            "correlation_variance_path": f"deviation_{number}.mrc",
        }
        for number in range(micrographs)
        for particle in range(PARTICLES_EACH)
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def peak_mib(folder: Path, *arguments: str) -> tuple[float, float]:
    """Peak of a process's resident memory in MiB, and its seconds."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(DEVICES),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
    }
    begin = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit((folder / "log.txt").read_text())
    kib = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return kib / 1024, time.perf_counter() - begin


def plot(path: Path, numbers: list[int], runs: list[float], tables: list[float]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    axes.plot(numbers, runs, "o-", label="a whole run")
    axes.plot(numbers, tables, "s--", label="its table alone")
    axes.set(xlabel=f"micrographs, {PARTICLES_EACH} particles each", ylim=(0, None))
    axes.set_ylabel("peak resident memory, MiB")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--micrographs", nargs="+", type=int, default=[20, 50, 100, 200])
    parser.add_argument(
        "--arenas",
        type=int,
        metavar="N",
        help="of glibc's allocator (MALLOC_ARENA_MAX): each keeps what it has freed",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = parser.parse_args()
    if options.arenas:
        os.environ["MALLOC_ARENA_MAX"] = str(options.arenas)
    runs, tables = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_data(folder, max(options.micrographs))
        write_table(folder / "particles.csv", 1)
        peak_mib(folder, "-m", "jaxrefine", "config.yaml")  # fills the compilation cache
        print(
            f"jax {jax.__version__}, Python {sys.version.split()[0]}, {DEVICES} CPU devices"
        )
        for number in options.micrographs:
            write_table(folder / "particles.csv", number)
            table, _ = peak_mib(folder, "-c", TABLE_ALONE, "particles.csv")
            run, seconds = peak_mib(folder, "-m", "jaxrefine", "config.yaml")
            runs.append(run)
            tables.append(table)
            print(
                f"{number:4} micrographs, {number * PARTICLES_EACH:6,} particles: "
                f"{run:6.0f} MiB in {seconds:5.1f} s; the table alone {table:5.0f} MiB, "
                f"the rest {run - table:5.0f} MiB",
                flush=True,
            )
    if options.plot:
        plot(options.plot, options.micrographs, runs, tables)


if __name__ == "__main__":
    main()
