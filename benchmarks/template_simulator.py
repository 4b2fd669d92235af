"""The template from a model, against that of an independent simulator, ttsim3d.

ttsim3d integrates each atom's potential over voxels of a finer grid; jaxrefine sums over
the atoms in Fourier space. Prints, for shells of spatial frequency, the Fourier shell
correlation and the ratio of amplitudes (jaxrefine / ttsim3d, relative to that of the whole
volume). ttsim3d multiplies all B factors by 1/4, as cisTEM does, so jaxrefine is given
B/4 here; and it sums over voxels within about 1 Å of an atom. The second comparison lets it
sum over those within 6 Å.

    python benchmarks/template_simulator.py --simulator PYTHON [--freeze FILE.npz]

PYTHON is an interpreter with ttsim3d (`pip install ttsim3d`, which needs PyTorch).
`--freeze` writes a small case for the tests.
"""

import argparse
import gzip
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np

import jaxrefine as jr

ATOM = (
    "ATOM  {:>5} {:>2}   ALA A{:>4}    {:8.3f}{:8.3f}{:8.3f}{:6.2f}{:6.2f}          {:>2}\n"
)
_REACH = 6.0  # Å
_SIMULATE = """
import sys, numpy as np
from importlib.metadata import version
from ttsim3d.models import Simulator, SimulatorConfig
from ttsim3d import grid_coords
model, output, side, pixel_size, reach = sys.argv[1:]
if float(reach):
    grid_coords.get_size_neighborhood_cistem = lambda b, px: round(float(reach) / px)
config = SimulatorConfig(
    apply_dose_weighting=False, apply_dqe=False, atom_batch_size=256
)
made = Simulator(
    pdb_filepath=model, pixel_spacing=float(pixel_size), volume_shape=(int(side),) * 3,
    simulator_config=config,
).run(device="cpu")
np.savez(output, volume=np.asarray(made, np.float32), version=version("ttsim3d"))
"""


def antibody() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Elements, positions and B factors of PDB entry 1IGY."""
    raw = files("jaxrefine.simulate").joinpath("1igy.csv.gz").read_bytes()
    rows = [line.split(",") for line in gzip.decompress(raw).decode().splitlines()[1:]]
    numbers = np.array([row[1:5] for row in rows], float)
    return [row[0].upper() for row in rows], numbers[:, :3], numbers[:, 3]


def simulated(
    elements: list[str],
    positions: np.ndarray,
    b_factor: np.ndarray,
    side: int,
    pixel_size: float,
    python: str,
    reach_angstrom: float,
) -> tuple[np.ndarray, str]:
    """The volume of ttsim3d, and its version; reach 0 is its own."""
    with tempfile.TemporaryDirectory() as folder:
        model, output = Path(folder) / "model.pdb", Path(folder) / "volume.npz"
        atoms = zip(elements, positions, b_factor, strict=True)
        lines = [
            ATOM.format(i, e, i % 9999, *p, 1.0, b, e) for i, (e, p, b) in enumerate(atoms)
        ]
        model.write_text("".join(lines) + "END\n")
        command = [
            python,
            "-c",
            _SIMULATE,
            model,
            output,
            str(side),
            str(pixel_size),
            str(reach_angstrom),
        ]
        subprocess.run(command, check=True)
        with np.load(output) as file:
            return file["volume"], str(file["version"])


def shells(
    one: np.ndarray, other: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frequencies (cycles/px), Fourier shell correlation, and ratio of amplitudes."""
    a, b = np.fft.rfftn(one.astype(float)), np.fft.rfftn(other.astype(float))
    side = len(one)
    full, half = np.fft.fftfreq(side), np.fft.rfftfreq(side)
    k = np.sqrt(full[:, None, None] ** 2 + full[:, None] ** 2 + half**2)
    shell = np.minimum((k * 2 * count).astype(int), count)  # beyond Nyquist: the last

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(shell.ravel(), values.ravel(), count + 1)[:count]

    cross, of_a, of_b = (total(v) for v in ((a * b.conj()).real, abs(a) ** 2, abs(b) ** 2))
    ratio = np.sqrt(of_a / of_b)
    whole = np.sqrt(of_a[1:].sum() / of_b[1:].sum())
    return (
        (np.arange(count) + 0.5) / (2 * count),
        cross / np.sqrt(of_a * of_b),
        ratio / whole,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulator", required=True, help="Python with ttsim3d")
    parser.add_argument("--freeze", type=Path, help="write a small case to this file")
    parser.add_argument("--side", type=int, default=192)
    parser.add_argument("--pixel-size", type=float, default=1.06)
    options = parser.parse_args()
    elements, positions, b_factor = antibody()
    if options.freeze:
        near = np.linalg.norm(positions - positions[2000], axis=1) < 9.0
        elements = [e for e, kept in zip(elements, near, strict=True) if kept]
        positions, b_factor = positions[near], b_factor[near]
    small = bool(options.freeze)
    side, pixel_size = (32, 1.0) if small else (options.side, options.pixel_size)
    positions = np.round(positions - positions.mean(axis=0), 3)
    b_factor = np.round(b_factor, 2)
    args = (elements, positions, b_factor, side, pixel_size, options.simulator)
    single = (positions.astype("f4"), elements, (b_factor / 4).astype("f4"))
    ours = np.asarray(jr.template_from_atoms(*single, pixel_size, side))
    print(f"\n{len(elements)} atoms, {side} px of {pixel_size} Å\n")
    print("| resolution | FSC | amplitude ratio | FSC, 6 Å | amplitude ratio, 6 Å |")
    print("|---" * 5 + "|")
    theirs, which = zip(*(simulated(*args, reach) for reach in (0.0, _REACH)), strict=True)
    found = [shells(ours, volume, 10) for volume in theirs]
    for row in range(10):
        numbers = [f"{fsc[row]:.5f} | {ratio[row]:.3f}" for _, fsc, ratio in found]
        print(f"| {pixel_size / found[0][0][row]:.1f} Å | {' | '.join(numbers)} |")
    print(f"\nttsim3d {which[0]}", flush=True)
    if options.freeze:
        np.savez_compressed(
            options.freeze,
            elements=np.array(elements),
            positions_angstrom=positions.astype("f4"),
            b_factor_angstrom2=b_factor.astype("f4"),
            pixel_size_angstrom=pixel_size,
            volume=theirs[1].astype("f4"),
        )


if __name__ == "__main__":
    main()
