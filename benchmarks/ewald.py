"""Loss of z due to flat slices, and whether slices on the Ewald sphere restore it.

Particles whose parts are imaged at the defocus of their own height, at several voltages,
are polished from their true poses with slices that are flat, curved, and curved the wrong
way. The first row of each structure is of thin particles, without differences in defocus.

    python benchmarks/ewald.py --particles 6
"""

import argparse
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from simulated import (
    MICROSCOPE,
    Structure,
    errors_of,
    large_structure,
    make_case,
    structures,
)

import jaxrefine as jr
from jaxrefine import simulate as sim

DEFOCUS_ANGSTROM = 6000.0
SIGNS = {"flat": 0, "curved": 1, "wrong sign": -1}
# Voltage in kV, and whether the particles are thick.
IMAGED = ((300.0, False), (300.0, True), (200.0, True))


def row(structure: Structure, voltage_kv: float, thick: bool, count: int) -> str:
    """One row of the table."""
    microscope = replace(MICROSCOPE, voltage_kv=voltage_kv, ewald_sign=int(thick))
    case = make_case(
        structure,
        DEFOCUS_ANGSTROM,
        count,
        np.random.default_rng(5),
        microscope=microscope,
    )
    optics = replace(case.truth.optics, voltage_kv=jnp.full(count, voltage_kv, jnp.float32))
    particles = replace(case.truth, optics=optics)
    volume = sim.potential_volume(structure.atoms, structure.side, structure.pixel_size)
    template, grid = jr.make_template(volume, "cubic"), jr.local_grid()
    cells = []
    for sign in SIGNS.values():
        score = replace(structure.score, ewald_sign=sign)
        found = jr.refine_particles(particles, template, grid, score)
        found = jr.polish_particles(particles, found, template, grid, score).refined
        errors = errors_of(found.alignment, case, structure.pixel_size)
        angle = np.median(np.linalg.norm(errors[:, :3], axis=1))
        cells.append(f"{np.mean(found.z_score):.2f} ({angle:.2f}°)")
    imaged = f"{voltage_kv:.0f} kV" + ("" if thick else ", thin")
    return f"| {structure.name} | {imaged} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--particles", type=int, default=6)
    options = parser.parse_args()
    print(f"| structure | imaged at | {' | '.join(SIGNS)} |")
    print("|---|---|" + "---|" * len(SIGNS))
    for structure in (structures()[1], structures()[3], large_structure()):
        for voltage_kv, thick in IMAGED:
            print(row(structure, voltage_kv, thick, options.particles), flush=True)


if __name__ == "__main__":
    main()
