"""Time of the polish, compared with the exhaustive search of the documented grid.

python benchmarks/polish_time.py
python benchmarks/polish_time.py --parts
"""

import argparse
import time
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from adaptive import documented_grid
from simulated import large_structure, make_case, structures

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.refine.coordinates import offsets_from
from jaxrefine.refine.information import information_in_rings, pose_rows
from jaxrefine.refine.near_score import near_z_score
from jaxrefine.refine.pose_errors import observed_or_expected

DEFOCUS_ANGSTROM = 6000.0


def seconds(function, repeats: int) -> tuple[object, float]:
    """Result of a function, and the median time of its runs except the first."""
    found, taken = jax.block_until_ready(function()), []
    for _ in range(repeats):
        began = time.perf_counter()
        found = jax.block_until_ready(function())
        taken.append(time.perf_counter() - began)
    return found, float(np.median(taken))


def parts(particles, refined, template, score) -> None:
    """Processor time of the parts of the polish of the first particle."""
    parameters = jr.Polish().parameters
    one = jax.tree.map(lambda leaf: leaf[0], (particles, refined))
    particle = jax.jit(lambda p, r: jr.recentred(p, r, score))(*one)
    start = jnp.zeros(6)

    def z(coordinates, particle, template):
        offsets = offsets_from(coordinates, parameters, particle.alignment)
        return jr.z_score(offsets, particle, template, score)

    def rows(particle, template):
        return pose_rows(start, particle, template, score, parameters)

    norm = jax.jit(rows)(particle, template)[1]

    def near(particle, template):
        return near_z_score(particle, template, score, parameters, norm)

    def rings(particle, template):
        return information_in_rings(rows(particle, template)[0], score.padded_box)

    expected = jax.jit(rings)(particle, template).total
    each = {
        "exact score": lambda p, t: z(start, p, t),
        "evaluation with its gradient": lambda p, t: jax.value_and_grad(near(p, t))(start),
        "exact score, slopes and information in rings at the start": lambda p, t: (
            rings(p, t),
            rows(p, t)[1],
        ),
        "observed curvature": lambda p, t: observed_or_expected(
            near(p, t), start, expected
        ),
    }
    for name, function in each.items():
        compiled = jax.jit(function)
        jax.block_until_ready(compiled(particle, template))
        taken = []
        for _ in range(5):
            began = time.process_time()
            jax.block_until_ready(compiled(particle, template))
            taken.append(time.process_time() - began)
        print(f"| {name} | {1e3 * min(taken):.0f} ms |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--particles", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--largest", type=int, default=256, help="side in px")
    parser.add_argument(
        "--parts", action="store_true", help="only the polish's parts, at 256 px"
    )
    options = parser.parse_args()
    grid = documented_grid()
    print(
        "| | search, s a particle | polish, s a particle | share "
        "| evaluations: mean, most |\n|---|---|---|---|---|"
    )
    for structure in [*structures(), large_structure()]:
        if structure.side > options.largest or (options.parts and structure.side < 256):
            continue
        rng = np.random.default_rng(1)
        particles = make_case(structure, DEFOCUS_ANGSTROM, options.particles, rng).particles
        volume = sim.potential_volume(structure.atoms, structure.side, structure.pixel_size)
        # As in the program: search with padded slices, polish with cubic ones.
        padded, cubic = (jr.make_template(volume, name) for name in ("padded", "cubic"))
        search = partial(jr.refine_particles, particles, padded, grid, structure.score)
        refined, searched = seconds(search, options.repeats)
        if options.parts:
            parts(particles, replace(refined, orientation_z=None), cubic, structure.score)
            continue
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
