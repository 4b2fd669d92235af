"""Our constrained search compared with Leopard-EM 1.2's frozen output and the truth.

    python benchmarks/constrained_parity.py

The data were made and searched by `tests/oracles/freeze_constrained.py`.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jaxrefine.app.cli import main as jaxrefine
from jaxrefine.physics.rotations import angle_between_deg, euler_to_matrix
from tests import partners

PEER = Path(__file__).resolve().parents[1] / "tests" / "data" / "peer" / "constrained"
CASES = ("uniform", "roll", "roll_search", "defocus")
ANGLES = ["refined_phi", "refined_theta", "refined_psi"]


def matrices(table: pd.DataFrame) -> np.ndarray:
    return euler_to_matrix(table[ANGLES].to_numpy())


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        partners.unpack(PEER, folder)
        for path in (*PEER.glob("micrograph*.csv"), *PEER.glob("*.yaml")):
            shutil.copy(path, folder)
        os.chdir(folder)
        references = pd.read_csv("micrograph_references.csv")
        heads = ("case", "dz", "poses that differ", "degrees", "px", "px as it writes them")
        heads += ("Å of defocus", "found, theirs and ours", "thresholds")
        print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        for case in CASES:
            text = (folder / f"{case}.yaml").read_text(encoding="utf-8")
            (folder / f"{case}.yaml").write_text(f"reproduce: leopard_em\n{text}")
            jaxrefine(["constrained", f"{case}.yaml", "-q", "--output", f"{case}.csv"])
            ours, theirs = (
                pd.read_csv(path) for path in (f"{case}.csv", PEER / f"{case}_peer.csv")
            )
            between = angle_between_deg(matrices(ours), matrices(theirs))
            corner = ["refined_pos_y", "refined_pos_x"]
            slip = references[corner].to_numpy() - references[["pos_y", "pos_x"]].to_numpy()
            apart = np.abs(ours[corner] - theirs[corner] - slip).to_numpy().max()
            written = np.abs(ours[corner] - theirs[corner]).to_numpy().max()
            defocus = ours.refined_relative_defocus - theirs.refined_relative_defocus
            thresholds = [
                pd.read_csv(path).threshold[0]
                for path in (f"{case}_parameters.csv", PEER / f"{case}_peer_parameters.csv")
            ]
            found = (theirs.refined_scaled_mip > thresholds[1]).sum()
            cells = [
                case,
                f"{np.abs(ours.refined_scaled_mip - theirs.refined_scaled_mip).max():.1e}",
                f"{(between > 0.01).sum()} of {len(ours)}",
                f"{between.max():.1e}",
                f"{apart:g}",
                f"{written:g}",
                f"{np.abs(defocus).max():.1e}",
                f"{found}, {ours.partner_found.sum()}",
                f"{thresholds[0]:.4f}, {thresholds[1]:.4f}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
