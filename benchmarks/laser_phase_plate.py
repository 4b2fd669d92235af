"""Signal of particles imaged with a laser phase plate, by the CTF that a score assumes.

Noise-free images with the CTF of a laser phase plate are correlated with the same
projections with a CTF without it, with a phase shift of 90° at all frequencies, and with
the plate's own. 1 is the matched filter in white noise.

    python benchmarks/laser_phase_plate.py
"""

import jax.numpy as jnp
import numpy as np
from simulated import MICROSCOPE, structures

import jaxrefine as jr
from jaxrefine import simulate as sim

DEFOCUS_ANGSTROM = (1000.0, 3000.0, 6000.0, 10_000.0)
POSES = 8


def main() -> None:
    structure = structures()[1]
    shape = (4 * structure.side,) * 2  # the CTF does not wrap around
    rotations = sim.random_rotations(POSES, np.random.default_rng(0))
    middle = (shape[0] // 2,) * 2
    power = np.mean(
        [
            np.abs(
                sim.exact_projection_rfft(
                    structure.atoms, rotation, shape, structure.pixel_size, middle
                )
            )
            ** 2
            for rotation in rotations
        ],
        axis=0,
    )
    power[:, 1:-1] *= 2  # half plane
    power[0, 0] = 0

    def ctf(defocus: float, phase_shift_deg: float, plate: jr.LaserPhasePlate | None):
        names = "voltage_kv", "spherical_aberration_mm", "amplitude_contrast"
        optics = jr.Optics(
            *(jnp.float32(getattr(MICROSCOPE, name)) for name in names),
            jnp.float32(phase_shift_deg),
            jnp.float32(MICROSCOPE.b_factor_angstrom2),
        )
        both = jnp.full(2, defocus, jnp.float32)
        size = structure.pixel_size
        return np.asarray(jr.contrast_transfer(shape, size, both, 0.0, optics, plate))

    print(f"{structure.name}, {POSES} poses\n")
    print("| defocus | without the plate | a phase shift of 90° | the plate |")
    print("|---|---|---|---|")
    for defocus in DEFOCUS_ANGSTROM:
        seen = ctf(defocus, 0.0, jr.LaserPhasePlate())
        signal = np.sqrt(np.sum(power * seen**2))
        parts = []
        for phase, plate in ((0.0, None), (90.0, None), (0.0, jr.LaserPhasePlate())):
            assumed = ctf(defocus, phase, plate)
            norm = np.sqrt(np.sum(power * assumed**2))
            parts.append(f"{np.sum(power * seen * assumed) / (signal * norm):.3f}")
        print(f"| {defocus:,.0f} Å | {' | '.join(parts)} |")


if __name__ == "__main__":
    main()
