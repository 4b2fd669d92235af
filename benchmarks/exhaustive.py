"""Does the exhaustive search find what a search finds that scores every pose exactly?

The former interpolates over orientations and scores only the best exactly, with margins for
errors that it has seen. Every particle is included.

    python benchmarks/exhaustive.py --particles 60
    python benchmarks/exhaustive.py --particles 8 --smallest 256 --largest 256
"""

import argparse
import time
from dataclasses import replace

import jax
import numpy as np
from adaptive import documented_grid
from simulated import DEFOCI_ANGSTROM, Structure, large_structure, make_case, structures

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.app.run.devices import use_cpu_cores
from jaxrefine.refine.refine import layout_for
from jaxrefine.refine.sharding import device_mesh, replicate


def rod() -> Structure:
    """A globule stretched to four times its width."""
    made = sim.random_globule(1500, 20.0, np.random.default_rng(13)).blurred(20.0)
    stretched = made.positions_angstrom * np.array([0.6, 0.6, 2.4])
    atoms = replace(made, positions_angstrom=stretched)
    return Structure("rod, 112 px of 1.0 Å", atoms, 112, 1.0)


def compare(
    structure: Structure, count: int, seed: int, sampling: str
) -> tuple[str, np.ndarray]:
    """A row of the table, and which particles have another best pose."""
    rng, grid = np.random.default_rng(seed), documented_grid()
    volume = sim.potential_volume(structure.atoms, structure.side, structure.pixel_size)
    template, score = jr.make_template(volume, sampling), structure.score
    mesh = device_mesh(jax.devices())
    everywhere = replicate(template, mesh)
    lost, seconds, nodes = [], np.zeros(2), None
    for defocus in DEFOCI_ANGSTROM:
        each = -(-count // len(DEFOCI_ANGSTROM))
        particles = make_case(structure, defocus, each, rng).particles
        quick = layout_for(particles, template, grid, score)
        plain = replace(quick, orientation_nodes=None, rescored=grid.shape[2])
        nodes, found = quick.orientation_nodes, []
        for number, layout in enumerate((quick, plain)):
            began = time.perf_counter()
            found.append(
                jax.block_until_ready(
                    jr.refine_particles(
                        particles, everywhere, grid, score, mesh=mesh, layout=layout
                    )
                )
            )
            seconds[number] += time.perf_counter() - began
        best, exact = (np.asarray(one.z_score) for one in found)
        same = (found[0].grid_index == found[1].grid_index).all(axis=1)
        lost.append(np.where(np.asarray(same), 0, exact - best))
    lost = np.concatenate(lost)
    missed = lost != 0
    row = (
        f"| {structure.name} | {sampling} | {nodes} | {len(lost)} | {missed.sum()} "
        f"| {lost.max():.3f} | {seconds[1] / seconds[0]:.0f} |"
    )
    return row, missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--particles", type=int, default=60, help="of each structure")
    parser.add_argument("--smallest", type=int, default=0, help="side in px")
    parser.add_argument("--largest", type=int, default=128, help="side in px")
    parser.add_argument("--sampling", nargs="+", default=["padded"])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    use_cpu_cores()
    print(
        "| | sampling | degrees | particles | another pose | z lost, at most "
        "| times faster, with compilation |\n|" + "---|" * 7
    )
    missed = []
    for structure in [*structures(), rod(), large_structure()]:
        if not options.smallest <= structure.side <= options.largest:
            continue
        for sampling in options.sampling:
            row, others = compare(structure, options.particles, options.seed, sampling)
            missed += others.tolist()
            print(row, flush=True)
    print(f"\nAnother pose: {sum(missed)} of {len(missed)}.")


if __name__ == "__main__":
    main()
