"""Time of the parts of a search, compared with the limits of the machine.

The limits are measured: a large float32 matrix product, a copy of a large array, and random
reads of single numbers from the template's transform. The parts of the search are run
separately, at their actual shapes, with their operations and bytes counted.

    python benchmarks/roofline.py --sizes 64/72 128/136 256/264
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.physics.slices import sample_slice
from jaxrefine.refine.layout import plan_layout

OPTICS = {"voltage_kv": 300.0, "pixel_size_angstrom": 1.0}


def seconds(function: Callable, *arguments, repeats: int = 5) -> float:
    """Median time of a compiled function in seconds."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def ceilings() -> tuple[float, float]:
    """(operations per second of a float32 product, bytes per second of a copy)."""
    n = 3072
    square = jnp.ones((n, n))
    product = seconds(lambda a: jnp.matmul(a, a, precision="highest"), square)
    long = jnp.ones(1 << 27)
    return 2 * n**3 / product, 2 * long.nbytes / seconds(lambda a: a + 1, long)


def random_reads(volume: jax.Array) -> float:
    """Seconds for reading one number at a random position."""
    count = 1 << 22
    index = jax.random.randint(jax.random.key(0), (count,), 0, volume.size)
    flat = volume.reshape(-1)
    return seconds(lambda v, i: v.at[i].get(mode="promise_in_bounds"), flat, index) / count


def report(side: int, box: int, product_ceiling: float) -> None:
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=1.5, psi_fine=0.1, theta_coarse=2.5, theta_fine=0.25
        ),
        jr.search_offsets(-100.0, 100.0, 20.0),
    )
    rng = np.random.default_rng(0)
    atoms = sim.random_globule(500, 0.4 * side, rng).blurred(20.0)
    template = jr.make_template(sim.potential_volume(atoms, side, 1.0))
    layout = plan_layout(grid, jr.TemplateCTF((box, box), side), template, **OPTICS)
    frequencies, orientations = layout.frequencies, layout.orientations
    kx = jnp.asarray(rng.uniform(0, 0.5, (frequencies, 1)), jnp.float32)
    ky = jnp.asarray(np.sort(rng.uniform(-0.3, 0.3, (frequencies, 1)), 0), jnp.float32)
    rotations = jnp.moveaxis(grid.rotation[:orientations], 0, -1)
    points = frequencies * orientations
    sampling = seconds(sample_slice, template, rotations, kx, ky) / points

    # As many columns as fit into the memory of one chunk of positions.
    per_position = layout.defocus_nodes * (box - side + 1) ** 2
    columns = min(per_position, layout.column_bytes // (8 * side * (side // 2 + 1)))
    rows = jnp.ones((frequencies, orientations))
    right = jnp.ones((frequencies, columns))
    contract = (((0,), (0,)), ((), ()))

    def multiply(a, b):
        return jax.lax.dot_general(a, b, contract, precision="highest")

    product = 2 * points * columns / seconds(multiply, rows, right)
    half_plane = side * (side // 2 + 1)
    sampled = grid.shape[2]
    if layout.nodes_pay(sampled):
        sampled = layout.first_products(sampled)
    products = 4 * sampled * half_plane * per_position
    reads = 16 * random_reads(template.real)
    print(
        f"{side}/{box}: {sampled} of {grid.shape[2]} orientations sampled\n"
        f"  slices: {1e9 * sampling:.1f} ns a point (16 reads; at random, one after the "
        f"other, they take {1e9 * reads:.1f} ns), {sampled * half_plane * sampling:.2f} s\n"
        f"  products: {product / 1e9:.0f} Gflop/s, {100 * product / product_ceiling:.0f} % "
        f"of the ceiling, {products / product:.2f} s for {products / 1e9:.0f} Gflop"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=["64/72", "128/136", "256/264"])
    options = parser.parse_args()
    device = jax.devices()[0]
    operations, bandwidth = ceilings()
    print(f"jax {jax.__version__}, {device.device_kind}")
    print(f"ceilings: {operations / 1e9:.0f} Gflop/s, {bandwidth / 1e9:.1f} GB/s copied")
    for size in options.sizes:
        side, box = map(int, size.split("/"))
        report(side, box, operations)


if __name__ == "__main__":
    main()
