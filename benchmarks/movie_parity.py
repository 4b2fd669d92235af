"""Refinement from movies beside that from the micrograph, ours and the peer's.

Makes movies of the micrograph of the reference set `basic`, whose frames are the micrograph
itself, moved by nothing, by less than half a pixel, or by up to 4 px, with the shifts that
undo it; and refines from the micrograph and from each movie, with `apply_global_filtering`
true and false. The z-scores should be those from the micrograph.

    python benchmarks/movie_parity.py FOLDER

writes the data set into FOLDER, refines with `reproduce: leopard_em` and with defaults, and
prints a table. Of Leopard-EM's own results, which

    python benchmarks/run_peer.py FOLDER/basic --yaml still_false.yaml \\
        --output peer_still_false.csv

and the same for other names write (in the peer's environment), those found are added.
"""

import argparse
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import yaml

from jaxrefine.app.cli import main as jaxrefine

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.reference import reference_set

FRAMES = 5
MOVES_PX = {"still": 0.0, "near": 0.45, "far": 4.0}


def moved(image: np.ndarray, y: float, x: float) -> np.ndarray:
    ky, kx = np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])
    turn = np.exp(-2j * np.pi * (ky * y + kx * x))
    return np.fft.irfft2(np.fft.rfft2(image) * turn, s=image.shape).astype(np.float32)


def make_runs(folder: Path) -> list[str]:
    """Write movies, shifts and configurations; return the names of the latter."""
    image = mrcfile.read(folder / "micrograph.mrc").astype(np.float32)
    table = pd.read_csv(folder / "match_results.csv")
    base = yaml.safe_load((folder / "refine.yaml").read_text())
    rng, names = np.random.default_rng(0), []
    for name, reach in {"micrograph": None, **MOVES_PX}.items():
        if reach is not None:
            move = rng.uniform(-reach, reach, (FRAMES, 2)).round(3)
            frames = np.stack([moved(image, *-each) for each in move])
            mrcfile.write(folder / f"{name}_movie.mrc", frames, overwrite=True)
            pd.DataFrame(
                [(i, t, *move[t]) for i in table.particle_index for t in range(FRAMES)],
                columns=["particle_index", "frame", "y_shift", "x_shift"],
            ).to_csv(folder / f"{name}_shifts.csv", index=False)
        for filtering in (True, False):
            data = base | {"apply_global_filtering": filtering}
            if reach is not None:
                data["movie_config"] = {
                    "enabled": True,
                    "movie_path": f"{name}_movie.mrc",
                    "deformation_field_path": "",
                    "particle_shifts_path": f"{name}_shifts.csv",
                    "pre_exposure": 0.0,
                    "fluence_per_frame": 0.0,
                }
            names.append(f"{name}_{str(filtering).lower()}")
            (folder / f"{names[-1]}.yaml").write_text(yaml.safe_dump(data))
    return names


def scores(path: Path) -> str:
    """z of the first particle, and the mean of the six that are none of noise."""
    if not path.exists():
        return "-"
    z = pd.read_csv(path).refined_scaled_mip
    return f"{z[0]:.3f} ({z[:6].mean():.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    if not (folder / "basic").exists():
        folder.mkdir(exist_ok=True)
        reference_set("basic", folder)
    folder = folder / "basic"
    rows = []
    for name in make_runs(folder):
        data = yaml.safe_load((folder / f"{name}.yaml").read_text())
        for kind, more in (("reproduced", {"reproduce": "leopard_em"}), ("ours", {})):
            path = folder / f"{kind}_{name}.yaml"
            path.write_text(yaml.safe_dump(data | more))
            words = [str(path), "--output", str(folder / f"{kind}_{name}.csv"), "--fresh"]
            jaxrefine([*words, "--quiet"])
        cells = [
            scores(folder / f"{kind}_{name}.csv") for kind in ("peer", "reproduced", "ours")
        ]
        movie, _, filtering = name.rpartition("_")
        rows.append(f"| {movie} | {filtering} | {' | '.join(cells)} |")
    print("| frames | apply_global_filtering | Leopard-EM | reproduced | ours |")
    print("|---|---|---|---|---|\n" + "\n".join(rows))


if __name__ == "__main__":
    main()
