"""Loss of z due to ignored aberrations, and whether applying them restores it.

The same particles with the same noise, imaged by microscopes with one aberration each, are
searched and polished twice: without the aberration, and with it. Angles are compared with
the truth, z-scores with those of the microscope without aberrations.

    python benchmarks/aberrations.py --particles 16
"""

import argparse
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from simulated import MICROSCOPE, errors_of, make_case, structures

import jaxrefine as jr
from jaxrefine import simulate as sim
from jaxrefine.io.table.aberrations import ZERNIKES

DEFOCUS_ANGSTROM = 6000.0
MICROSCOPES = {
    "none": {},
    "beam tilt 0.5 mrad": {"beam_tilt_mrad": (0.4, -0.3)},
    "beam tilt 1 mrad": {"beam_tilt_mrad": (0.8, -0.6)},
    "beam tilt 2 mrad": {"beam_tilt_mrad": (1.6, -1.2)},
    "trefoil Z33c 20 rad Å³": {"zernikes": {"Z33c": 20.0}},
    "fourfold Z44c 60 rad Å⁴": {"zernikes": {"Z44c": 60.0}},
    "magnification 1 % anisotropic": {"mag_matrix": ((1.005, 0.0), (0.0, 0.995))},
    "magnification 2 % anisotropic": {"mag_matrix": ((1.01, 0.0), (0.0, 0.99))},
}


def fields(microscope: sim.Microscope, count: int) -> dict[str, jnp.ndarray]:
    """The aberrations of a microscope as fields of `Optics`."""
    values = {
        "beam_tilt_mrad": microscope.beam_tilt_mrad,
        "mag_matrix": microscope.mag_matrix,
    }
    for name, terms in ZERNIKES.items():
        values[name] = [microscope.zernikes.get(term, 0.0) for term in terms]
    return {
        name: jnp.tile(jnp.asarray(value, jnp.float32), (count, *[1] * np.ndim(value)))
        for name, value in values.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--particles", type=int, default=16)
    parser.add_argument("--structure", type=int, default=1, help="of simulated.structures")
    options = parser.parse_args()
    structure = structures()[options.structure]
    score = structure.score
    volume = sim.potential_volume(structure.atoms, structure.side, structure.pixel_size)
    padded, cubic = (jr.make_template(volume, name) for name in ("padded", "cubic"))
    grid = jr.local_grid(
        jr.uniform_orientations(
            psi_coarse=1.5, psi_fine=0.5, theta_coarse=2.5, theta_fine=0.5
        ),
        jr.search_offsets(-150.0, 150.0, 50.0),
    )
    print(f"{structure.name}, {options.particles} particles\n")
    print("| aberration | mean z, ignored | mean z, applied | angle, ignored | applied |")
    print("|---|---|---|---|---|")
    for name, changes in MICROSCOPES.items():
        microscope = replace(MICROSCOPE, **changes)
        rng = np.random.default_rng(5)
        case = make_case(
            structure,
            DEFOCUS_ANGSTROM,
            options.particles,
            rng,
            microscope=microscope,
        )
        aberrated = eqx.tree_at(
            lambda p: p.optics,
            case.particles,
            replace(case.particles.optics, **fields(microscope, options.particles)),
        )
        cells = []
        for particles in (case.particles, aberrated):
            found = jr.refine_particles(particles, padded, grid, score, adaptive=True)
            found = jr.polish_particles(particles, found, cubic, grid, score).refined
            errors = errors_of(found.alignment, case, structure.pixel_size)
            angle = np.median(np.linalg.norm(errors[:, :3], axis=1))
            cells.append((float(np.mean(found.z_score)), angle))
        (z, angle), (z_applied, angle_applied) = cells
        print(
            f"| {name} | {z:.2f} | {z_applied:.2f} | {angle:.2f}° | {angle_applied:.2f}° |",
            flush=True,
        )


if __name__ == "__main__":
    main()
