"""True errors on the reference sets: Leopard-EM, best grid point, and polish.

python benchmarks/truth.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

import jaxrefine as jr

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.reference import reference_set  # noqa: E402

SAME_PARTICLE_PX = 20.0


def rotations(table: pd.DataFrame, prefix: str) -> np.ndarray:
    """(n, 3, 3): rotation matrices from three columns of Euler angles."""
    angles = [f"{prefix}{name}" for name in ("phi", "theta", "psi")]
    return np.asarray(jr.euler_to_matrix(table[angles].to_numpy()))


def mean_errors(rows: pd.DataFrame, truth: pd.DataFrame, prefix: str) -> list[float]:
    """Mean errors of angle (degrees), position (px) and defocus (Å), by column prefix."""
    turn = np.swapaxes(rotations(truth, ""), 1, 2) @ rotations(rows, prefix)
    cosine = (np.trace(turn, axis1=1, axis2=2) - 1) / 2
    shift = 0.0
    if prefix == "refined_" and "refined_shift_y" in rows:
        shift = rows[["refined_shift_y", "refined_shift_x"]].to_numpy()
    places = rows[[f"{prefix}pos_y", f"{prefix}pos_x"]].to_numpy() + shift
    distance = np.linalg.norm(places - truth[["pos_y", "pos_x"]].to_numpy(), axis=1)
    # As arrays, since pandas would align rows by index instead of by particle.
    defocus = (
        rows[f"{prefix}relative_defocus"].to_numpy() - truth["relative_defocus"].to_numpy()
    )
    angle = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
    return [float(np.mean(values)) for values in (angle, distance, np.abs(defocus))]


def refine(folder: Path, **changes) -> pd.DataFrame:
    """Our table of a data set, with some configuration keys changed."""
    config = yaml.safe_load((folder / "refine.yaml").read_text(encoding="utf-8"))
    path, output = folder / "ours.yaml", folder / "ours.csv"
    path.write_text(yaml.safe_dump({**config, **changes}), encoding="utf-8")
    command = [sys.executable, "-m", "jaxrefine", path, "--output", output, "-q"]
    subprocess.run(command, check=True, cwd=folder)
    return pd.read_csv(output)


def main() -> None:
    print("| | particles | angle | position | defocus |\n|---|---|---|---|---|")
    for name in ("basic", "two_micrographs"):
        with tempfile.TemporaryDirectory() as scratch:
            folder = reference_set(name, Path(scratch))
            truth = pd.read_csv(folder / "truth.csv")
            peer = pd.read_csv(folder / "refined.csv")
            tables = {
                "match_template": (peer, ""),
                "Leopard-EM 1.2, refined": (peer, "refined_"),
            }
            free = refine(folder, polish={"enabled": True})
            bound = refine(folder, polish={"enabled": True, "bound_to_cell": True})
            tables["jaxrefine, grid"] = (free, "grid_")
            tables["jaxrefine, polished within the grid's cell"] = (bound, "refined_")
            tables["jaxrefine, polished"] = (free, "refined_")
        # Match each row to the nearest planted particle, and omit particles without a row.
        apart = np.linalg.norm(
            peer[["pos_y", "pos_x"]].to_numpy()[:, None]
            - truth[["pos_y", "pos_x"]].to_numpy(),
            axis=-1,
        )
        apart[
            peer.micrograph_path.to_numpy()[:, None] != truth.micrograph_path.to_numpy()
        ] = np.inf
        rows = np.flatnonzero(apart.min(axis=1) < SAME_PARTICLE_PX)
        simulated = truth.iloc[apart[rows].argmin(axis=1)]
        for label, (table, prefix) in tables.items():
            angle, position, defocus = mean_errors(table.iloc[rows], simulated, prefix)
            print(
                f"| {name}: {label} | {len(rows)} | {angle:.2f}° | {position:.2f} px "
                f"| {defocus:.0f} Å |",
                flush=True,
            )


if __name__ == "__main__":
    main()
