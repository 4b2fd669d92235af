"""What the polish costs, beside the exhaustive search of the documented grid.

python benchmarks/polish_time.py
"""

import argparse
import time

import jax
import numpy as np
from adaptive import documented_grid, larger
from calibration import make_case, structures

import jaxrefine as jr
from jaxrefine.app import simulate as sim

DEFOCUS_ANGSTROM = 6000.0


def seconds(function, repeats: int) -> tuple[object, float]:
    """What a function returns, and the median time of its runs but the first."""
    found, taken = jax.block_until_ready(function()), []
    for _ in range(repeats):
        began = time.perf_counter()
        found = jax.block_until_ready(function())
        taken.append(time.perf_counter() - began)
    return found, float(np.median(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--particles", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--largest", type=int, default=256, help="side in px")
    options = parser.parse_args()
    grid = documented_grid()
    print(
        "| | sampling | search, s a particle | polish, s a particle | share "
        "| evaluations: mean, most |\n|---|---|---|---|---|---|"
    )
    for structure in structures() + larger():
        if structure.side > options.largest:
            continue
        rng = np.random.default_rng(1)
        case = make_case(structure, DEFOCUS_ANGSTROM, options.particles, rng)
        volume = sim.potential_volume(structure.atoms, structure.side, structure.pixel_size)
        for sampling in ("padded", "cubic"):
            template = jr.make_template(volume, sampling)
            fixed = (template, grid, structure.score)

            def search(fixed=fixed, case=case):
                return jr.refine_particles(case.particles, *fixed)

            refined, searched = seconds(search, options.repeats)

            def polish(fixed=fixed, case=case, refined=refined):
                return jr.polish_particles(case.particles, refined, *fixed)

            found, polished = seconds(polish, options.repeats)
            print(
                f"| {structure.name} | {sampling} | {searched / options.particles:.3f} "
                f"| {polished / options.particles:.3f} | {polished / searched:.0%} "
                f"| {np.mean(found.evaluations):.1f}, {np.max(found.evaluations)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
