"""Norms of all orientations: from the power of slices, and by a polynomial.

For 200 orientations of the documented grid, at several defocus values: how much exact
norms vary, the largest relative error of norms from power with the ratio that the search
measures, and that of a cubic polynomial in the rotation through 96 exact norms.

    python benchmarks/norms.py
"""

import argparse
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from adaptive import documented_grid
from simulated import Structure, large_structure, make_case, structures

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.physics.slices import central_slice
from jaxrefine.refine.nodes import turn
from jaxrefine.refine.norms import measure_norms
from jaxrefine.refine.search import pose_rotations

DEFOCI_ANGSTROM = (3000.0, 10000.0, 20000.0)
SAMPLES, OF_POLYNOMIAL = 200, 96


def small_structures() -> list[Structure]:
    """Globules in templates that are narrower than the CTF."""
    rng = np.random.default_rng(0)
    found = []
    for side, pixel_size in ((32, 1.0), (48, 1.0), (48, 2.0)):
        radius = 0.4 * side * pixel_size
        atoms = sim.random_globule(max(round(0.0044 * radius**3), 40), radius, rng)
        name = f"globule, {side} px of {pixel_size} Å"
        found.append(Structure(name, atoms.blurred(20.0), side, pixel_size))
    return found


def by_polynomial(turned: np.ndarray, log: np.ndarray) -> np.ndarray:
    """Logarithms of norms by a cubic through the first `OF_POLYNOMIAL`."""
    unit = turned / np.abs(turned).max()
    powers = [p for p in itertools.product(range(4), repeat=3) if sum(p) <= 3]
    terms = np.stack([np.prod(unit**p, axis=1) for p in powers], axis=1)
    return terms @ (np.linalg.pinv(terms[:OF_POLYNOMIAL]) @ log[:OF_POLYNOMIAL])


def compare(structure: Structure, defocus: float) -> tuple[float, float, float]:
    """Range of the exact norms, and largest errors by power and by polynomial."""
    rng, grid = np.random.default_rng(1), documented_grid()
    batch = make_case(structure, defocus, 1, rng).particles
    particle = jax.tree.map(lambda leaf: leaf[0], batch)
    volume = sim.potential_volume(structure.atoms, structure.side, structure.pixel_size)
    template, score = jr.make_template(volume), structure.score
    poses = pose_rotations(particle, grid.rotation, grid)
    some = rng.permutation(len(poses))[:SAMPLES]

    @jax.jit
    def norms(particle, template):
        prepared = score.prepare(particle, grid)
        ours, _ = measure_norms(score, particle, prepared, template, poses, grid)

        def both(pose):
            power = jnp.abs(central_slice(template, pose)) ** 2
            squares = jnp.sum(ours.weights[0] * power, axis=(1, 2))
            exact = score.norms(prepared, template, pose)[0]
            return exact, jnp.sqrt(squares) * ours.ratio[0]

        return jax.lax.map(both, poses[some], batch_size=8)

    exact, by_power = (np.log(np.asarray(x)) for x in norms(particle, template))
    turned = np.asarray(turn(grid.rotation[some]), float)
    error = np.abs(by_polynomial(turned, exact) - exact)[OF_POLYNOMIAL:]
    return np.ptp(exact, axis=0).max(), np.abs(by_power - exact).max(), error.max()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--largest", type=int, default=256, help="side in px")
    options = parser.parse_args()
    print(
        "| | defocus | range of norms | by power | by polynomial |\n|---|---|---|---|---|"
    )
    for structure in [*small_structures(), *structures(), large_structure()]:
        if structure.side > options.largest:
            continue
        for defocus in DEFOCI_ANGSTROM:
            spread, power, polynomial = compare(structure, defocus)
            print(
                f"| {structure.name} | {defocus:,.0f} Å | {spread:.2%} | {power:.3%} "
                f"| {polynomial:.3%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
