"""Time of the polish, compared with the exhaustive search of the documented grid.

python benchmarks/polish_time.py
"""

import argparse
import time
from functools import partial

import jax
import numpy as np
from adaptive import documented_grid
from simulated import large_structure, make_case, structures

import jaxrefine as jr
from jaxrefine import simulate as sim

DEFOCUS_ANGSTROM = 6000.0


def seconds(function, repeats: int) -> tuple[object, float]:
    """Result of a function, and the median time of its runs except the first."""
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
        "| | search, s a particle | polish, s a particle | share "
        "| evaluations: mean, most |\n|---|---|---|---|---|"
    )
    for structure in [*structures(), large_structure()]:
        if structure.side > options.largest:
            continue
        rng = np.random.default_rng(1)
        particles = make_case(structure, DEFOCUS_ANGSTROM, options.particles, rng).particles
        volume = sim.potential_volume(structure.atoms, structure.side, structure.pixel_size)
        # As in the program: search with padded slices, polish with cubic ones.
        padded, cubic = (jr.make_template(volume, name) for name in ("padded", "cubic"))
        search = partial(jr.refine_particles, particles, padded, grid, structure.score)
        refined, searched = seconds(search, options.repeats)
        others = (cubic, grid, structure.score)
        polish = partial(jr.polish_particles, particles, refined, *others)
        found, polished = seconds(polish, options.repeats)
        print(
            f"| {structure.name} | {searched / options.particles:.3f} "
            f"| {polished / options.particles:.3f} | {polished / searched:.0%} "
            f"| {np.mean(found.evaluations):.1f}, {np.max(found.evaluations)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
