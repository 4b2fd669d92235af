"""B factors that differ between micrographs: one for all, or one for each.

Micrographs whose particles fall off by different B factors; the table says 0. A refinement
estimates one additional B for all of them. `calibrate` then fits a B for each micrograph,
from the refined table, and the particles are refined once more with these.

    python benchmarks/envelope_per_micrograph.py FOLDER [--table TABLE.md]
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from jaxrefine import simulate as sim
from jaxrefine.app.cli import main as jaxrefine
from jaxrefine.io.mrc import write_image, write_volume
from jaxrefine.physics.rotations import euler_to_matrix

SIDE, PIXEL_SIZE, SPACING, SNR = 40, 1.5, 80, 14.0
B_ANGSTROM2 = (0.0, 60.0, 120.0, 180.0)
DEFOCUS = 4000.0
STATISTICS = {"statistics": "standard_deviation"}
SEARCH = {
    "orientation_refinement_config": {
        **{"psi_step_coarse": 1.5, "psi_step_fine": 1.0},
        **{"theta_step_coarse": 2.5, "theta_step_fine": 1.5},
    },
    "defocus_refinement_config": {
        **{"defocus_min": -150.0, "defocus_max": 150.0, "defocus_step": 50.0}
    },
    "polish": {"enabled": True},
}


def simulate(folder: Path, across: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Micrographs, a table as from a match, and the true rotations."""
    atoms = sim.random_globule(300, 21.0, rng).blurred(20.0)
    size = across * SPACING
    places = np.indices((across, across)).reshape(2, -1).T * SPACING + (SPACING - SIDE) // 2
    truth, rows = [], []
    for number, b in enumerate(B_ANGSTROM2):
        particles = []
        for place in places:
            rotation = sim.random_rotations(1, rng)[0]
            truth.append(rotation)
            centre = place + SIDE // 2 + rng.uniform(-0.4, 0.4, 2)
            at = (DEFOCUS + rng.normal(0, 40),) * 2
            particles.append(sim.SimulatedParticle(rotation, tuple(centre), at, 0.0, SNR))
            phi, theta, psi = sim.euler_from_matrix(
                sim.perturbed_rotation(rotation, rng, 1.5, 1.0)
            )
            rows.append(
                {
                    **{"particle_index": len(rows), "pos_x": place[1], "pos_y": place[0]},
                    **{"phi": phi, "theta": theta, "psi": psi},
                    **{"relative_defocus": 0.0, "defocus_u": DEFOCUS, "defocus_v": DEFOCUS},
                    **{"astigmatism_angle": 0.0, "pixel_size": PIXEL_SIZE},
                    **{"voltage": 300.0, "spherical_aberration": 2.7},
                    **{"amplitude_contrast_ratio": 0.07, "phase_shift": 0.0},
                    "ctf_B_factor": 0.0,
                    "micrograph_path": f"micrograph_{number}.mrc",
                    "correlation_average_path": "mean.mrc",
                    "correlation_variance_path": "deviation.mrc",
                }
            )
        microscope = sim.Microscope(b_factor_angstrom2=b)
        made = sim.simulate_micrograph(
            atoms, particles, (size, size), PIXEL_SIZE, microscope, rng
        )
        write_image(folder / f"micrograph_{number}.mrc", made.image, PIXEL_SIZE)
    maps = np.zeros((size - SIDE + 1,) * 2, np.float32)
    write_image(folder / "mean.mrc", maps, PIXEL_SIZE)
    write_image(folder / "deviation.mrc", maps + 1, PIXEL_SIZE)
    volume = sim.potential_volume(atoms, SIDE, PIXEL_SIZE)
    write_volume(folder / "template.mrc", volume, PIXEL_SIZE)
    pd.DataFrame(rows).to_csv(folder / "picks.csv", index=False)
    return truth


def run(folder: Path, command: str, table: str, **keys: object) -> None:
    config = {
        "template_volume_path": "template.mrc",
        "particle_stack": {
            "df_path": table,
            "extracted_box_size": [SIDE + 8, SIDE + 8],
            "original_template_size": [SIDE, SIDE],
        },
        **STATISTICS,
        **keys,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if jaxrefine([command, str(folder / "config.yaml"), "-q"]):
        raise SystemExit(f"{command} {table} has failed")


def line(name: str, table: pd.DataFrame, truth: list[np.ndarray]) -> str:
    euler = table[["refined_phi", "refined_theta", "refined_psi"]].to_numpy()
    cosine = [
        (np.trace(euler_to_matrix(e) @ t.T) - 1) / 2
        for e, t in zip(euler, truth, strict=True)
    ]
    angle = np.rad2deg(np.arccos(np.clip(cosine, -1, 1))).mean()
    used = table.ctf_B_factor
    if "template_envelope_b" in table:
        used = used + table.template_envelope_b
    b = ", ".join(f"{v:.0f}" for v in used.groupby(table.micrograph_path).mean())
    z = table.refined_scaled_mip.mean()
    expected = table.refined_scaled_mip_expected.mean()
    return f"| {name} | {b} | {z:.2f} | {expected:.2f} | {angle:.2f}° |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--across", type=int, default=6, help="particles along an edge")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, help="write the table here as well")
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    truth = simulate(folder, options.across, np.random.default_rng(options.seed))
    lines = [
        f"B of the micrographs: {', '.join(f'{b:.0f}' for b in B_ANGSTROM2)} Å²",
        "",
        "| refined with | B used, Å² | z | expected in other data | mean angle |",
        "|---|---|---|---|---|",
    ]
    for name, output, envelope in (
        ("the table's B, 0", "none.csv", "none"),
        ("one estimate for all", "auto.csv", "auto"),
    ):
        more = SEARCH | {"template_envelope": envelope, "output_path": str(folder / output)}
        run(folder, "refine", "picks.csv", **more)
        lines.append(line(name, pd.read_csv(folder / output), truth))
    fit = {"parameters": ["b_factor"], "groups": {"b_factor": "micrograph_path"}}
    run(folder, "calibrate", "auto.csv", calibrate=fit)
    more = SEARCH | {"template_envelope": "auto", "output_path": str(folder / "each.csv")}
    run(folder, "refine", "auto_calibrated.csv", **more)
    lines.append(line("one for each", pd.read_csv(folder / "each.csv"), truth))
    found = yaml.safe_load((folder / "auto_calibration.yaml").read_text())
    lines.append("")
    for entry in found["parameters"]:
        one = entry["values"]["b_factor"]
        value, sigma = one["value"], one["standard_error"]
        lines.append(
            f"{entry['group']}: {value:.0f} ± {sigma:.0f} Å², p = {entry['p_value']:.1g}"
        )
    text = "\n".join(lines)
    print(text)
    if options.table:
        options.table.write_text(text + "\n")


if __name__ == "__main__":
    main()
