"""Results and speed of the adaptive search, compared with the exhaustive search.

Both search the documented grid around simulated particles; every particle is included.

    python benchmarks/adaptive.py --particles 50
"""

import argparse
import math
import time
from dataclasses import dataclass

import jax
import numpy as np
from simulated import DEFOCI_ANGSTROM, Structure, large_structure, make_case, structures

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.refine.layout import Layout
from jaxrefine.refine.refine import layout_for

# Goal: largest difference in z, and the smallest fraction of particles within it.
CLOSE_Z, ASKED_SHARE = 0.02, 0.99


@dataclass(frozen=True)
class Compared:
    """Particles of one structure, searched in both ways.

    Attributes:
        loss: z of the exhaustive search minus that of the adaptive search.
        z: z of the exhaustive search.
        share: Fraction of the grid's correlations that the adaptive search computes.
        time: Time of the adaptive search relative to the exhaustive one.
    """

    name: str
    loss: np.ndarray
    z: np.ndarray
    share: float
    time: float


def documented_grid() -> jr.SearchGrid:
    """The grid of a configuration without any of its keys."""
    return jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=1.5, psi_fine=0.1, theta_coarse=2.5, theta_fine=0.25
        ),
        jr.search_offsets(-100.0, 100.0, 20.0),
    )


def correlations(layout: Layout, grid: jr.SearchGrid) -> int:
    """Orientations times defocus values that the adaptive search correlates."""
    _, defoci, orientations = grid.shape
    products = orientations
    if layout.nodes_pay(orientations):
        products = layout.first_products(orientations)
    return products * layout.defocus_nodes + layout.rescored * defoci


def timed(particles, template, grid, score, layout) -> tuple[jr.Refined, float]:
    """Results, and the time in seconds of a second run."""
    for _ in range(2):
        began = time.perf_counter()
        found = jr.refine_particles(particles, template, grid, score, layout=layout)
        jax.block_until_ready(found)
    return found, time.perf_counter() - began


def compare(structure: Structure, count: int, seed: int) -> Compared:
    """Compare `count` particles, distributed over the defocus values."""
    rng, grid = np.random.default_rng(seed), documented_grid()
    volume = sim.potential_volume(structure.atoms, structure.side, structure.pixel_size)
    template, score = jr.make_template(volume), structure.score
    loss, z, seconds = [], [], np.zeros(2)
    for defocus in DEFOCI_ANGSTROM:
        each = -(-count // len(DEFOCI_ANGSTROM))
        particles = make_case(structure, defocus, each, rng).particles
        layouts = [
            layout_for(particles, template, grid, score, adaptive=a) for a in (False, True)
        ]
        (full, slow), (quick, fast) = (
            timed(particles, template, grid, score, layout) for layout in layouts
        )
        seconds += slow, fast
        loss.append(np.asarray(full.z_score) - np.asarray(quick.z_score))
        z.append(np.asarray(full.z_score))
    share = correlations(layouts[1], grid) / math.prod(grid.shape)
    name = f"{structure.name} ({layouts[1].orientation_nodes} nodes)"
    return Compared(
        name, np.concatenate(loss), np.concatenate(z), share, seconds[1] / seconds[0]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--particles", type=int, default=48, help="of each structure")
    parser.add_argument("--largest", type=int, default=256, help="side in px")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(
        "| | particles | same grid point's z | more than 0.02 lower | most "
        "| correlations | time |\n|---|---|---|---|---|---|---|"
    )
    everything = []
    for structure in [*structures(), large_structure()]:
        if structure.side > options.largest:
            continue
        one = compare(structure, options.particles, options.seed)
        everything.append(one)
        print(
            f"| {one.name} | {len(one.loss)} | {np.mean(one.loss == 0):.0%} "
            f"| {np.sum(one.loss > CLOSE_Z)} | {one.loss.max():.3f} "
            f"| {one.share:.1%} | {one.time:.0%} |",
            flush=True,
        )
    loss = np.concatenate([one.loss for one in everything])
    z = np.concatenate([one.z for one in everything])
    share = np.mean(loss <= CLOSE_Z)
    print(f"\nWithin {CLOSE_Z}: {share:.1%} of {len(loss)}; asked: {ASKED_SHARE:.0%}.")
    for lost, best in zip(loss[loss > CLOSE_Z], z[loss > CLOSE_Z], strict=True):
        print(f"A failure: {lost:.3f} below z = {best:.2f}")


if __name__ == "__main__":
    main()
