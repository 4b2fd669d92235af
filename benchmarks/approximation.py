"""Approximation errors of the search's matrix products.

Searches simulated particles of several sizes in each precision of the products, and prints
the largest difference between approximate and exact z-score over the orientations that are
scored both ways (`Refined.approximation_error`): in z, and relative to |z| + 1, for which
the program has a limit.

    python benchmarks/approximation.py --sizes 64/72 128/136 --particles 6
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.refine.layout import plan_layout

PIXEL_SIZE_ANGSTROM, VOLTAGE_KV, CS_MM = 1.0, 300.0, 2.7
DEFOCUS_ANGSTROM = 8000.0
SNRS = (0.0, 10.0, 15.0, 30.0, 60.0)
ORIENTATIONS = jr.uniform_orientations(
    psi_coarse=1.5, psi_fine=0.1, theta_coarse=2.5, theta_fine=0.25
)
GRIDS = {
    "default": jr.local_grid(ORIENTATIONS, jr.search_offsets(-100.0, 100.0, 20.0)),
    "wide defocus": jr.local_grid(ORIENTATIONS, jr.search_offsets(-1000.0, 1000.0, 100.0)),
    "pixel sizes": jr.local_grid(
        ORIENTATIONS,
        jr.search_offsets(-100.0, 100.0, 50.0),
        jr.search_offsets(-0.01, 0.01, 0.005),
    ),
}


def some_particles(side: int, box: int, count: int):
    """Template, score, and particles of several strengths away from the starting values."""
    rng = np.random.default_rng(0)
    score = jr.ImageCTF.for_particles(
        (box, box),
        side,
        max_defocus_angstrom=DEFOCUS_ANGSTROM + 1030,
        voltage_kv=VOLTAGE_KV,
        spherical_aberration_mm=CS_MM,
        pixel_size_angstrom=PIXEL_SIZE_ANGSTROM - 0.01,
    )
    atoms = sim.random_globule(500, 0.4 * side * PIXEL_SIZE_ANGSTROM, rng).blurred(20.0)
    volume = sim.potential_volume(atoms, side, PIXEL_SIZE_ANGSTROM)
    ny = max(score.padded_box) + side
    each = []
    for number in range(count):
        start = sim.random_rotations(1, rng)
        simulated = sim.SimulatedParticle(
            sim.perturbed_rotation(start[0], rng),
            (ny / 2 + rng.uniform(-1, 1), ny / 2 + rng.uniform(-1, 1)),
            (DEFOCUS_ANGSTROM + 30, DEFOCUS_ANGSTROM - 270),
            snr_ideal=SNRS[number % len(SNRS)],
        )
        made = sim.simulate_micrograph(
            atoms, [simulated], (ny, ny), PIXEL_SIZE_ANGSTROM, sim.Microscope(), rng
        )
        maps = (ny - side + 1,) * 2
        micrograph = jr.prepare_micrograph(
            jnp.asarray(made.image), jnp.zeros(maps), jnp.ones(maps), jr.Filters()
        )

        def one(value: float) -> jax.Array:
            return jnp.full(1, value, jnp.float32)

        alignment = jr.Alignment(
            rotation=jnp.asarray(start, jnp.float32),
            position_px=jnp.full((1, 2), float(ny // 2 - side // 2)),
            defocus_angstrom=jnp.asarray([[DEFOCUS_ANGSTROM, DEFOCUS_ANGSTROM - 300]]),
            astigmatism_deg=one(0.0),
            pixel_size_angstrom=one(PIXEL_SIZE_ANGSTROM),
        )
        optics = jr.Optics(one(VOLTAGE_KV), one(CS_MM), one(0.07), one(0.0), one(0.0))
        each.append(
            jr.cut_particles(micrograph, alignment, optics, one(PIXEL_SIZE_ANGSTROM), score)
        )
    particles = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *each)
    return score, jr.make_template(volume), particles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=["64/72"], metavar="TEMPLATE/BOX")
    parser.add_argument("--grids", nargs="+", default=list(GRIDS), choices=GRIDS)
    parser.add_argument("--particles", type=int, default=5)
    options = parser.parse_args()
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.device_kind} ({device.platform})")
    for size in options.sizes:
        side, box = map(int, size.split("/"))
        score, template, particles = some_particles(side, box, options.particles)
        for name in options.grids:
            grid = GRIDS[name]
            for precision in ("float32", "float16", "bfloat16"):
                layout = plan_layout(
                    grid,
                    score,
                    template,
                    voltage_kv=VOLTAGE_KV,
                    pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
                    accelerator=device.platform != "cpu",
                    precision=precision,
                )
                found = jr.refine_particles(particles, template, grid, score, layout=layout)
                z, error = np.asarray(found.z_score), np.asarray(found.approximation_error)
                print(
                    f"{size:8} {name:13} {precision:9} z {z.min():4.1f} ... {z.max():4.1f}"
                    f"  largest error {error.max():.5f}"
                    f"  of |z| + 1: {np.max(error / (abs(z) + 1)):.6f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
