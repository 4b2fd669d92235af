"""How much of the 2DTM SNR a calibration brings back, from micrographs to table.

Simulated micrographs have an anisotropic magnification of 1 %, a beam tilt of 0.7 mrad, a
stage tilt of 20° and a pixel size that is 0.5 % off; the particle table knows none of it.
`jaxrefine calibrate` fits all of them. The ideal is the SNR with the true microscope and
the true defocus of each particle in the table, poses refined in the same way.

    python benchmarks/calibrate_recovery.py FOLDER --sets 3
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from jaxrefine import simulate as sim
from jaxrefine.app.config import Config
from jaxrefine.app.run.calibrate import calibrate
from jaxrefine.app.run.calibration import mean_z
from jaxrefine.app.run.calibration_report import calibration_data
from jaxrefine.compilation import use_compilation_cache
from jaxrefine.io.mrc import write_image, write_volume

SIDE, PIXEL_SIZE, TRUE_PIXEL_SIZE = 48, 1.5, 1.5075
STRETCH = 0.005 * np.array([np.cos(0.7), np.sin(0.7)])  # 1 % between two axes
BEAM_TILT = 0.7 * np.array([np.cos(2.1), np.sin(2.1)])
STAGE_TILT_DEG, AXIS_DEG, ICE_ANGSTROM = 20.0, 35.0, 40.0
DEFOCUS = 5000.0
MAGNIFICATION = np.array([[1 + STRETCH[0], STRETCH[1]], [STRETCH[1], 1 - STRETCH[0]]])


def make_set(
    folder: Path, micrographs: int, columns: int, rng: np.random.Generator
) -> None:
    """Write micrographs, template, and two tables: as from a match, and the truth."""
    atoms = sim.random_globule(700, 0.36 * SIDE * PIXEL_SIZE, rng).blurred(25.0)
    microscope = sim.Microscope(
        beam_tilt_mrad=tuple(BEAM_TILT),
        mag_matrix=tuple(map(tuple, MAGNIFICATION)),
        b_factor_angstrom2=20.0,
    )
    spacing = SIDE + 60
    size = columns * spacing + SIDE
    along = np.array([np.cos(np.deg2rad(AXIS_DEG)), np.sin(np.deg2rad(AXIS_DEG))])
    slope = np.tan(np.deg2rad(STAGE_TILT_DEG)) * along
    places = np.indices((columns, columns)).reshape(2, -1).T * spacing + spacing // 2
    rows, truth = [], []
    for number in range(micrographs):
        particles = []
        offset = rng.normal(0, 60)
        for place in places:
            rotation = sim.random_rotations(1, rng)[0]
            centre = place + SIDE // 2 + rng.uniform(-0.4, 0.4, 2)
            defocus = DEFOCUS + offset + slope @ (centre - size / 2) * TRUE_PIXEL_SIZE
            defocus += rng.normal(0, ICE_ANGSTROM)
            snr = rng.uniform(9.0, 16.0)
            one = sim.SimulatedParticle(rotation, tuple(centre), (defocus,) * 2, 0.0, snr)
            particles.append(one)
            perturbed = sim.perturbed_rotation(rotation, rng, 1.5, 1.0)
            row = {
                "particle_index": len(rows),
                **{"pos_x": place[1], "pos_y": place[0]},
                **dict(
                    zip(
                        ("phi", "theta", "psi"),
                        sim.euler_from_matrix(perturbed),
                        strict=True,
                    )
                ),
                **{"relative_defocus": 0.0, "defocus_u": DEFOCUS, "defocus_v": DEFOCUS},
                **{"astigmatism_angle": 0.0, "pixel_size": PIXEL_SIZE, "voltage": 300.0},
                **{"spherical_aberration": 2.7, "amplitude_contrast_ratio": 0.07},
                **{"phase_shift": 0.0, "ctf_B_factor": 20.0},
                "micrograph_path": f"micrograph_{number}.mrc",
                "correlation_average_path": "mean.mrc",
                "correlation_variance_path": "deviation.mrc",
            }
            rows.append(row)
            known = dict(
                zip(("phi", "theta", "psi"), sim.euler_from_matrix(rotation), strict=True)
            )
            known |= {"relative_defocus": defocus - DEFOCUS}
            known |= {"refined_pixel_size": TRUE_PIXEL_SIZE}
            known |= {f"beam_tilt_{a}": t for a, t in zip("xy", BEAM_TILT, strict=True)}
            known |= {"mag_matrix": json.dumps(MAGNIFICATION.ravel().tolist())}
            truth.append(row | known)
        made = sim.simulate_micrograph(
            atoms, particles, (size, size), TRUE_PIXEL_SIZE, microscope, rng
        )
        write_image(folder / f"micrograph_{number}.mrc", made.image, PIXEL_SIZE)
    pd.DataFrame(rows).to_csv(folder / "picks.csv", index=False)
    pd.DataFrame(truth).to_csv(folder / "truth.csv", index=False)
    maps = np.zeros((size - SIDE + 1,) * 2, np.float32)
    write_image(folder / "mean.mrc", maps, PIXEL_SIZE)
    write_image(folder / "deviation.mrc", maps + 1, PIXEL_SIZE)
    volume = sim.potential_volume(atoms, SIDE, PIXEL_SIZE)
    write_volume(folder / "template.mrc", volume, PIXEL_SIZE)


def config_of(folder: Path, table: str, **calibrate) -> Config:
    return Config.from_dict(
        {
            "template_volume_path": str(folder / "template.mrc"),
            "template_pixel_size": PIXEL_SIZE,
            "particle_stack": {
                "df_path": str(folder / table),
                "extracted_box_size": [SIDE + 8, SIDE + 8],
                "original_template_size": [SIDE, SIDE],
            },
            "statistics": "standard_deviation",
            "calibrate": {"defocus_sigma": 50.0, **calibrate},
        },
        source=str(folder / "config.yaml"),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", type=int, default=3)
    parser.add_argument("--micrographs", type=int, default=4)
    parser.add_argument("--columns", type=int, default=6, help="particles along a side")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    use_compilation_cache("auto")
    found = []
    print("| set | particles | start | calibrated | ideal | share | of the loss | tilt |")
    print("|---" * 8 + "|")
    for number in range(options.sets):
        folder = options.folder / f"set_{number}"
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([options.seed, number])
        make_set(folder, options.micrographs, options.columns, rng)
        made = calibrate(config_of(folder, "picks.csv"), fresh=True)
        # Poses alone, with true values in the table.
        wanted = {"parameters": ["beam_tilt"], "held_out": False, "max_passes": 15}
        truth = calibrate(config_of(folder, "truth.csv", **wanted), fresh=True)
        weight = np.ones_like(made.fit.z)
        fits = (made.before, made.fit, truth.before)
        before, after, ideal = (mean_z(replace(f, weight=weight), weight) for f in fits)
        tilts = [
            e["tilt_deg"] for e in calibration_data(made)["parameters"] if "tilt_deg" in e
        ]
        share, back = after / ideal, (after - before) / (ideal - before)
        found.append((before, after, ideal, share, back))
        print(
            f"| {number} | {len(weight)} | {before:.3f} | {after:.3f} | {ideal:.3f} "
            f"| {share:.2%} | {back:.1%} | {np.mean(tilts):.1f}° |",
            flush=True,
        )
    before, after, ideal, share, back = np.mean(found, axis=0)
    print(
        f"| mean | | {before:.3f} | {after:.3f} | {ideal:.3f} | {after / ideal:.2%} "
        f"| {(after - before) / (ideal - before):.1%} | |"
    )


if __name__ == "__main__":
    main()
