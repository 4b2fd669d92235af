"""Pixel size by `jaxrefine calibrate` and by Leopard-EM's optimize_template, side by side.

The same simulated particles, table, model and settings for both programs, on the same
machine in one run. Particles are at poses as from a refinement (0.5° and half a pixel off);
the true pixel size is drawn for each set. (It stays below 1.5 Å, above which ttsim3d 0.4.2
makes a wrong template.) Needs an environment with Leopard-EM (run_peer.py
says how to make one):

    python benchmarks/calibrate_peer.py FOLDER --peer PEER/bin/python --sets 5
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from jaxrefine import simulate as sim
from jaxrefine.app.cli import main as jaxrefine
from jaxrefine.io.mrc import write_image
from jaxrefine.physics.atoms import scattering_factors

SIDE, SIZE, SPACING, PIXEL_SIZE, COLUMNS = 48, 620, 92, 1.2, 6
PLACES = np.indices((COLUMNS, COLUMNS)).reshape(2, -1).T * SPACING + 40
B_FACTOR = 30.0
PDB = "ATOM  {:>5}  C   ALA A{:>4}    {:8.3f}{:8.3f}{:8.3f}{:6.2f}{:6.2f}           C\n"
SEARCH = {"enabled": True, "skip_enforce_zero": False}
CONFIG = {
    "particle_stack": {
        "df_path": "picks.csv",
        "extracted_box_size": [SIDE + 12, SIDE + 12],
        "original_template_size": [SIDE, SIDE],
    },
    # The steps of Leopard-EM's documentation.
    "pixel_size_coarse_search": SEARCH
    | {"pixel_size_min": -0.05, "pixel_size_max": 0.05, "pixel_size_step": 0.01},
    "pixel_size_fine_search": SEARCH
    | {"pixel_size_min": -0.008, "pixel_size_max": 0.008, "pixel_size_step": 0.001},
    "preprocessing_filters": {"whitening_filter": {"enabled": True}},
    "computational_config": {"gpu_ids": "cpu", "num_cpus": 1},
    "simulator": {
        "pdb_filepath": "model.pdb",
        "pixel_spacing": PIXEL_SIZE,
        "volume_shape": [SIDE, SIDE, SIDE],
        "b_factor_scaling": 1.0,
        "additional_b_factor": 0.0,
        "simulator_config": {
            "voltage": 300.0,
            "apply_dose_weighting": False,
            "apply_dqe": False,
            "mtf_reference": "k2_300kv",
        },
    },
}
_MAPS = ("mip", "scaled_mip", "psi", "theta", "phi", "defocus")


def make_set(folder: Path, rng: np.random.Generator) -> float:
    """Write the particles; returns the true pixel size."""
    pixel_size = PIXEL_SIZE * (1 + rng.uniform(-0.015, 0.015))
    atoms = sim.random_globule(700, 0.36 * SIDE * PIXEL_SIZE, rng)
    xyz = atoms.positions_angstrom - atoms.positions_angstrom.mean(axis=0)
    lines = [PDB.format(i, i, *place, 1.0, B_FACTOR) for i, place in enumerate(xyz, 1)]
    (folder / "model.pdb").write_text("".join(lines) + "END\n")
    # Images of exactly these atoms: carbon scatters as a sum of five Gaussians.
    factor = np.array(scattering_factors()["C"])
    imaged = sim.Atoms(
        np.repeat(xyz, 5, axis=0),
        np.tile(factor[:5], len(xyz)),
        np.tile(factor[5:] + B_FACTOR, len(xyz)),
    )
    particles, rows = [], []
    for place in PLACES:
        rotation = sim.random_rotations(1, rng)[0]
        centre = place + SIDE // 2 + rng.uniform(-0.5, 0.5, 2)
        defocus = 4000.0 + rng.normal(0, 40)
        snr = rng.uniform(9.0, 16.0)
        particles.append(
            sim.SimulatedParticle(rotation, tuple(centre), (defocus, defocus), 0.0, snr)
        )
        angles = sim.euler_from_matrix(sim.perturbed_rotation(rotation, rng, 0.5, 0.5))
        y, x = (int(p) for p in place)
        middle = {"pos_y_img": y + SIDE // 2, "pos_x_img": x + SIDE // 2}
        rows.append(
            {
                "particle_index": len(rows),
                **{"mip": snr, "scaled_mip": snr, "total_correlations": 1},
                **{"correlation_mean": 0.0, "correlation_variance": 1.0},
                **{"pos_x": x, "pos_y": y, **middle},
                **{f"{name}_angstrom": p * PIXEL_SIZE for name, p in middle.items()},
                **dict(zip(("phi", "theta", "psi"), angles, strict=True)),
                **{"relative_defocus": 0.0, "defocus_u": 4000.0, "defocus_v": 4000.0},
                **{"astigmatism_angle": 0.0, "pixel_size": PIXEL_SIZE, "voltage": 300.0},
                **{"refined_pixel_size": PIXEL_SIZE, "spherical_aberration": 2.7},
                **{"amplitude_contrast_ratio": 0.07, "phase_shift": 0.0},
                "ctf_B_factor": 0.0,
                "micrograph_path": "micrograph.mrc",
                "template_path": "template.mrc",
                **{f"{name}_path": "mean.mrc" for name in _MAPS},
                "correlation_average_path": "mean.mrc",
                "correlation_variance_path": "deviation.mrc",
                **{"even_zernikes": "", "odd_zernikes": "", "mag_matrix": ""},
            }
        )
    made = sim.simulate_micrograph(
        imaged, particles, (SIZE, SIZE), pixel_size, sim.Microscope(), rng
    )
    write_image(folder / "micrograph.mrc", made.image, PIXEL_SIZE)
    maps = np.zeros((SIZE - SIDE + 1,) * 2, np.float32)
    write_image(folder / "mean.mrc", maps, PIXEL_SIZE)
    write_image(folder / "deviation.mrc", maps + 1, PIXEL_SIZE)
    pd.DataFrame(rows).to_csv(folder / "picks.csv")
    return pixel_size


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer", required=True, help="Python with Leopard-EM")
    parser.add_argument("--sets", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| set | true | calibrate | error | time | optimize_template | error | time |")
    print("|---" * 8 + "|")
    errors, times = [], []
    runner = Path(__file__).with_name("run_peer_optimize.py")
    for number in range(options.sets):
        folder = options.folder.absolute() / f"set_{number}"
        folder.mkdir(parents=True, exist_ok=True)
        true = make_set(folder, np.random.default_rng([options.seed, number]))
        plain, more = folder / "optimize.yaml", folder / "calibrate.yaml"
        # The peer's simulator multiplies B factors by 1/4: this undoes it.
        simulator = CONFIG["simulator"] | {"b_factor_scaling": 4.0}
        plain.write_text(yaml.safe_dump(CONFIG | {"simulator": simulator}))
        calibrate = {"parameters": ["pixel_size", "defocus"], "held_out": False}
        ours = CONFIG | {"statistics": "standard_deviation", "calibrate": calibrate}
        more.write_text(yaml.safe_dump(ours))
        began = time.perf_counter()
        if jaxrefine(["calibrate", str(more), "--fresh", "--overwrite", "-q"]):
            raise SystemExit("calibrate has failed")
        seconds = time.perf_counter() - began
        found = yaml.safe_load((folder / "picks_calibration.yaml").read_text())
        value = found["parameters"][0]["values"]["pixel_size"]
        (folder / "all_results.csv").unlink(missing_ok=True)  # it appends
        command = [options.peer, str(runner), str(folder)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        peer = json.loads(ran.stdout.splitlines()[-1])
        ours_off, peers_off = value["value"] - true, peer["pixel_size"] - true
        errors.append((ours_off, peers_off, ours_off / value["standard_error"]))
        times.append((seconds, peer["seconds"]))
        print(
            f"| {number} | {true:.4f} Å | {value['value']:.4f} ± "
            f"{value['standard_error']:.4f} Å | {ours_off:+.4f} Å | {seconds:.0f} s "
            f"| {peer['pixel_size']:.3f} Å ({peer['tried']} tried) | {peers_off:+.4f} Å "
            f"| {peer['seconds']:.0f} s |",
            flush=True,
        )
    ours_off, peers_off, relative = np.sqrt(np.mean(np.square(errors), axis=0))
    print(
        f"RMS error: calibrate {ours_off:.4f} Å ({relative:.1f} standard errors), "
        f"optimize_template {peers_off:.4f} Å; mean times {np.mean(times, axis=0)} s"
    )


if __name__ == "__main__":
    main()
