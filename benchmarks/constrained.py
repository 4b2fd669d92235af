"""Partners that a constrained search finds, misses, or reports falsely.

    python benchmarks/constrained.py [--micrographs 5] [--references 20] [--snr 25 16 12]

Simulated micrographs of references, half of them with a partner of an eighth of their mass,
rotated by up to 8° and tilted by up to 4°. `ideal SNR` is that of a matched filter for the
partner; `by SNR` uses `refined_snr` instead of the z-score. `as Leopard-EM` is `reproduce:
leopard_em`, which gives the numbers of Leopard-EM 1.2 (`benchmarks/constrained_parity.py`).
`partner's frame` searches a template with the partner in its centre, in a smaller box.
`turned away` searches a range of psi without a partner, `elsewhere` places without a
particle. `without reference` names the reference's template, so that its density is
projected out of the images.
"""

import argparse
import contextlib
import csv
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jaxrefine import simulate as sim
from jaxrefine.app.cli import main as jaxrefine
from jaxrefine.io.mrc import write_volume
from tests import partners

SHAPE = (448, 448)
SMALL_SIDE, SMALL_BOX = 32, 40
# Standard deviations from this many orientations have an error of 3 %; from fewer, z-scores
# have wide tails.
N_STATISTICS = 600
PAIR_SEED = 7
CASES = (
    "default",
    "without reference",
    "as Leopard-EM",
    "partner's frame",
    "turned away",
    "turned away, without reference",
    "elsewhere",
    "elsewhere, without reference",
)
CONFIG = {
    "template_volume_path": "partner.mrc",
    "particle_stack_reference": {
        "df_path": "references.csv",
        "extracted_box_size": [partners.BOX] * 2,
        "original_template_size": [partners.SIDE] * 2,
    },
    "particle_stack_constrained": {
        "df_path": "partners.csv",
        "extracted_box_size": [partners.BOX] * 2,
        "original_template_size": [partners.SIDE] * 2,
    },
    "center_vector": list(partners.CENTER_VECTOR),
    "orientation_refinement_config": {
        "rotation_axis_euler_angles": list(partners.AXIS_EULER_DEG),
        **{"psi_min": -8.0, "psi_max": 8.0, "psi_step": 2.0},
        **{"theta_min": -4.0, "theta_max": 4.0, "theta_step": 2.0},
        **{"phi_min": 0.0, "phi_max": 0.0},
    },
    "computational_config": {"gpu_ids": "cpu"},
}


def make(folder: Path, snr: float, micrographs: int, references: int) -> list[dict]:
    """All micrographs and tables for one strength; returns the truth of each row."""
    pair = partners.make_pair(np.random.default_rng(PAIR_SEED))
    rng = np.random.default_rng(int(10 * snr))
    truth, tables = [], {"references": [], "partners": [], "small": [], "elsewhere": []}
    for number in range(micrographs):
        name = f"m{number}"
        rows = partners.make_set(
            folder,
            pair,
            rng,
            shape=SHAPE,
            n_references=references,
            share_with_partner=0.5,
            n_statistics=N_STATISTICS,
            reference_snr=snr,
            name=name,
        )
        partners.write_partner(folder, pair)
        partners.unpack(folder, folder, name)
        small_maps(folder, pair, rng, name)
        truth += rows
        for table in ("references", "partners"):
            with open(folder / f"{name}_{table}.csv", newline="") as file:
                tables[table] += csv.DictReader(file)
        tables["elsewhere"] += moved_away(tables["references"][-references:], rows, rng)
    tables["small"] = [
        row
        | {
            f"correlation_{kind}_path": row[f"correlation_{kind}_path"].replace(
                "_correlation", "_small"
            )
            for kind in ("average", "variance")
        }
        for row in tables["partners"]
    ]
    for table, rows in tables.items():
        pd.DataFrame(rows).to_csv(folder / f"{table}.csv", index=False)
    alone = pair.partner
    centred = alone.positions_angstrom - np.asarray(partners.CENTER_VECTOR)
    alone = sim.Atoms(centred, alone.weights, alone.b_factor_angstrom2)
    volume = sim.potential_volume(alone, SMALL_SIDE, partners.PIXEL_SIZE_ANGSTROM)
    write_volume(folder / "small.mrc", volume, partners.PIXEL_SIZE_ANGSTROM)
    volume = sim.potential_volume(
        pair.reference, partners.SIDE, partners.PIXEL_SIZE_ANGSTROM
    )
    write_volume(folder / "reference.mrc", volume, partners.PIXEL_SIZE_ANGSTROM)
    return truth


def small_maps(folder: Path, pair, rng: np.random.Generator, name: str) -> None:
    """Statistic maps for the smaller template, made from those of the larger one.

    They differ mainly by the corner to which positions refer.
    """
    from jaxrefine.io.mrc import read_image, write_image

    off = (partners.SIDE - SMALL_SIDE) // 2
    for kind in ("average", "variance"):
        large = read_image(folder / f"{name}_correlation_{kind}.mrc")
        wide = np.pad(large, off, mode="edge")
        write_image(folder / f"{name}_small_{kind}.mrc", wide, partners.PIXEL_SIZE_ANGSTROM)


def moved_away(rows: list[dict], truth: list[dict], rng: np.random.Generator) -> list[dict]:
    """The same rows at positions as far from all particles as possible."""
    centres = np.array([(row["centre_y"], row["centre_x"]) for row in truth])
    side = partners.SIDE
    trial = rng.uniform(side // 2 + 8, np.array(SHAPE) - side // 2 - 8, (4000, 2))
    distance = np.linalg.norm(trial[:, None] - centres[None], axis=-1).min(axis=1)
    best = trial[np.argsort(-distance)[: 20 * len(rows) : 20]]
    out = []
    for row, (y, x) in zip(rows, best, strict=True):
        corner = {"y": int(y) - side // 2, "x": int(x) - side // 2}
        places = {f"pos_{axis}": value for axis, value in corner.items()}
        out.append(row | places | {f"refined_{k}": v for k, v in places.items()})
    return out


def search(folder: Path, case: str) -> tuple[pd.DataFrame, dict, float]:
    """Table of one search, the numbers behind its threshold, and its time."""
    config = json.loads(json.dumps(CONFIG))
    if case == "as Leopard-EM":
        config["reproduce"] = "leopard_em"
    if case.endswith("without reference"):
        config["reference_template_volume_path"] = "reference.mrc"
    if case.startswith("turned away"):
        config["orientation_refinement_config"] |= {"psi_min": 92.0, "psi_max": 108.0}
    if case.startswith("elsewhere"):
        config["particle_stack_reference"]["df_path"] = "elsewhere.csv"
    if case == "partner's frame":
        config |= {"template_frame": "partner", "template_volume_path": "small.mrc"}
        config["particle_stack_constrained"] |= {
            "df_path": "small.csv",
            "extracted_box_size": [SMALL_BOX] * 2,
            "original_template_size": [SMALL_SIDE] * 2,
        }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        code = jaxrefine(["constrained", "config.yaml", "--output", "out.csv", "-q"])
    if code:
        raise SystemExit(f"{case}: exit code {code}")
    seconds = time.perf_counter() - started
    parameters = pd.read_csv(folder / "out_parameters.csv").iloc[0].to_dict()
    return pd.read_csv(folder / "out.csv"), parameters, seconds


def turn_errors(table: pd.DataFrame, truth: list[dict]) -> np.ndarray:
    """Angle in degrees between the found and the true orientation of each partner."""
    errors = []
    for (_, row), true in zip(table.iterrows(), truth, strict=True):
        reference = sim.matrix_from_euler(true["phi"], true["theta"], true["psi"])
        offset = partners.partner_offset(true["offset_theta"], true["offset_psi"])
        angles = (row.refined_phi, row.refined_theta, row.refined_psi)
        found = sim.matrix_from_euler(*angles)
        errors.append(sim.angle_between_deg(found, offset @ reference))
    return np.array(errors)


def partner_share() -> float:
    """Mean ratio of the ideal SNR of partner and reference."""
    pair = partners.make_pair(np.random.default_rng(PAIR_SEED))
    power = partners.NOISE.power_rfft(SHAPE)
    found = []
    for rotation in sim.random_rotations(12, np.random.default_rng(0)):
        at = sim.SimulatedParticle(
            rotation, (224.0, 224.0), partners.DEFOCUS_ANGSTROM, partners.ASTIGMATISM_DEG
        )
        optics = (SHAPE, partners.PIXEL_SIZE_ANGSTROM, partners.MICROSCOPE)
        partner, reference = (
            sim.ideal_snr(sim.particle_rfft(atoms, at, *optics), power, SHAPE[1])
            for atoms in (pair.partner, pair.reference)
        )
        found.append(partner / reference)
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--micrographs", type=int, default=5)
    parser.add_argument("--references", type=int, default=20)
    parser.add_argument("--snr", type=float, nargs="+", default=[25.0, 16.0, 12.0])
    options = parser.parse_args()
    heads = ("ideal SNR", "search", "threshold", "found", "false", "by SNR: found", "false")
    heads += (
        "false, partner elsewhere",
        "z there",
        "z not there",
        "p < 0.05 not there",
        "error (°)",
        "s",
    )
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    share = partner_share()
    for snr in options.snr:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            truth = make(folder, snr, options.micrographs, options.references)
            there = np.array([row["partner"] for row in truth]) == 1
            os.chdir(folder)
            for case in CASES:
                table, parameters, seconds = search(folder, case)
                z, found = table.refined_scaled_mip, table.partner_found == 1
                absent = ~there | case.startswith(("turned away", "elsewhere"))
                present = there & ~absent
                by_snr = table.refined_snr > parameters["threshold"]
                error = turn_errors(table, truth)[present & found]
                cells = [
                    f"{snr * share:.1f}",
                    case,
                    f"{parameters['threshold']:.2f}",
                    f"{(found & present).sum()} of {present.sum()}",
                    f"{(found & absent).sum()} of {absent.sum()}",
                    f"{(by_snr & present).sum()}",
                    f"{(by_snr & absent).sum()}",
                    f"{(found & absent & there).sum()}",
                    f"{z[present].mean():.2f}" if present.any() else "",
                    f"{z[absent].mean():.2f}",
                    f"{(table.partner_p_value[absent] < 0.05).mean():.2f}",
                    f"{np.median(error):.1f}" if len(error) else "",
                    f"{seconds:.0f}",
                ]
                print(f"| {' | '.join(cells)} |", flush=True)
            os.chdir("/")


if __name__ == "__main__":
    main()
