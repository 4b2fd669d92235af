"""Time of the parts of a search of one particle over the documented grid.

    python benchmarks/search_parts.py

Each part is compiled and run by itself; the whole is measured beside them.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from adaptive import documented_grid
from simulated import large_structure, make_case, structures

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.refine.nodes import OrientationNodes
from jaxrefine.refine.norms import measure_norms
from jaxrefine.refine.product import approximate_best_z, shared_columns
from jaxrefine.refine.refine import layout_for
from jaxrefine.refine.search import pose_rotations

DEFOCUS_ANGSTROM, EXACT_AT_ONCE = 6000.0, 8


def timed(function: Callable, *arguments: object) -> tuple[object, float]:
    """Result of a function, and the median time of five runs in ms, after compilation."""
    found, taken = jax.block_until_ready(function(*arguments)), []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        taken.append(1e3 * (time.perf_counter() - began))
    return found, statistics.median(taken)


def parts(side: int, adaptive: bool) -> dict[str, float]:
    """Times in ms by part, of the exhaustive or the adaptive search."""
    structure = next(s for s in [*structures(), large_structure()] if s.side == side)
    batch = make_case(structure, DEFOCUS_ANGSTROM, 1, np.random.default_rng(1)).particles
    volume = sim.potential_volume(structure.atoms, structure.side, structure.pixel_size)
    template, score, grid = jr.make_template(volume), structure.score, documented_grid()
    layout = layout_for(batch, template, grid, score, adaptive=adaptive)
    particle = jax.tree.map(lambda leaf: leaf[0], batch)
    poses = pose_rotations(particle, grid.rotation, grid)
    counts = layout.orientation_nodes
    if counts is None:
        raise SystemExit(f"{side} px: this search does not interpolate over orientations")
    around = OrientationNodes.around(grid.rotation, counts)
    rows = pose_rotations(particle, around.rotation, grid)
    times = {}

    def whole(batch, template):
        return jr.refine_particles(batch, template, grid, score, layout=layout)

    def part(name: str, function: Callable, *arguments: object) -> object:
        found, times[name] = timed(jax.jit(function), *arguments)
        return found

    def by_product(particle, template, norms, shared, rows, between=None):
        fixed = (score, particle, template, grid, norms, layout, rows)
        return approximate_best_z(*fixed, between, shared=shared)

    times["whole"] = timed(whole, batch, template)[1]
    prepared = part("prepare", lambda p: score.prepare(p, grid), particle)
    norms, _ = part(
        "norms",
        lambda p, prepared, t: measure_norms(score, p, prepared, t, poses, grid),
        particle, prepared, template,
    )  # fmt: skip
    shared = part(
        "columns", lambda p, n: shared_columns(score, p, grid, n, layout), particle, norms
    )
    some = (particle, template, norms, shared)
    part(
        f"{len(rows)} nodes, interpolation to {len(poses):,} orientations",
        lambda *some: by_product(*some, (around, grid.rotation)),
        *some, rows,
    )  # fmt: skip
    first = poses[: layout.candidates]
    part(f"products of {len(first)} candidates", by_product, *some, first)
    part(
        f"{EXACT_AT_ONCE} exact scores",
        lambda prepared, t, poses: jax.vmap(score.correlate, (None, None, 0))(
            prepared, t, poses
        ),
        prepared, template, poses[:EXACT_AT_ONCE],
    )  # fmt: skip
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", type=int, default=256, help="of one of the structures")
    options = parser.parse_args()
    for adaptive in (False, True):
        print("\nadaptive" if adaptive else "exhaustive")
        for name, milliseconds in parts(options.side, adaptive).items():
            print(f"| {name} | {milliseconds:.0f} ms |", flush=True)


if __name__ == "__main__":
    main()
